"""The protocol of a GPU, for engines that record their work: buffers, one stream, events, captures.

`CudaGpu` (tensorrt/gpu.py) implements it; so does a stand-in of the tests on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from ..base.errors import EngineError


class Event(Protocol):
    """A CUDA event: a point in the order of the stream's work."""

    def record(self) -> None:
        """Set the point after all work that is on the stream now. Call it only inside `work`."""

    def query(self) -> bool:
        """Whether the work before the point is done, or nothing was recorded."""

    def synchronize(self) -> None:
        """Wait until the work before the point is done."""


class Gpu(Protocol):
    """The device that plans run on. `stream` is the handle that TensorRT gets; it is never the default stream.

    Make buffers inside `work`, because torch reuses memory in the order of the stream that it was allocated on.
    """

    name: str  # torch's name of the device
    stream: int

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A buffer of zeros on the device. Raises `EngineError` if the device has too little memory."""

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A buffer in pinned host memory."""

    def event(self) -> Event:
        """A new event, not recorded yet."""

    def work(self) -> AbstractContextManager[None]:
        """A context in which torch works on `stream` of this device, in order with the work before and after it.

        The host does not wait.
        """

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Record what `enqueue` puts on the stream without running it, and return a function that runs it.

        Call both only inside `work`.
        """

    def wait(self) -> None:
        """Wait until all work on the stream is done. Call it only inside `work`."""

    def free_bytes(self) -> int:
        """The unused memory of the device, in bytes."""

    def facts(self) -> dict[str, str]:
        """What a plan depends on: `gpu`, `compute_capability` and `driver`."""


def out_of_memory(what: str, free: int) -> EngineError:
    """The error for a GPU whose memory is full; `free`: its unused bytes."""
    return EngineError(
        f"{what}: out of GPU memory, {free / 2**30:.1f} GiB are free; lower image_size or max_objects in the recipe, or"
        " close what else uses the GPU"
    )
