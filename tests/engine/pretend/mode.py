"""Every operation of torch, as it meets the rules: which memory it reads and writes, on which stream, who waits."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode

from .order import Memory, Order, Queue, Span, Use, broken
from .shapes import Shapes, named, tensors_in
from .transfers import ANSWERS, COPIES, Transfers

ATEN = torch.ops.aten
DEVICE = torch.ops.prim.device.default
PIN = {ATEN._pin_memory.default, ATEN.pin_memory.default}
ALIGNED = 512


class Underneath(FakeTensorMode):
    """Fake tensors as on a machine whose torch was built without CUDA, whatever `torch.cuda` says meanwhile."""

    @property
    def avoid_device_init(self) -> bool:
        return True


@cache
def written(func: Any) -> tuple[frozenset[int], frozenset[str]]:
    """Which arguments an operation writes to, by place and by name."""
    places, names = set(), set()
    for i, a in enumerate(func._schema.arguments):
        if a.alias_info is not None and a.alias_info.is_write:
            names.add(a.name)
            if not a.kwarg_only:
                places.add(i)
    return frozenset(places), frozenset(names)


@cache
def composite(func: Any) -> bool:
    """Whether an operation is only a way to call others."""
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key))


def extent(t: Tensor) -> tuple[int, int]:
    """The bytes of its storage that a tensor may touch."""
    size = t.element_size()
    low = int(t.storage_offset()) * size
    if not t.numel():
        return low, low
    return low, low + (sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) + 1) * size


class Mode(TorchDispatchMode):
    """Tensors on cuda:N are fake, those of the host are real; what is done with either is put in order."""

    def __init__(self, order: Order, memory_bytes: int) -> None:
        super().__init__()
        self.order, self.fake, self.memory_bytes = order, Underneath(allow_non_fake_inputs=True), memory_bytes
        self.shapes, self.transfers = Shapes(self.fake), Transfers(self)
        self.memories: dict[int, Memory] = {}  # by the storage's address in C++
        self.local = threading.local()
        self.use = {i: Use() for i in range(len(order.defaults))}
        self.pinned_allocations = self.launches = self.pinned = 0
        self._address = 2**32

    # ---------------------------------------------------------------- where work goes
    @property
    def device(self) -> int:
        return int(getattr(self.local, "device", 0))

    @device.setter
    def device(self, index: int) -> None:
        self.local.device = index

    def streams(self) -> dict[int, Queue]:
        """This thread's current stream on each device."""
        if not hasattr(self.local, "streams"):
            self.local.streams = dict(enumerate(self.order.defaults))
        streams: dict[int, Queue] = self.local.streams
        return streams

    def queue(self, device: int | None = None) -> Queue:
        return self.streams()[self.device if device is None else device]

    # ---------------------------------------------------------------- what memory is
    def on_device(self, t: Tensor) -> bool:
        return isinstance(t, FakeTensor) and t.fake_device.type == "cuda"

    def index(self, t: Tensor) -> int:
        return int(t.fake_device.index or 0) if isinstance(t, FakeTensor) else 0

    def memory(self, t: Tensor) -> Memory | None:
        """The memory of a tensor on a device or pinned; None of any other on the host."""
        known = self.memories.get(t.untyped_storage()._cdata)
        if known is None and self.on_device(t):
            return self.allocate(t, self.queue(self.index(t)))
        return known

    def span(self, t: Tensor) -> Span | None:
        memory = self.memory(t)
        return None if memory is None else Span(memory, *extent(t), named(t))

    def allocate(self, t: Tensor, queue: Queue, pinned: bool = False) -> Memory:
        """Take note of a new storage, until it is gone."""
        storage = t.untyped_storage()
        key, size = storage._cdata, -(-int(storage.nbytes()) // ALIGNED) * ALIGNED
        address = t.untyped_storage().data_ptr() if not isinstance(t, FakeTensor) else self._address
        memory = Memory(named(t), size, queue, address, pinned)
        self._address += max(size, ALIGNED)
        if pinned:
            if (capture := self.order.capture()) is not None:
                raise broken(f"pinned memory for {named(t)} inside a capture on {capture.origin}")
            self.pinned_allocations += 1
            self.pinned += size
        else:
            self.order.allocate(queue, memory)
            self._take(queue.device, memory)
        self.memories[key] = memory
        weakref.finalize(storage, self._gone, key, memory).atexit = False
        return memory

    def _gone(self, key: int, memory: Memory) -> None:
        if self.memories.get(key) is memory:
            del self.memories[key]
        if memory.pinned:
            self.pinned -= memory.bytes
        elif memory.graph is not None:
            memory.graph.pool.use.live -= memory.bytes  # and the pool keeps it
        else:
            self.use[memory.queue.device].live -= memory.bytes
        self.order.free(memory)

    def _take(self, device: int, memory: Memory) -> None:
        """Room on the device: of its own, or in a graph's pool, which grows where it has none."""
        use, more = self.use[device], memory.bytes
        if memory.graph is not None:
            pool = memory.graph.pool.use
            before = pool.peak
            pool.add(more)
            more = pool.peak - before
            if not before:
                weakref.finalize(memory.graph.pool, self._given_back, use, pool).atexit = False
        if use.live + more > self.memory_bytes:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {more} bytes, pretended ones.")
        use.add(more)

    def _given_back(self, use: Use, pool: Use) -> None:
        use.live -= pool.peak

    # ---------------------------------------------------------------- operations
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is DEVICE:
            return args[0].fake_device if isinstance(args[0], FakeTensor) else args[0].device
        given = [*tensors_in(args), *tensors_in(tuple(kwargs.values()))]
        there = any(self.on_device(t) for t in given)
        places = (a for a in (*args, *kwargs.values()) if isinstance(a, torch.device))
        if composite(func) and (there or any(place.type == "cuda" for place in places)):
            with self:  # in inference mode torch hands over what it takes apart elsewhere
                return func.decompose(*args, **kwargs)
        target = kwargs.get("device")
        to_device = target is not None and torch.device(target).type == "cuda"
        if to_device:
            kwargs["device"] = self.indexed(torch.device(target))
        if "generator" in kwargs:  # some operations insist on being told that there is none
            kwargs["generator"] = None
        if not to_device and not there:
            return self.on_host(func, args, kwargs, given)
        if func in COPIES:
            return self.transfers.copy(func, args, kwargs)
        if func in ANSWERS:
            return self.transfers.answer(func, given)
        return self.launch(func, args, kwargs, given)

    def indexed(self, device: torch.device) -> torch.device:
        device = torch.device("cuda", self.device) if device.index is None else device
        if device.index not in self.use:
            raise RuntimeError(f"CUDA error: invalid device ordinal ({device})")
        return device

    def on_host(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        """The operation itself, on real tensors."""
        pin = bool(kwargs.pop("pin_memory", False)) if func is not ATEN.is_pinned.default else False
        if self.pinned:
            writes = self.writes(func, args, kwargs)
            for t in given:
                span = self.span(t)
                if span is not None and not func.is_view and func is not ATEN.is_pinned.default:
                    self.order.touch(span, any(t is w for w in writes), str(func).removeprefix("aten."))
        if func is ATEN.is_pinned.default:
            return self.memory(args[0]) is not None
        with unset_fake_temporarily():
            if func in PIN:
                result, pin = args[0].clone(), True
            else:
                result = func(*args, **kwargs)
        if pin:
            self.allocate(result, self.queue(), pinned=True)
        return result

    def writes(self, func: Any, args: Any, kwargs: Any) -> list[Tensor]:
        places, names = written(func)
        found = [args[i] for i in places if i < len(args)] + [kwargs[n] for n in names if n in kwargs]
        return list(tensors_in(found))

    def launch(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        """A kernel, a view, or a buffer that is not filled yet."""
        for t in given:
            if not self.on_device(t) and t.ndim and func in (ATEN.index.Tensor, ATEN.index_put_.default):
                self.transfers.blocked(f"{func}: indices on the host are copied to the device", self.queue())
        known = self.shapes.made(func, args, kwargs)
        if known is not None:
            self.note(func, given, self.writes(func, args, kwargs), list(tensors_in(known)))
            return known
        try:
            result = func(*args, **kwargs)
        except DynamicOutputShapeException:
            return self.transfers.by_values(func, args, kwargs, given)
        self.shapes.keep(func, args, kwargs, result)
        self.note(func, given, self.writes(func, args, kwargs), list(tensors_in(result)))
        return result

    def note(self, func: Any, given: Sequence[Tensor], writes: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        """Put an operation that was done into the order of its stream."""
        known = {t.untyped_storage()._cdata for t in given}
        fresh = [t for t in made if self.on_device(t) and t.untyped_storage()._cdata not in known]
        if not fresh and not writes:
            return  # a view, or a question about a shape
        index = next(self.index(t) for t in (*given, *made) if self.on_device(t))
        queue = self.queue(index)
        for t in fresh:
            self.memory(t)
        if func.name().startswith(("aten::empty", "aten::new_empty")):
            return
        reads = [t for t in given if not any(t is w for w in writes)]
        self.put(queue, str(func), reads, [*writes, *fresh])

    def put(self, queue: Queue, name: str, reads: Sequence[Tensor], writes: Sequence[Tensor]) -> None:
        spans = [[s for t in ts if (s := self.span(t)) is not None] for ts in (reads, writes)]
        self.order.put(queue, name.removeprefix("aten."), *spans)
        self.launches += queue.capture is None

    # ---------------------------------------------------------------- coming and going
    @contextmanager
    def here(self) -> Iterator[None]:
        """Pretend in this thread; a mode of torch is its thread's own."""
        with self.fake, self:
            yield
