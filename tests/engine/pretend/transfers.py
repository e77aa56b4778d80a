"""What crosses between the host and a device, or between devices, and what the host waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from .order import Queue, broken
from .shapes import named, tensors_in

if TYPE_CHECKING:
    from .mode import Mode

ATEN = torch.ops.aten
COPIES = {ATEN._to_copy.default, ATEN.copy_.default, ATEN._foreach_copy_.default}
ANSWERS = {ATEN._local_scalar_dense.default, ATEN.equal.default}  # in the host's memory, whatever they ask about
Answer = Callable[[str, Tensor], Any]


class Transfers:
    """`answers(operation, tensor)` says what the host finds where it reads from the device (None: see `answer`)."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.answers: Answer | None = None

    def blocked(self, what: str, queue: Queue) -> None:
        """The host waits for a stream."""
        self.mode.order.wait(what, queue.clock | {queue.handle: queue.time}, queue)

    def answer(self, func: Any, given: Sequence[Tensor]) -> Any:
        """What `.item()`, `bool()` and `torch.equal` say: zero, True and False, unless the test says otherwise."""
        name, first = func.name().removeprefix("aten::"), given[0]
        queue = self.mode.queue(self.mode.index(first))
        self.mode.put(queue, name, given, [])
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
        queue = self.mode.queue(next(self.mode.index(t) for t in given if self.mode.on_device(t)))
        self.mode.put(queue, str(func), given, [])
        self.blocked(f"{func}: the shape of its answer depends on values", queue)

        def real(value: Any) -> Any:
            if isinstance(value, Tensor):
                return self.values(func.name(), value) if self.mode.on_device(value) else value
            return [real(v) for v in value] if isinstance(value, (list, tuple)) else value

        host = real(args)
        with unset_fake_temporarily():
            result = func(*host, **kwargs)
        moved = [
            torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=f"cuda:{queue.device}")
            for t in tensors_in(result)
        ]
        for t in moved:
            self.mode.allocate(t, queue)
        return moved[0] if isinstance(result, Tensor) else tuple(moved)

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
        if all(
            self.mode.on_device(a) and self.mode.on_device(b) and self.mode.index(a) == self.mode.index(b)
            for a, b in pairs
        ):
            for to, source in pairs:
                if to.shape != source.shape:
                    raise RuntimeError(f"_foreach_copy_: {named(source)} into {named(to)}")
            self.mode.put(self.mode.queue(self.mode.index(args[0][0])), "_foreach_copy_", args[1], args[0])
        else:
            for to, source in pairs:
                self.move(to, source, blocking, "_foreach_copy_")
        return None

    def moved(self, source: Tensor, kwargs: Any) -> Tensor:
        """`.to`: another type, another place, or both."""
        target = torch.device(kwargs.get("device") or source.device)
        if self.mode.on_device(source) and target.type == "cuda" and target.index == self.mode.index(source):
            result: Tensor = ATEN._to_copy.default(source, **kwargs)
            self.mode.note(ATEN._to_copy.default, [source], [], [result])
            return result
        dtype, blocking = kwargs.get("dtype") or source.dtype, not kwargs.get("non_blocking", False)
        if target.type == "cuda":
            layout = kwargs.get("memory_format") or torch.preserve_format
            with unset_fake_temporarily():
                strides = torch.empty_like(source, device="meta", memory_format=layout).stride()
            to = torch.empty_strided(source.shape, strides, dtype=dtype, device=target)
            self.mode.memory(to)
        else:
            with unset_fake_temporarily():
                to = torch.empty(source.shape, dtype=dtype)
            if not blocking:
                self.mode.allocate(to, self.mode.queue(), pinned=True)  # as torch does it
        return self.move(to, source, blocking, "_to_copy")

    def move(self, to: Tensor, source: Tensor, blocking: bool, name: str) -> Tensor:
        """A copy into a tensor, on the current stream of the device that is part of it; of both where two are."""
        ends = [t for t in (source, to) if self.mode.on_device(t)]
        queue = self.mode.queue(self.mode.index(ends[0]))
        torch.broadcast_shapes(to.shape, source.shape)
        if len(ends) == 2 and self.mode.index(to) != self.mode.index(source):
            other = self.mode.queue(self.mode.index(to))
            self.mode.order.before(queue).update(self.mode.order.before(other) | queue.clock)
            self.mode.put(queue, name, [source], [to])
            other.clock.update(queue.clock)
            return to
        host = next((t for t in (to, source) if not self.mode.on_device(t)), None)
        if host is None:
            self.mode.put(queue, name, [source], [to])
            return to
        pageable = self.mode.memory(host) is None
        if (capture := self.mode.order.capture()) is not None and (pageable or blocking):
            kind = "pageable" if pageable else "blocking"
            raise broken(f"{name}: a {kind} copy of {named(host)} inside a capture on {capture.origin}")
        if host is to:
            with unset_fake_temporarily():
                to.copy_(self.values(name, source).expand(to.shape))
        self.mode.put(queue, name, [source], [to])
        if pageable or blocking:
            way = "to the host" if host is to else "to the device"
            self.blocked(f"{name} of {named(host)} {way}, {'from pageable memory' if pageable else 'blocking'}", queue)
        return to
