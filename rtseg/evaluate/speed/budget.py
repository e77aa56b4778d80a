"""How much time a benchmark may take: what is spent, what is left, and who is told."""

from __future__ import annotations

from collections.abc import Callable

from ...base.types import now_ns

Tell = Callable[[str, float, float], None]


def nobody(what: str, spent_s: float, total_s: float) -> None:
    """Who wants to hear nothing."""


class Budget:
    """So many seconds from its making; `tell` hears what is done, the seconds spent, and an estimate of all."""

    def __init__(self, seconds: float, tell: Tell = nobody, clock: Callable[[], int] = now_ns) -> None:
        self.seconds, self._tell, self._clock, self._start_ns = seconds, tell, clock, clock()

    @property
    def spent(self) -> float:
        return (self._clock() - self._start_ns) / 1e9

    @property
    def left(self) -> float:
        return self.seconds - self.spent

    def until(self, share: float) -> Deadline:
        """When this share of what is left is used up."""
        return Deadline(self._clock, self._clock() + max(0, int(share * self.left * 1e9)))

    def say(self, what: str, more_s: float | None = None) -> None:
        """What is done now; `more_s` is what is thought to be needed from here (None: all that is left)."""
        spent = self.spent
        total = self.seconds if more_s is None else min(self.seconds, spent + more_s)
        self._tell(what, spent, max(spent, total))


class Deadline:
    """A moment, and how far it is."""

    def __init__(self, clock: Callable[[], int], at_ns: int) -> None:
        self._clock, self._at_ns = clock, at_ns

    @property
    def left_ms(self) -> float:
        return (self._at_ns - self._clock()) / 1e6

    @property
    def over(self) -> bool:
        return self.left_ms <= 0

    def share(self, of: int) -> Deadline:
        """When the next of so many that are yet to come has had its part of the time."""
        now = self._clock()
        return Deadline(self._clock, now + max(0, self._at_ns - now) // max(1, of))
