"""How many clips a GPU takes at once: measured with a few of them, and fewer once it turns out that it was too many.

A step sees as many clips as its phase says, whatever the card: what does not fit at once goes through the network part
by part, and the gradients add up. So learning rates mean the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

FEW = (2, 4)  # clips that are measured
MARGIN = 0.85  # of the memory: the next batch is made meanwhile, and some clips have more objects than others


class Meter(Protocol):
    """A device's memory, as a training sees it."""

    def room(self) -> int:
        """Bytes that this process can have, those that it has included."""

    def peak(self, work: Callable[[], object]) -> int:
        """The most bytes that were in use at once while `work` was done. `torch.OutOfMemoryError` where it has none."""

    def let_go(self) -> None:
        """Give back what is kept for later."""


class GpuMeter:
    """That of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def room(self) -> int:
        free, _ = torch.cuda.mem_get_info(self._device)
        return int(free) + int(torch.cuda.memory_reserved(self._device))

    def peak(self, work: Callable[[], object]) -> int:
        torch.cuda.reset_peak_memory_stats(self._device)
        work()
        torch.cuda.synchronize(self._device)
        return int(torch.cuda.max_memory_allocated(self._device))

    def let_go(self) -> None:
        torch.cuda.empty_cache()


def most_at_once(most: int, peak_of: Callable[[int], int], room: int, beside: int = 0) -> int:
    """The largest number of clips up to `most` that fits, at least 1, in parts of nearly one size.

    `peak_of` is asked for a few clips alone; memory grows with each clip by the same. `beside`: bytes that are needed,
    and were not there when it was measured.
    """
    first, second = (min(n, most) for n in FEW)
    if first == second:
        return most
    try:
        low = peak_of(first)
    except torch.OutOfMemoryError:
        return 1
    try:
        each = max(1.0, (peak_of(second) - low) / (second - first))
    except torch.OutOfMemoryError:
        return even(most, first)
    fits = first + (MARGIN * room - beside - low) / each
    return even(most, max(1, min(most, int(fits))))


def even(clips: int, at_once: int) -> int:
    """As many parts as with `at_once` clips at once, all of nearly one size."""
    parts = -(-clips // at_once)
    return -(-clips // parts)
