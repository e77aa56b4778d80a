"""The GPU as the TensorRT engine sees it: buffers, one stream, one way to record work and run it again.

All that differs between a GPU and a test on the CPU is behind `Gpu`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ...errors import EngineError

DRIVER = Path("/proc/driver/nvidia/version")


class Gpu(Protocol):
    """Where plans run. `stream` is the handle that TensorRT is given; it is never the default stream."""

    name: str  # what torch calls the device
    stream: int

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A buffer on the device; `EngineError` where there is no room."""

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory of the host that the device copies from and to without help."""

    def work(self) -> AbstractContextManager[None]:
        """Inside, torch works on `stream`, which is idle at first; what was done before or comes after is in order."""

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Record what `enqueue` puts on the stream, without running it; the answer runs it. Only inside `work`."""

    def wait(self) -> None:
        """Until all that is on the stream is done."""

    def free_bytes(self) -> int:
        """Memory of the device that nobody uses."""

    def facts(self) -> dict[str, str]:
        """What a plan depends on: `gpu`, `compute_capability` and `driver`."""


class CudaGpu:
    """The CUDA device that torch calls current, with a stream of its own."""

    name = "cuda"

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise EngineError(
                f'runtime = "tensorrt": torch {torch.__version__} sees no CUDA device; use "cpu", or see: rtseg doctor'
            )
        self._stream = torch.cuda.Stream()
        self.stream = int(self._stream.cuda_stream)

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        try:
            return torch.zeros(shape, dtype=dtype, device=self.name)
        except torch.OutOfMemoryError as e:
            raise out_of_memory(f"a buffer of {' x '.join(map(str, shape))} {dtype}", self.free_bytes()) from e

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, pin_memory=True)

    @contextmanager
    def work(self) -> Iterator[None]:
        outside = torch.cuda.current_stream()
        self._stream.synchronize()  # pinned memory is about to be written again
        self._stream.wait_stream(outside)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            # Memories are made on this stream and read by the policy on that one; what keeps the allocator honest too.
            outside.wait_stream(self._stream)

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # thread_local: what other threads ask of CUDA meanwhile is no error of this capture.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            enqueue()
        replay: Callable[[], None] = graph.replay
        return replay

    def wait(self) -> None:
        self._stream.synchronize()

    def free_bytes(self) -> int:
        return int(torch.cuda.mem_get_info()[0])

    def facts(self) -> dict[str, str]:
        major, minor = torch.cuda.get_device_capability()
        said = DRIVER.read_text("utf-8", "replace") if DRIVER.is_file() else ""
        driver = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", said)
        return {
            "gpu": torch.cuda.get_device_name(),
            "compute_capability": f"{major}.{minor}",
            "driver": driver[0] if driver else "unknown",
        }


def out_of_memory(what: str, free: int) -> EngineError:
    """The error for a GPU that is full."""
    return EngineError(
        f"{what}: out of GPU memory, {free / 2**30:.1f} GiB are free; lower image_size or max_objects in the recipe, or"
        " close what else uses the GPU"
    )
