"""Counts and durations in shared memory: each has one writing process, and outlives it.

The supervisor owns the memory; so a process that was killed has counted all that it did, and the next goes on counting.
"""

from __future__ import annotations

import mmap
import os

import numpy as np

from ..base.timing import CELLS, Histogram

ROLES = ("grab", "segment", "publish", "record")
DROPS = ("rate", "slot", "ring", "late", "restart", "failed", "off")  # why a frame was not shown
MASK_STATES = ("fresh", "stale", "expired", "none", "recovering")
STAGES = (
    "grab", "handover", "segment", "overlay", "video", "glass-to-mask", "mask age", "glass-to-publish", "jitter",
)  # fmt: skip
_COUNTS = (
    *(f"beat {role}" for role in ROLES),  # when the process last went round its loop, in ns of the one clock
    "shown", *(f"dropped {cause}" for cause in DROPS), "segmented", "unanswered", "cuts",
    *(f"masks {state}" for state in MASK_STATES),
    "masks captured_ns", "masks objects",  # of the newest masks
    "recorded", "missed", "record next", "record seq",  # the last two: one more than of the last that was
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
        """Count; only in the process that this count belongs to."""
        self._cells[self._counts[name]] += count

    def decided(self) -> int:
        """Frames whose fate is known: shown, or dropped by cause."""
        return self["shown"] + sum(self.drops().values())

    def drops(self) -> dict[str, int]:
        return {cause: self[f"dropped {cause}"] for cause in DROPS}
