"""Counts of a process that begin again at 0 with each of its lives, added up: what is told of them never falls."""

from __future__ import annotations

from typing import Any


class Tally:
    """`total` is over all lives; of nested maps too. What is no number is as it was last said."""

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}
        self.total: dict[str, Any] = {}

    def heard(self, counts: dict[str, Any]) -> dict[str, Any]:
        """The counts of this life so far; returns the total."""
        self.total = _sum(self._before, counts)
        return self.total

    def died(self) -> None:
        """The next that are heard begin at 0."""
        self._before = self.total


def _sum(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    found = {**before, **now}
    for name in before.keys() & now.keys():
        one, two = before[name], now[name]
        if isinstance(one, dict) and isinstance(two, dict):
            found[name] = _sum(one, two)
        elif isinstance(one, int) and isinstance(two, int):
            found[name] = one + two
    return found
