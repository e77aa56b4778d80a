"""Every error that rtseg raises on purpose.

The text of an error is one line: where and what is wrong, what was expected, and what to do. The command line prints
that line and exits with 2, for an `IncompleteError` with 1. Any other exception is a bug or a failure of the machine,
and exits with 1.

    RtsegError
    ├── ConfigError    a recipe, a stream profile or an argument is wrong
    ├── SourceError    frames cannot be read from a source
    ├── PromptError    a prompt does not fit its frame or its object
    ├── WeightsError   a weights file does not fit the network
    ├── EngineError    an engine cannot be opened or built on this machine
    │   └── AnswerError    its output for one frame is invalid; the next frame may be given
    ├── OutputError    a result cannot be written or published
    └── IncompleteError  a run ended early; its complete results are kept
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class RtsegError(Exception):
    """A failure that the caller can act on; its text is one line."""


class ConfigError(RtsegError):
    """A recipe, a stream profile or an argument is wrong."""


class SourceError(RtsegError):
    """Frames cannot be read from a source."""


class PromptError(RtsegError):
    """A prompt does not fit its frame or its object."""


class WeightsError(RtsegError):
    """A weights file does not fit the network."""


class EngineError(RtsegError):
    """An engine cannot be opened or built on this machine."""


class AnswerError(EngineError):
    """The network's output for one frame is invalid. None of it is remembered, and the next frame may be given."""


class OutputError(RtsegError):
    """A result cannot be written or published."""


class IncompleteError(RtsegError):
    """A run ended early; its complete results are kept.

    `report` is the run's report, `code` its exit code.
    """

    def __init__(self, line: str, report: dict[str, Any], code: int = 1) -> None:
        super().__init__(line)
        self.report, self.code = report, code


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error line about an unknown name: the nearest known name, or all known names."""
    import difflib

    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"expected one of: {', '.join(known)}"


def short(value: object) -> str:
    """The `repr` of a value on one line, cut to 60 characters."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a number of 5000 digits, deeply nested lists, a class with a broken __repr__
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
