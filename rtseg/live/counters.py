"""Counters of a worker, summed over all of its processes. They begin at 0 in each process; a total never falls."""

from __future__ import annotations

from typing import Any


class CumulativeCounters:
    """`total`: the sums over all processes, also in nested maps; of values that are not integers, the latest."""

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}
        self.total: dict[str, Any] = {}

    def update(self, counts: dict[str, Any]) -> dict[str, Any]:
        """Note the counts of the present process so far; returns the total."""
        self.total = _sum(self._before, counts)
        return self.total

    def restart(self) -> None:
        """The process has ended: the next counts begin at 0."""
        self._before = self.total


def _sum(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    total = {**before, **now}
    for name in before.keys() & now.keys():
        one, two = before[name], now[name]
        if isinstance(one, dict) and isinstance(two, dict):
            total[name] = _sum(one, two)
        elif isinstance(one, int) and isinstance(two, int):
            total[name] = one + two
    return total
