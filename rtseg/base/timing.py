"""Times per stage: percentiles in memory that does not grow with the length of a feed.

`Stages` has one histogram per stage. Each of its bins is 1% wider than the one before, so percentiles are right to 1%
after a second as after eight hours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from .types import now_ns

_STEP = math.log(1.01)
_BINS = 2300  # 1 microsecond * 1.01 ** 2300 is two hours; longer durations count as two hours
CELLS = _BINS + 2  # of a histogram: its bins, the longest duration and the sum of all, in ns


class Histogram:
    """A histogram of durations in milliseconds.

    `cells`, int64 [CELLS], is its memory, and may be shared between processes; None allocates it.
    """

    def __init__(self, cells: npt.NDArray[np.int64] | None = None) -> None:
        self._cells = np.zeros(CELLS, np.int64) if cells is None else cells
        self.counts = self._cells[:_BINS]

    @property
    def longest(self) -> float:
        """The longest duration in ms."""
        return float(self._cells[_BINS]) / 1e6

    @property
    def total(self) -> float:
        """The sum of all durations in ms."""
        return float(self._cells[_BINS + 1]) / 1e6

    def add(self, ms: float) -> None:
        bin_ = int(math.log(max(ms, 1e-3) / 1e-3) / _STEP)
        self.counts[min(bin_, _BINS - 1)] += 1
        self._cells[_BINS] = max(self._cells[_BINS], round(ms * 1e6))
        self._cells[_BINS + 1] += round(ms * 1e6)

    def percentile(self, percent: float) -> float:
        """The duration in ms that `percent` of all durations do not exceed, to 1%; 0 without durations."""
        total = int(self.counts.sum())
        if not total:
            return 0.0
        bin_ = int(np.searchsorted(np.cumsum(self.counts), math.ceil(total * percent / 100)))
        return min(1e-3 * math.exp((bin_ + 0.5) * _STEP), self.longest)

    def summary(self) -> dict[str, float]:
        values = {f"p{percent}": round(self.percentile(percent), 3) for percent in (50, 95, 99)}
        return {**values, "max": round(self.longest, 3), "count": int(self.counts.sum())}


class Stages:
    """A histogram per stage; a stage that was not given to the constructor is added when it is first timed.

    Threads may share one `Stages` if the constructor got all stages and each stage is timed by one thread only.
    """

    def __init__(self, *stages: str) -> None:
        self.histograms: dict[str, Histogram] = {stage: Histogram() for stage in stages}

    def add(self, stage: str, ms: float) -> None:
        if stage not in self.histograms:
            self.histograms[stage] = Histogram()
        self.histograms[stage].add(ms)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Time the body of a `with` by the monotonic clock; a body that raises is not counted."""
        start = now_ns()
        yield
        self.add(stage, (now_ns() - start) / 1e6)

    def cells(self, *stages: str) -> dict[str, npt.NDArray[np.int64]]:
        """A copy of the memory of these histograms, for `add_cells`."""
        return {stage: self.histograms[stage]._cells.copy() for stage in stages}

    def add_cells(self, cells: Mapping[str, npt.NDArray[np.int64]]) -> None:
        """Add what was timed before, by another `Stages`."""
        for stage, before in cells.items():
            mine = self.histograms.setdefault(stage, Histogram())._cells
            longest = max(mine[_BINS], before[_BINS])
            mine += before
            mine[_BINS] = longest

    def summary(self) -> dict[str, dict[str, float]]:
        """For each stage p50, p95, p99 and max in milliseconds, and the count."""
        return {stage: h.summary() for stage, h in self.histograms.items() if h.counts.any()}
