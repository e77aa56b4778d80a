"""What an engine that records its work needs of a GPU: buffers, one stream, events, captures.

`CudaGpu` (tensorrt/gpu.py) is one; the tests have one on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from ..base.errors import EngineError


class Event(Protocol):
    """A place in the order of the stream's work."""

    def record(self) -> None:
        """The place is behind all that is on the stream now; only inside `work`."""

    def query(self) -> bool:
        """Whether the work before the place is done, or nothing was recorded."""

    def synchronize(self) -> None:
        """Wait until the work before the place is done."""


class Gpu(Protocol):
    """Where plans run. `stream` is the handle that TensorRT is given; it is never the default stream.

    Buffers are made inside `work`: torch hands memory on in the order of the stream that it was made on.
    """

    name: str  # what torch calls the device
    stream: int

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A buffer of zeros on the device; `EngineError` if its memory is full."""

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Pinned host memory."""

    def event(self) -> Event:
        """An event that was not recorded yet."""

    def work(self) -> AbstractContextManager[None]:
        """Inside, torch works on `stream` of this device; what was done before or comes after is in order.

        The host does not wait.
        """

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Record what `enqueue` puts on the stream, without running it; the answer runs it. Only inside `work`."""

    def wait(self) -> None:
        """The host waits until all that is on the stream is done; only inside `work`."""

    def free_bytes(self) -> int:
        """Unused memory of the device."""

    def facts(self) -> dict[str, str]:
        """What a plan depends on: `gpu`, `compute_capability` and `driver`."""


def out_of_memory(what: str, free: int) -> EngineError:
    """The error for a GPU that is full."""
    return EngineError(
        f"{what}: out of GPU memory, {free / 2**30:.1f} GiB are free; lower image_size or max_objects in the recipe, or"
        " close what else uses the GPU"
    )
