"""What the doctor says of one thing, and whether a package is there."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `ok` is None where a thing is missing that nobody needs; `remedy` says how to have it."""

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
    """Whether a package is there, and how it is installed."""
    if has(name):
        return Finding(name, True, f"{version(name, project)}, for {use}")
    remedy = f"pip install 'rtseg[{extra}]'" if extra else f"pip install {project or name}"
    return Finding(name, False if needed else None, f"not installed; it is for {use}", remedy)


def version(name: str, project: str = "") -> str:
    """The package index's word, else the module's: TensorRT's wheels may be there as `tensorrt_cu13` alone."""
    try:
        return importlib.metadata.version(project or name)
    except importlib.metadata.PackageNotFoundError:
        pass
    try:
        return str(importlib.import_module(name).__version__)
    except Exception:  # a library that it loads may be missing, or of another version
        return "of unknown version"


def first_line(error: BaseException) -> str:
    """An error as part of a line."""
    return " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())
