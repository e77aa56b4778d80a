"""What the doctor finds of one thing, and whether a package is installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor.

    `ok`: True for what works, False for what has to work and does not, None for what is missing and not needed.
    `remedy`: what to do about it.
    """

    name: str
    ok: bool | None
    text: str
    remedy: str = ""


def has(name: str) -> bool:
    """Whether a package is installed; it is not imported."""
    if name in sys.modules:
        return sys.modules[name] is not None
    return importlib.util.find_spec(name) is not None


def package(name: str, use: str, needed: bool = False, project: str = "", extra: str = "") -> Finding:
    """Whether a package is installed, and the command that installs it."""
    if has(name):
        return Finding(name, True, f"{version(name, project)}, for {use}")
    remedy = f"pip install 'rtseg[{extra}]'" if extra else f"pip install {project or name}"
    return Finding(name, False if needed else None, f"not installed; it is for {use}", remedy)


def version(name: str, project: str = "") -> str:
    """The version by the package's metadata, else by the module: TensorRT may be installed as `tensorrt_cu13`."""
    try:
        return importlib.metadata.version(project or name)
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        return str(importlib.import_module(name).__version__)
    except Exception:  # a library that it loads may be missing, or of another version
        return "of unknown version"


def torch_problem() -> tuple[str, str]:
    """Why torch cannot be imported, and the command that helps; ("", "") where it can."""
    if not has("torch"):
        return "torch is not installed", "pip install 'rtseg[torch]'"
    try:
        importlib.import_module("torch")
    except Exception as e:  # an incomplete installation, or one for another machine
        return f"torch cannot be loaded ({first_line(e)})", "pip install --force-reinstall torch"
    return "", ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or the name of its type where it has none."""
    return " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())
