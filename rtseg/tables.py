"""Reading what people write: one table of a TOML or JSON file, where each mistake costs one clear line.

A `Table` is asked for its keys by type. Whatever is wrong names the place, the key, the value found and what
was expected; a key that nobody knows names the nearest one that is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeGuard, TypeVar

from .errors import RtsegError, did_you_mean

Number = TypeVar("Number", int, float)


class Table:
    """One table, read key by key.

    `where` opens every message (a file, and what part of it); `known` are the keys it may hold; `error` is the
    class that is raised.
    """

    def __init__(self, values: object, where: str, known: Iterable[str], error: type[RtsegError]) -> None:
        self.where, self.error = where, error
        if not isinstance(values, dict):
            raise error(f"{where}: found {_short(values)}; expected a table of: {', '.join(known)}")
        self.values: dict[str, Any] = values
        known = list(known)
        for key in values:
            if key not in known:
                raise error(f"{where}: unknown key {key!r}; {did_you_mean(str(key), known)}")

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def bad(self, key: str, expected: str) -> RtsegError:
        """The error for a key whose value is not what was expected."""
        if key not in self.values:
            return self.error(f"{self.where}: {key!r} is missing; expected {expected}")
        return self.error(f"{self.where}: {key} = {_short(self.values[key])}; expected {expected}")

    def text(self, key: str, default: str | None = None) -> str:
        """A non-empty string; without a default the key must be there."""
        value = self.values.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.bad(key, "a text")
        return value

    def choice(self, key: str, default: str, choices: Iterable[str]) -> str:
        """One of a few names."""
        value, choices = self.values.get(key, default), list(choices)
        if value not in choices:
            raise self.bad(key, "one of: " + ", ".join(choices))
        return str(value)

    def integer(self, key: str, default: int | None, low: int, high: int | None = None) -> int:
        """A whole number in low..high."""
        value = self.values.get(key, default)
        if type(value) is not int or value < low or (high is not None and value > high):
            raise self.bad(key, f"a whole number, {_range(low, high)}")
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """A number in low..high."""
        value = self.values.get(key, default)
        if type(value) not in (int, float) or not low <= value <= high:
            raise self.bad(key, f"a number, {_range(low, high)}")
        return float(value)

    def numbers(self, key: str, count: int, expected: str) -> tuple[float, ...]:
        """A list of `count` numbers."""
        value = self.values.get(key)
        if not _is_numbers(value, count):
            raise self.bad(key, expected)
        return tuple(float(number) for number in value)

    def rows(self, key: str, count: int, expected: str) -> tuple[tuple[float, ...], ...]:
        """A list of one or more lists of `count` numbers."""
        value = self.values.get(key)
        if not isinstance(value, list) or not value or not all(_is_numbers(row, count) for row in value):
            raise self.bad(key, expected)
        return tuple(tuple(map(float, row)) for row in value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of non-empty strings; none where the key is missing."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
            raise self.bad(key, "a list of texts")
        return tuple(value)

    def names(self, key: str, default: Iterable[str], choices: Iterable[str]) -> tuple[str, ...]:
        """A list of different names, each one of a few; may be empty."""
        value, choices = self.values.get(key, list(default)), list(choices)
        if not isinstance(value, list) or any(name not in choices for name in value) or len(set(value)) < len(value):
            raise self.bad(key, "a list of: " + ", ".join(choices))
        return tuple(value)


def _is_numbers(value: object, count: int) -> TypeGuard[list[float]]:
    if not isinstance(value, list) or len(value) != count:
        return False
    return all(type(number) in (int, float) and math.isfinite(number) for number in value)


def _range(low: Number, high: Number | None) -> str:
    return f"{low} or more" if high is None else f"{low} to {high}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
