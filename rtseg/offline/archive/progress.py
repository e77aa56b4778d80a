"""Progress and the time that is left over a whole archive.

Videos are weighed by their bytes, which are known before any of them is opened; one without a size weighs the mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .jobs import State
from .manifest import Row
from .scheduler import Video


class Progress:
    """How much of an archive is done. `began` is when its first video was handed out, in seconds."""

    def __init__(self, rows: Sequence[Row], began: float) -> None:
        sizes = [row.bytes for row in rows if row.bytes]
        mean = sum(sizes) / len(sizes) if sizes else 1.0
        self._weights = {row.line: float(row.bytes or mean) for row in rows}
        self._began = began
        self._final = 0.0  # weight of what needs no more work
        self._worked = 0.0  # the part of it that this run did
        self._frames = 0
        self.counts = {"done": 0, "skipped": 0, "failed": 0}

    def end(self, video: Video) -> None:
        """Note a video that has its outcome."""
        assert video.outcome is not None
        weight = self._weights[video.row.line]
        self._final += weight
        self.counts[video.outcome.state] += 1
        if video.outcome.state == "done":
            self._worked += weight
            self._frames += video.outcome.frames

    def share(self, states: Mapping[int, State]) -> float:
        """The part that is done, 0 to 1, with that of the videos at work."""
        return min(1.0, (self._final + self._at_work(states)) / sum(self._weights.values()))

    def left_s(self, states: Mapping[int, State], now: float) -> float | None:
        """About how many seconds are left, at the rate since the beginning; None while there is nothing to go by."""
        at_work = self._at_work(states)
        worked = self._worked + at_work
        if worked <= 0 or now <= self._began:
            return None
        return (sum(self._weights.values()) - self._final - at_work) * (now - self._began) / worked

    def line(self, states: Mapping[int, State], working: int, now: float) -> str:
        """One line for the user."""
        ended, seconds = sum(self.counts.values()), max(1e-9, now - self._began)
        frames = self._frames + sum(done for _, done, _ in states.values())
        failed = f", {self.counts['failed']} failed" if self.counts["failed"] else ""
        left = self.left_s(states, now)
        return (
            f"{ended} of {len(self._weights)} videos ({100 * self.share(states):.1f}%){failed}; {working} at work, "
            f"{frames / seconds:.0f} frames/s; {'' if left is None else f'about {spoken(left)} left'}"
        ).rstrip("; ")

    def _at_work(self, states: Mapping[int, State]) -> float:
        parts = ((self._weights[line], done, total) for line, (_, done, total) in states.items() if total)
        return sum(weight * min(1.0, done / total) for weight, done, total in parts)


def spoken(seconds: float) -> str:
    """A duration for people: "45 s", "12 min", "3 h 05 min", "4 d 7 h"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
