"""Reading what people write: one table of a TOML or JSON file, where each mistake costs one clear line.

A `Table` is asked for its keys by type. Whatever is wrong names the place, the key, the value found and what
was expected; a key that nobody knows names the nearest one that is known. What comes by the public API is read as a
table too: so a number is a number, whole or not, by one rule, and the same mistake gives the same line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from .errors import RtsegError, did_you_mean


class Table:
    """One table, read key by key.

    `where` opens every message (a file, and what part of it); `known` are the keys it may hold; `error` is the
    class that is raised.
    """

    def __init__(self, values: object, where: str, known: Iterable[str], error: type[RtsegError]) -> None:
        self.where, self.error = where, error
        if not isinstance(values, dict):
            raise error(f"{where}: found {short(values)}; expected a table of: {', '.join(known)}")
        self.values: dict[str, Any] = values
        known = list(known)
        for key in values:
            if key not in known:
                raise error(f"{where}: unknown key {short(key)}; {did_you_mean(str(key), known)}")

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def bad(self, key: str, expected: str) -> RtsegError:
        """The error for a key whose value is not what was expected."""
        if key not in self.values:
            return self.error(f"{self.where}: {key!r} is missing; expected {expected}")
        return self.error(f"{self.where}: {key} = {short(self.values[key])}; expected {expected}")

    def text(self, key: str, default: str | None = None) -> str:
        """A non-empty string that can be written anywhere; without a default the key must be there."""
        value = self.values.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.bad(key, "a text")
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise self.bad(key, "a text without NUL and half characters (surrogates)")
        return str(value)

    def path(self, key: str, folder: Path) -> Path:
        """A path, relative to `folder`; `~` is the home folder."""
        return folder / expanded(self.text(key), f"{self.where}: {key}", self.error)

    def choice(self, key: str, default: str, choices: Iterable[str]) -> str:
        """One of a few names."""
        value, choices = self.values.get(key, default), list(choices)
        if not isinstance(value, str) or value not in choices:
            raise self.bad(key, "one of: " + ", ".join(choices))
        return str(value)

    def integer(self, key: str, default: int | None, low: int, high: int | None = None) -> int:
        """A whole number in low..high."""
        value = whole(self.values.get(key, default))
        if value is None or value < low or (high is not None and value > high):
            raise self.bad(key, f"a whole number, {_range(low, high)}")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A number in low..high."""
        value = real(self.values.get(key, default))
        if value is None or not low <= value <= high:
            raise self.bad(key, f"a number, {_range(low, high)}")
        return value

    def numbers(self, key: str, count: int, expected: str) -> tuple[float, ...]:
        """A list of `count` numbers."""
        row = _row(self.values.get(key), count)
        if row is None:
            raise self.bad(key, expected)
        return row

    def rows(self, key: str, count: int, expected: str) -> tuple[tuple[float, ...], ...]:
        """A list of one or more lists of `count` numbers."""
        value = listed(self.values.get(key))
        rows = [_row(row, count) for row in value or ()]
        found = tuple(row for row in rows if row is not None)
        if not rows or len(found) < len(rows):
            raise self.bad(key, expected)
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of non-empty strings; none where the key is missing."""
        value = self.values.get(key, [])
        if not isinstance(value, list | tuple) or not all(isinstance(text, str) and text for text in value):
            raise self.bad(key, "a list of texts")
        return tuple(map(str, value))

    def names(self, key: str, default: Iterable[str], choices: Iterable[str]) -> tuple[str, ...]:
        """A list of different names, each one of a few; may be empty."""
        value, choices = self.values.get(key, list(default)), list(choices)
        if not isinstance(value, list | tuple) or any(
            not isinstance(name, str) or name not in choices for name in value
        ):
            raise self.bad(key, "a list of: " + ", ".join(choices))
        if len(set(value)) < len(value):
            raise self.bad(key, "each of them once")
        return tuple(map(str, value))


def expanded(text: str, said: str, error: type[RtsegError]) -> Path:
    """A path that somebody wrote, with `~` made the home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError as e:  # ~somebody who has no home here
        raise error(f"{said} = {short(text)}; expected a home folder that is there: write the path in full") from e


def real(value: object) -> float | None:
    """A finite number, whatever library it is of, as a float; None for anything else, and for a truth value."""
    number = _number(value)
    try:
        found = None if number is None else float(number) + 0.0  # a zero has no sign
    except OverflowError:
        return None
    return found if found is not None and math.isfinite(found) else None


def whole(value: object) -> int | None:
    """A whole number, whatever its type (3, 3.0, a number of numpy, a tensor of one), as an int; else None."""
    number = _number(value)
    if isinstance(number, Integral):
        return int(number)
    found = real(number)
    return int(found) if found is not None and found.is_integer() else None


def listed(value: object) -> list[Any] | None:
    """The items of a list, a tuple, an array or a tensor; None for anything else, a text or a table, say."""
    if isinstance(value, list | tuple):
        return list(value)
    if getattr(value, "ndim", 0) and hasattr(value, "tolist"):
        found = value.tolist()
        return found if isinstance(found, list) else None
    return None


def short(value: object) -> str:
    """A value as a part of one line."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a number of 5000 digits, a list in a list in a list..., somebody's own class
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."


def _number(value: Any) -> Any:
    """The number that a value is; None if it is none. Of an array without axes, the one in it."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    return value if not isinstance(value, bool) and isinstance(value, Real) else None


def _row(value: object, count: int) -> tuple[float, ...] | None:
    """So many finite numbers."""
    items = listed(value)
    if items is None or len(items) != count:
        return None
    found = tuple(number for number in map(real, items) if number is not None)
    return found if len(found) == count else None


def _range(low: float, high: float | None) -> str:
    return f"{low} or more" if high is None else f"{low} to {high}"
