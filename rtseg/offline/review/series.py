"""An object's presence and confidence over time, in a bounded number of bins that keep every extreme.

The length of a recording is not known before its last frame. So the bins begin narrow, and whenever time goes past the
last one, neighbours are merged in pairs: two hours end with as many bins as ten seconds, and a single frame of low
confidence is still there as its bin's minimum.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

BINS = 1200  # at most; more than a screen has columns for them
NARROWEST_S = 0.001


class TimeBins:
    """Bins of equal width, from `start_s` on; all series of a result share them."""

    def __init__(self, start_s: float, most: int = BINS) -> None:
        self.start_s, self.width_s, self.most = start_s, NARROWEST_S, most
        self.end_s = start_s
        self._series: list[Series] = []

    @property
    def count(self) -> int:
        """How many bins time has reached."""
        return max(1, min(self.most, int((self.end_s - self.start_s) / self.width_s + 0.999999)))

    def place(self, seconds: float) -> float:
        """A time as a share of the whole, 0 to 1."""
        whole = self.count * self.width_s
        return min(max((seconds - self.start_s) / whole, 0.0), 1.0)

    def add_series(self) -> Series:
        """A new series on these bins."""
        self._series.append(Series())
        return self._series[-1]

    def reach(self, first_s: float, last_s: float) -> range:
        """The bins that a stretch of time lies in. Merges bins until it has a place."""
        self.end_s = max(self.end_s, last_s)
        while (self.end_s - self.start_s) / self.width_s > self.most:
            self.width_s *= 2
            for series in self._series:
                series.merge_pairs()
        first = max(0, int((first_s - self.start_s) / self.width_s))
        # A stretch ends where the next begins: the bin that it only touches is not its own.
        last = int((last_s - self.start_s) / self.width_s - 1e-6)
        return range(min(first, self.most - 1), min(max(first, last), self.most - 1) + 1)


@dataclass(slots=True)
class Series:
    """What one object did in each bin.

    `low`, `high`: least and greatest confidence where it is visible; `seen`, `frames`: of how many frames it is
    visible, and of how many it is followed.
    """

    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)

    def add(self, bins: range, confidence: float | None) -> None:
        """Count a frame; `confidence` is None where the object is not visible."""
        while len(self.low) < bins.stop:
            self.low.append(inf)
            self.high.append(-inf)
            self.seen.append(0)
            self.frames.append(0)
        for place in bins:
            self.frames[place] += 1
            if confidence is not None:
                self.seen[place] += 1
                self.low[place] = min(self.low[place], confidence)
                self.high[place] = max(self.high[place], confidence)

    def merge_pairs(self) -> None:
        """Make one bin of each two."""
        self.low = [min(self.low[i : i + 2]) for i in range(0, len(self.low), 2)]
        self.high = [max(self.high[i : i + 2]) for i in range(0, len(self.high), 2)]
        self.seen = [sum(self.seen[i : i + 2]) for i in range(0, len(self.seen), 2)]
        self.frames = [sum(self.frames[i : i + 2]) for i in range(0, len(self.frames), 2)]
