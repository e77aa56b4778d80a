"""Every operation of torch, as it meets the rules: which memory it reads and writes, on which stream, who waits."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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

from .order import Memory, Order, Queue, Span, broken

ATEN = torch.ops.aten
DEVICE = torch.ops.prim.device.default
COPIES = {ATEN._to_copy.default, ATEN.copy_.default, ATEN._foreach_copy_.default}
ANSWERS = {ATEN._local_scalar_dense.default, ATEN.equal.default}  # in the host's memory, whatever they ask about
PIN = {ATEN._pin_memory.default, ATEN.pin_memory.default}
ALIGNED = 512
Answer = Callable[[str, Tensor], Any]


class Underneath(FakeTensorMode):
    """Fake tensors as on a machine whose torch was built without CUDA, whatever `torch.cuda` says meanwhile."""

    @property
    def avoid_device_init(self) -> bool:
        return True


@dataclass(slots=True)
class Use:
    """Bytes of a device, or of pinned memory: now, and at most."""

    live: int = 0
    peak: int = 0

    def add(self, count: int) -> None:
        self.live += count
        self.peak = max(self.peak, self.live)


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


def tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from tensors_in(each)


def extent(t: Tensor) -> tuple[int, int]:
    """The bytes of its storage that a tensor may touch."""
    size = t.element_size()
    low = int(t.storage_offset()) * size
    if not t.numel():
        return low, low
    return low, low + (sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) + 1) * size


def named(t: Tensor) -> str:
    return f"{list(t.shape)} {str(t.dtype)[6:]}"


class Mode(TorchDispatchMode):
    """Tensors on cuda:N are fake, those of the host are real; what is done with either is put in order.

    `answers(operation, tensor)` says what the host finds where it reads from the device (None: see `answer`).
    """

    def __init__(self, order: Order, memory_bytes: int) -> None:
        super().__init__()
        self.order, self.fake, self.memory_bytes = order, Underneath(allow_non_fake_inputs=True), memory_bytes
        self.memories: dict[int, Memory] = {}  # by the storage's address in C++
        self.local = threading.local()
        self.use = {i: Use() for i in range(len(order.defaults))}
        self.pinned_allocations = self.launches = self.pinned = 0
        self.answers: Answer | None = None
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
        key, size = storage._cdata, int(storage.nbytes())
        address = t.untyped_storage().data_ptr() if not isinstance(t, FakeTensor) else self._address
        memory = Memory(named(t), size, queue, address, pinned)
        self._address += -(-max(size, 1) // ALIGNED) * ALIGNED
        if pinned:
            if (capture := self.order.capture()) is not None:
                raise broken(f"pinned memory for {named(t)} inside a capture on {capture.origin}")
            self.pinned_allocations += 1
            self.pinned += size
        else:
            use = self.use[queue.device]
            if use.live + size > self.memory_bytes:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes, pretended ones.")
            self.order.allocate(queue, memory)
            use.add(size)
        self.memories[key] = memory
        weakref.finalize(storage, self._gone, key, memory).atexit = False
        return memory

    def _gone(self, key: int, memory: Memory) -> None:
        if self.memories.get(key) is memory:
            del self.memories[key]
        if memory.pinned:
            self.pinned -= memory.bytes
        else:
            self.use[memory.queue.device].live -= memory.bytes
        self.order.free(memory)

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
            return self.copy(func, args, kwargs)
        if func in ANSWERS:
            return self.answer(func, given)
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
                    self.order.touch(span, any(t is w for w in writes), str(func))
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
                self.blocked(f"{func}: indices on the host are copied to the device", self.queue())
        try:
            result = func(*args, **kwargs)
        except DynamicOutputShapeException:
            return self.by_values(func, args, kwargs, given)
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

    # ---------------------------------------------------------------- the host
    def blocked(self, what: str, queue: Queue) -> None:
        """The host waits for a stream."""
        self.order.wait(what, queue.clock | {queue.handle: queue.time}, queue)

    def answer(self, func: Any, given: Sequence[Tensor]) -> Any:
        """What `.item()`, `bool()` and `torch.equal` say: zero, True and False, unless the test says otherwise."""
        name, first = func.name().removeprefix("aten::"), given[0]
        queue = self.queue(self.index(first))
        self.put(queue, name, given, [])
        self.blocked(f"{name} of {named(first)}", queue)
        said = self.answers(name, first) if self.answers else None
        if said is not None:
            return said
        if func is ATEN.equal.default:
            return False
        return True if first.dtype == torch.bool else 0.0 if first.dtype.is_floating_point else 0

    def values(self, name: str, t: Tensor) -> Tensor:
        """What the host finds in a tensor that is copied to it."""
        said = self.answers(name, t) if self.answers else None
        with unset_fake_temporarily():
            if said is None:
                return torch.zeros(t.shape, dtype=t.dtype)
            return torch.as_tensor(said, dtype=t.dtype).expand(t.shape).clone()

    def by_values(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        """The shape of the answer depends on values, for which torch waits."""
        queue = self.queue(next(self.index(t) for t in given if self.on_device(t)))
        self.put(queue, str(func), given, [])
        self.blocked(f"{func}: the shape of its answer depends on values", queue)

        def real(value: Any) -> Any:
            if isinstance(value, Tensor):
                return self.values(func.name(), value) if self.on_device(value) else value
            return [real(v) for v in value] if isinstance(value, (list, tuple)) else value

        host = real(args)
        with unset_fake_temporarily():
            result = func(*host, **kwargs)
        moved = [
            torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=f"cuda:{queue.device}")
            for t in tensors_in(result)
        ]
        for t in moved:
            self.allocate(t, queue)
        return moved[0] if isinstance(result, Tensor) else tuple(moved)

    # ---------------------------------------------------------------- copies between memories
    def copy(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is ATEN._foreach_copy_.default:
            return self.copy_many(args, kwargs)
        if func is ATEN._to_copy.default:
            return self.moved(args[0], kwargs)
        blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        return self.move(args[0], args[1], blocking, "copy_")

    def copy_many(self, args: Any, kwargs: Any) -> Any:
        blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        pairs = list(zip(args[0], args[1], strict=True))
        if all(self.on_device(a) and self.on_device(b) and self.index(a) == self.index(b) for a, b in pairs):
            for to, source in pairs:
                if to.shape != source.shape:
                    raise RuntimeError(f"_foreach_copy_: {named(source)} into {named(to)}")
            self.put(self.queue(self.index(args[0][0])), "_foreach_copy_", args[1], args[0])
        else:
            for to, source in pairs:
                self.move(to, source, blocking, "_foreach_copy_")
        return None

    def moved(self, source: Tensor, kwargs: Any) -> Tensor:
        """`.to`: another type, another place, or both."""
        target = torch.device(kwargs.get("device") or source.device)
        if self.on_device(source) and target.type == "cuda" and target.index == self.index(source):
            result: Tensor = ATEN._to_copy.default(source, **kwargs)
            self.note(ATEN._to_copy.default, [source], [], [result])
            return result
        dtype, blocking = kwargs.get("dtype") or source.dtype, not kwargs.get("non_blocking", False)
        if target.type == "cuda":
            layout = kwargs.get("memory_format") or torch.preserve_format
            with unset_fake_temporarily():
                strides = torch.empty_like(source, device="meta", memory_format=layout).stride()
            to = torch.empty_strided(source.shape, strides, dtype=dtype, device=target)
            self.memory(to)
        else:
            with unset_fake_temporarily():
                to = torch.empty(source.shape, dtype=dtype)
            if not blocking:
                self.allocate(to, self.queue(), pinned=True)  # as torch does it
        return self.move(to, source, blocking, "_to_copy")

    def move(self, to: Tensor, source: Tensor, blocking: bool, name: str) -> Tensor:
        """A copy into a tensor, on the current stream of the device that is part of it; of both where two are."""
        ends = [t for t in (source, to) if self.on_device(t)]
        queue = self.queue(self.index(ends[0]))
        torch.broadcast_shapes(to.shape, source.shape)
        if len(ends) == 2 and self.index(to) != self.index(source):
            other = self.queue(self.index(to))
            self.order.before(queue).update(self.order.before(other) | queue.clock)
            self.put(queue, name, [source], [to])
            other.clock.update(queue.clock)
            return to
        host = next((t for t in (to, source) if not self.on_device(t)), None)
        if host is None:
            self.put(queue, name, [source], [to])
            return to
        pageable = self.memory(host) is None
        if (capture := self.order.capture()) is not None and (pageable or blocking):
            kind = "pageable" if pageable else "blocking"
            raise broken(f"{name}: a {kind} copy of {named(host)} inside a capture on {capture.origin}")
        if host is to:
            with unset_fake_temporarily():
                to.copy_(self.values(name, source).expand(to.shape))
        self.put(queue, name, [source], [to])
        if pageable or blocking:
            way = "to the host" if host is to else "to the device"
            self.blocked(f"{name} of {named(host)} {way}, {'from pageable memory' if pageable else 'blocking'}", queue)
        return to

    # ---------------------------------------------------------------- coming and going
    @contextmanager
    def here(self) -> Iterator[None]:
        """Pretend in this thread; a mode of torch is its thread's own."""
        with self.fake, self:
            yield
