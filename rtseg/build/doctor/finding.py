"""A finding of the doctor, and checks of installed packages."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor.

    `ok` is True for something that works, False for something needed that does not, None for something optional that is
    missing. `remedy` says what to do.
    """

    name: str
    ok: bool | None
    text: str
    remedy: str = ""


def has(name: str) -> bool:
    """Whether a package is installed, without importing it."""
    if name in sys.modules:
        return sys.modules[name] is not None
    return importlib.util.find_spec(name) is not None


def package(name: str, use: str, needed: bool = False, project: str = "", extra: str = "") -> Finding:
    """The finding about a package: whether it is installed, and the command that installs it.

    `name` is imported, `project` (if it differs) or the `extra` of rtseg is installed, `use` is what it is for.
    """
    if has(name):
        return Finding(name, True, f"{version(name, project)}, for {use}")
    remedy = f"pip install 'rtseg[{extra}]'" if extra else f"pip install {project or name}"
    return Finding(name, False if needed else None, f"not installed; it is for {use}", remedy)


def version(name: str, project: str = "") -> str:
    """The version from the package's metadata, else from the module: TensorRT may be installed as `tensorrt_cu13`."""
    try:
        return importlib.metadata.version(project or name)
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        return str(importlib.import_module(name).__version__)
    except Exception:  # a library that it loads may be missing, or of another version
        return "of unknown version"


def torch_problem() -> tuple[str, str]:
    """Why torch cannot be imported, and the command that helps; ("", "") if it can be."""
    if not has("torch"):
        return "torch is not installed", "pip install 'rtseg[torch]'"
    try:
        importlib.import_module("torch")
    except Exception as e:  # an incomplete installation, or one for another machine
        return f"torch cannot be loaded ({first_line(e)})", "pip install --force-reinstall torch"
    return "", ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or the name of its type if it has no text."""
    return " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())
