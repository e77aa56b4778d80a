"""A GPU that is not there: torch works on fake CUDA tensors, and the order of its work is held against CUDA's rules.

    with pretend_cuda() as gpu:
        engine = CudaEngine(...)        # tensors on cuda:N have shapes, types, devices and addresses, and no numbers
        gpu.waits.clear()
        engine.track(...)
        assert len(gpu.waits) <= 1

Tensors of the host are real. A `RuleError` is raised, in one line, where

- something is read or written that another stream wrote, or written that another stream reads, with no wait between;
- memory is given away again while another stream than its own may still use it;
- the host touches pinned memory while a copy may be under way (NumPy's view of it is watched too: pretend/host.py);
- a capture meets what cannot be captured: a wait, a query, a host read, a copy of pageable memory, work or a wait on a
  stream outside of it, pinned memory; or a stream that was forked into it is not joined;
- any thread waits for a whole device, empties torch's cache or begins a capture, while another one captures;
- a graph is destroyed while its thread captures another, or captured into a pool that torch is about to give up;
- a graph is captured outside inference mode, after the process's first was inside;
- a graph with matrix products is replayed after another from the same stream was destroyed;
- an event of one device is recorded on another;
- a graph is replayed that uses what was freed; what a graph left is read before it ran, or after another of its pool.

What the host reads from a device is zero; `.item()` of a bool is True and `torch.equal` False, as on a healthy engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from rtseg.engine import arrays

from .pretend.guard import guarded
from .pretend.mode import Mode
from .pretend.order import Order, RuleError, Span, Use, Wait
from .pretend.runtime import Runtime
from .pretend.transfers import Answer

__all__ = ["Pretended", "RuleError", "Wait", "pretend_cuda"]


class Pretended:
    """What a test may ask of the GPU, and tell it."""

    def __init__(self, mode: Mode, order: Order, runtime: Runtime) -> None:
        self._mode, self._order, self._runtime = mode, order, runtime

    @property
    def waits(self) -> list[Wait]:
        """Each time that the host waited, what for and where."""
        return self._order.waits

    @property
    def launches(self) -> int:
        """Kernels and copies that were put on streams, but for those inside captures and replays."""
        return self._mode.launches

    @property
    def replays(self) -> int:
        return self._runtime.replays

    @property
    def empty_graphs(self) -> int:
        """Captures that took in nothing."""
        return self._runtime.empty_graphs

    @property
    def allocated(self) -> dict[int, Use]:
        """Bytes on each device, by storages: `live` and `peak`."""
        return self._mode.use

    @property
    def pinned_allocations(self) -> int:
        return self._mode.pinned_allocations

    @property
    def answers(self) -> Answer | None:
        """Given (operation, tensor), what the host finds there; None leaves it to the stand-in."""
        return self._mode.transfers.answers

    @answers.setter
    def answers(self, answers: Answer | None) -> None:
        self._mode.transfers.answers = answers

    @property
    def slow(self) -> bool:
        """Whether work that nobody waited for is not over yet, where code asks an event or a stream."""
        return self._order.slow

    @slow.setter
    def slow(self, slow: bool) -> None:
        self._order.slow = slow

    def here(self) -> AbstractContextManager[None]:
        """For other threads than the one that entered: inside, they see the GPU too."""
        return self._mode.here()

    def stream(self, device: int = 0, blocking: bool = False) -> Any:
        """A stream that another library made; `blocking`: it is in order with the default stream."""
        return self._runtime.stream(device, blocking)

    def enqueue(self, handle: int, reads: list[int], writes: list[int], name: str) -> None:
        """Work put on a stream (0: the default one) by someone who knows memory by addresses alone."""
        queue = self._runtime.by_handle[handle] if handle else self._order.defaults[self._mode.device]
        spans = [[self._whole(a) for a in addresses] for addresses in (reads, writes)]
        self._order.put(queue, name, *spans)
        self._mode.launches += queue.capture is None

    def _whole(self, address: int) -> Span:
        """From the address to the end of its memory."""
        for memory in self._mode.memories.values():
            if memory.address <= address < memory.address + max(memory.bytes, 1):
                return Span(memory, address - memory.address, memory.bytes, memory.what)
        raise RuleError(f"address {address:#x} is of no memory that is alive")


@contextmanager
def pretend_cuda(
    devices: int = 2, capability: tuple[int, int] = (9, 0), memory_bytes: int = 140 * 2**30
) -> Iterator[Pretended]:
    """Inside, torch has so many GPUs, of this compute capability, with so much memory each."""
    order = Order(devices)
    mode = Mode(order, memory_bytes)
    runtime = Runtime(mode, order, capability)
    # What a process keeps for its life is of the GPU that it has.
    kept_nothing = patch.object(arrays, "_DOWNLOADS", arrays._Downloads())
    with guarded(lambda: mode.device), runtime.patched(), mode.here(), kept_nothing:
        yield Pretended(mode, order, runtime)
