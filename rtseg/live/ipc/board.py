"""Counts and durations in shared memory. Each is written by one process, and outlives that process.

The supervisor owns the memory: the counts of a worker that was killed are complete, and its successor continues them.
"""

from __future__ import annotations

import mmap
import os

import numpy as np

from ...base.timing import CELLS, Histogram

ROLES = ("grab", "segment", "publish", "record")
DROPS = ("rate", "slot", "ring", "late", "restart", "failed", "off")  # why a frame was not shown
MASK_STATES = ("fresh", "stale", "expired", "none", "recovering")
STAGES = (
    "grab", "handover", "segment", "overlay", "video", "glass-to-mask", "mask age", "glass-to-publish", "jitter",
)  # fmt: skip
_COUNTS = (
    *(f"beat {role}" for role in ROLES),  # heartbeat: `now_ns()` when the worker's loop last ran
    "shown", *(f"dropped {cause}" for cause in DROPS), "segmented", "unanswered", "cuts",
    *(f"masks {state}" for state in MASK_STATES),
    "masks captured_ns", "masks objects",  # of the newest masks
    "recorded", "missed",
    "record next", "record seq",  # one more than the ring index and the seq of the frame recorded last
)  # fmt: skip


class Board:
    """Named counts (int64), and a `Histogram` for each of `STAGES`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        cells = np.frombuffer(mmap.mmap(fd, self._bytes()), np.int64)
        self._counts = dict(zip(_COUNTS, range(len(_COUNTS)), strict=True))
        self._cells = cells[: len(_COUNTS)]
        rows = cells[len(_COUNTS) :].reshape(len(STAGES), CELLS)
        self.stages = {stage: Histogram(row) for stage, row in zip(STAGES, rows, strict=True)}

    @staticmethod
    def _bytes() -> int:
        return 8 * (len(_COUNTS) + len(STAGES) * CELLS)

    @classmethod
    def create(cls) -> Board:
        """A new board, all zero."""
        fd = os.memfd_create("rtseg-board")
        os.ftruncate(fd, cls._bytes())
        return cls(fd)

    def __getitem__(self, name: str) -> int:
        return int(self._cells[self._counts[name]])

    def __setitem__(self, name: str, value: int) -> None:
        self._cells[self._counts[name]] = value

    def add(self, name: str, count: int = 1) -> None:
        """Add to a count; only in the process that writes it."""
        self._cells[self._counts[name]] += count

    def decided(self) -> int:
        """The number of frames that were shown or dropped."""
        return self["shown"] + sum(self.drops().values())

    def drops(self) -> dict[str, int]:
        """Dropped frames, by cause."""
        return {cause: self[f"dropped {cause}"] for cause in DROPS}
