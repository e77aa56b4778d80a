"""The micro-batch size: how many clips fit into a GPU's memory at once, measured with a few clips.

A step always has as many clips as its phase says. If they do not fit at once, they are split into micro-batches and
their gradients are accumulated, so that learning rates mean the same on every GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

MEASURED = (2, 4)  # clips in the two measurements
MARGIN = 0.85  # usable share of the memory: the next batch is rendered meanwhile, and some batches have more objects


class MemoryMeter(Protocol):
    """A device's memory, as seen by the training process."""

    def available(self) -> int:
        """The bytes that this process can use, including those that it uses already."""

    def peak(self, work: Callable[[], object]) -> int:
        """The peak of the bytes in use during `work()`. Raises `torch.OutOfMemoryError` if the memory is too small."""

    def release(self) -> None:
        """Release memory that is cached for later use."""


class GpuMemoryMeter:
    """The memory of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def available(self) -> int:
        free, _ = torch.cuda.mem_get_info(self._device)
        return int(free) + int(torch.cuda.memory_reserved(self._device))

    def peak(self, work: Callable[[], object]) -> int:
        torch.cuda.reset_peak_memory_stats(self._device)
        work()
        torch.cuda.synchronize(self._device)
        return int(torch.cuda.max_memory_allocated(self._device))

    def release(self) -> None:
        torch.cuda.empty_cache()


def largest_micro_batch(clips: int, peak_of: Callable[[int], int], available: int, reserved: int = 0) -> int:
    """The size of the fewest, nearly equal micro-batches of `clips` clips that fit into memory; at least 1.

    `peak_of(n)` measures the peak with n clips. It is called only with small n; the peak is assumed to be linear in n.
    `available`: bytes of memory. `reserved`: bytes that a step needs but the measurement does not.
    """
    first, second = (min(n, clips) for n in MEASURED)
    if first == second:
        return clips
    try:
        low = peak_of(first)
    except torch.OutOfMemoryError:
        return 1
    try:
        each = max(1.0, (peak_of(second) - low) / (second - first))
    except torch.OutOfMemoryError:
        return even_size(clips, first)
    fits = first + (MARGIN * available - reserved - low) / each
    return even_size(clips, max(1, min(clips, int(fits))))


def even_size(clips: int, most: int) -> int:
    """The size of nearly equal micro-batches: the fewest with at most `most` clips each."""
    parts = -(-clips // most)
    return -(-clips // parts)
