"""The GPU of the TensorRT engine, on the CPU: everything is done at once, and in order.

It holds the engine to where things may be done (buffers are made, and work is put, inside `work`; nothing waits inside
a capture), and counts. The rules of streams are held by pretend_cuda.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

STREAM = 7


class FakeEvent:
    """Everything is done at once on a CPU, so there is nothing to wait for."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu, self.records = gpu, 0

    def record(self) -> None:
        assert self.gpu.working and self.gpu.recording is None
        self.records += 1

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        raise AssertionError("what is over is not waited for")


class FakeGpu:
    """The seam `rtseg.engine.gpu.Gpu` on the CPU."""

    name, stream = "cpu", STREAM
    current: FakeGpu | None = None
    records_nothing = False  # as a CUDA graph that was captured on another stream than the work was put on

    def __init__(self, device: str = "cpu") -> None:
        FakeGpu.current = self
        self.asked_for = device
        self.recording: list[dict[str, int]] | None = None  # addresses of each plan that is recorded
        self.replaying: Iterator[dict[str, int]] | None = None
        self.depth = self.replays = self.captures = self.waits = 0

    @property
    def working(self) -> bool:
        return self.depth > 0

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        assert self.working, "torch hands memory on in the order of the stream that it was made on"
        return torch.zeros(shape, dtype=dtype)

    pinned = zeros

    def event(self) -> FakeEvent:
        return FakeEvent(self)

    @contextmanager
    def work(self) -> Iterator[None]:
        assert self.recording is None
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """What is replayed is the work of torch again, and the plans at the addresses that they had."""
        assert self.working and self.recording is None
        self.recording = recording = []
        enqueue()
        self.recording, self.captures = None, self.captures + 1

        def replay() -> None:
            assert self.working and self.recording is None
            self.replays += 1
            if self.records_nothing:
                return
            self.replaying = iter(recording)
            enqueue()
            assert next(self.replaying, None) is None
            self.replaying = None

        return replay

    def wait(self) -> None:
        assert self.working and self.recording is None
        self.waits += 1

    def free_bytes(self) -> int:
        return 2**30

    def facts(self) -> dict[str, str]:
        return {"gpu": "a pretended GPU", "compute_capability": "9.0", "driver": "1.0"}
