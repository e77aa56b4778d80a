"""The GPU of the TensorRT engine: buffers, one stream, events, and captures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ...base.errors import EngineError
from ...base.hardware.gpu import gpu_identity
from ..gpu import Event, out_of_memory
from ..static.graph import capture


class CudaGpu:
    """A CUDA device ("cuda": torch's current one), with a stream of its own."""

    def __init__(self, device: str = "cuda") -> None:
        if not torch.cuda.is_available():
            raise EngineError(
                f'runtime = "tensorrt": torch {torch.__version__} sees no CUDA device; use "cpu", or see: rtseg doctor'
            )
        index = torch.device(device).index
        self._index = torch.cuda.current_device() if index is None else index
        self.name = f"cuda:{self._index}"
        with torch.cuda.device(self._index):
            self._stream = torch.cuda.Stream()
            # All graphs share the memory that they need beside the buffers, because they run one at a time.
            self._pool = torch.cuda.graph_pool_handle()
        self.stream = int(self._stream.cuda_stream)
        self._callers: dict[int, torch.cuda.Stream] = {}  # streams that called `work`; torch has few streams

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        try:
            return torch.zeros(shape, dtype=dtype, device=self.name)
        except torch.OutOfMemoryError as e:
            raise out_of_memory(f"a buffer of {' x '.join(map(str, shape))} {dtype}", self.free_bytes()) from e

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, pin_memory=True)

    def event(self) -> Event:
        return torch.cuda.Event()

    @contextmanager
    def work(self) -> Iterator[None]:
        with torch.cuda.device(self._index):
            outside = torch.cuda.current_stream()
            if outside != self._stream:
                self._callers[int(outside.cuda_stream)] = outside
            # All callers, because another thread may still read memory that it has freed, and that is overwritten here.
            for caller in self._callers.values():
                self._stream.wait_stream(caller)
            try:
                with torch.cuda.stream(self._stream):
                    yield
            finally:
                # Memories are made on this stream and read by the policy on that one, and the allocator has to know.
                outside.wait_stream(self._stream)

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with capture(graph, self._pool, self._stream):
            enqueue()
        replay: Callable[[], None] = graph.replay
        return replay

    def wait(self) -> None:
        self._stream.synchronize()

    def free_bytes(self) -> int:
        torch.cuda.empty_cache()  # memory that torch only caches counts as free
        return int(torch.cuda.mem_get_info(self._index)[0])

    def facts(self) -> dict[str, str]:
        found = gpu_identity(self._index)
        return {"gpu": found["gpu"], "compute_capability": found["capability"], "driver": found["driver"]}
