"""What a verb of the command line is: its help, its options, its example and the function that it runs, in one place.

A package with verbs has a `commands.py` that lists them in `VERBS`; `cli.py` collects these lists. A `commands.py`
imports at its top only what parsing the command line needs; a function imports the rest when it runs.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from .documents import as_path
from .errors import RtsegError

Result = dict[str, Any]
T = TypeVar("T")


class UsageError(RtsegError):
    """The arguments of the command line are wrong, or do not fit together."""


@dataclass(frozen=True, slots=True)
class Option:
    """One argument of a verb: what `argparse.ArgumentParser.add_argument` is called with."""

    flags: tuple[str, ...]
    settings: dict[str, Any]


def option(*flags: str, **settings: Any) -> Option:
    """An argument of a verb, written as for `argparse.ArgumentParser.add_argument`."""
    return Option(flags, settings)


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb: `rtseg NAME`, or with `requests` a group of them: `rtseg NAME REQUEST`.

    `run` takes the parsed arguments and returns the verb's result; its failures are `RtsegError`s.
    `placeholder` names the requests in the usage line.
    """

    name: str
    help: str
    example: str
    run: Callable[[argparse.Namespace], Result]
    options: Sequence[Option] = ()
    requests: Sequence[Verb] = ()
    placeholder: str = "REQUEST"

    def add_to(self, subparsers: Any) -> None:
        """Add a parser for this verb to what `ArgumentParser.add_subparsers` returned."""
        parser: argparse.ArgumentParser = subparsers.add_parser(
            self.name,
            help=self.help,
            description=self.help,
            epilog=f"example: {self.example}",
            formatter_class=argparse.RawTextHelpFormatter,
        )
        parser.add_argument("--json", action="store_true", help="print one JSON document as the last line")
        parser.set_defaults(run=self.run)
        for each in self.options:
            parser.add_argument(*each.flags, **each.settings)
        if self.requests:
            inner = parser.add_subparsers(dest=self.placeholder.lower(), required=True, metavar=self.placeholder)
            for request in self.requests:
                request.add_to(inner)


class Parser(argparse.ArgumentParser):
    """A parser that raises its errors: `main` reports them like all others."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise UsageError(f"{message}; see {self.prog} --help")


def path(text: str) -> Path:
    """A path, with `~` replaced by the home folder: a shell does not replace it in --out=~/x, nor in quotes."""
    return as_path(text)


def path_or_uri(text: str) -> str:
    """A path or something else, such as synthetic:...; only a leading `~` is changed."""
    return str(as_path(text)) if text.startswith("~") else text


def positive(text: str) -> float:
    """A number above 0."""
    return _number(float, text, "a number above 0", lambda value: math.isfinite(value) and value > 0)


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers from `least` to `most`."""
    expected = f"a whole number from {least}" + ("" if most is None else f" to {most}")

    def parse(text: str) -> int:
        return _number(int, text, expected, lambda value: value >= least and (most is None or value <= most))

    return parse


def words(text: str) -> tuple[str, ...]:
    """The words of a comma-separated list."""
    return tuple(word for word in text.split(",") if word)


def numbers(count: int | None, expected: str) -> Callable[[str], tuple[float, ...]]:
    """A parser of `count` comma-separated finite numbers (None: one or more)."""

    def parse(text: str) -> tuple[float, ...]:
        try:
            found = tuple(float(word) for word in text.split(","))
        except ValueError:
            found = ()
        if not found or len(found) != (count or len(found)) or not all(map(math.isfinite, found)):
            raise argparse.ArgumentTypeError(f"{text!r}; expected {expected}")
        return found

    return parse


def _number(kind: Callable[[str], T], text: str, expected: str, fits: Callable[[T], bool]) -> T:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r}; expected {expected}")
    return value


def log_to_stderr() -> None:
    """Log to stderr what happens to a feed while it runs: every start, end and fault of its processes."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
