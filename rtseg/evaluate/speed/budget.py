"""The time budget of a benchmark: time spent, time left, and reports of progress."""

from __future__ import annotations

from collections.abc import Callable

from ...base.types import now_ns

Report = Callable[[str, float, float], None]


def no_report(what: str, spent_s: float, total_s: float) -> None:
    """Report nothing."""


class Budget:
    """A number of seconds from now. `report` is called with the present work, the seconds spent, and all estimated."""

    def __init__(self, seconds: float, report: Report = no_report, clock: Callable[[], int] = now_ns) -> None:
        self.seconds, self._report, self._clock, self._start_ns = seconds, report, clock, clock()

    @property
    def spent(self) -> float:
        return (self._clock() - self._start_ns) / 1e9

    @property
    def left(self) -> float:
        return self.seconds - self.spent

    def until(self, share: float) -> Deadline:
        """The deadline at which this share of the remaining time is used up."""
        return Deadline(self._clock, self._clock() + max(0, int(share * self.left * 1e9)))

    def say(self, what: str, more_s: float | None = None) -> None:
        """Report the present work; `more_s` is the expected time from here (None: all that is left)."""
        spent = self.spent
        total = self.seconds if more_s is None else min(self.seconds, spent + more_s)
        self._report(what, spent, max(spent, total))


class Deadline:
    """A moment on the clock, and the time until it."""

    def __init__(self, clock: Callable[[], int], at_ns: int) -> None:
        self._clock, self._at_ns = clock, at_ns

    @property
    def left_ms(self) -> float:
        return (self._at_ns - self._clock()) / 1e6

    @property
    def over(self) -> bool:
        return self.left_ms <= 0

    def share(self, of: int) -> Deadline:
        """The deadline of the next of `of` tasks that share the remaining time."""
        now = self._clock()
        return Deadline(self._clock, now + max(0, self._at_ns - now) // max(1, of))
