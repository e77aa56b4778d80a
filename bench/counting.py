"""What a piece of torch costs, counted from shapes: floating-point operations, bytes, and kernels.

The code runs on tensors without numbers, so that nothing is computed. Three numbers of bytes:

- `least`: every weight and input read once, every answer written once. No version moves less through memory.
- `fused`: products, convolutions, attention and sorting are kernels of their own; all pointwise work and reductions
  between them that hang together are one kernel each (as a compiler like inductor makes them).
- `launched`: each operation of torch is a kernel that reads its inputs and writes its answers.

FLOP are those of products alone, 2 for each multiply-add, by torch's own table (`torch.utils.flop_counter`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from rtseg.engine.static.parts import Attention

# Neither read nor write: another view of the same memory, or memory that nobody has written yet.
FREE = {
    "view", "_unsafe_view", "reshape", "permute", "transpose", "t", "expand", "unsqueeze", "squeeze", "select",
    "slice", "split", "split_with_sizes", "chunk", "unbind", "alias", "detach", "as_strided", "empty", "empty_like",
    "new_empty", "empty_strided", "lift_fresh", "unfold", "diagonal",
}  # fmt: skip
# Kernels of their own; what is pointwise before or after them is fused among itself only.
ALONE = {
    "mm", "addmm", "bmm", "baddbmm", "convolution", "attention", "max_pool2d_with_indices", "sort", "topk",
    "argmax", "gather", "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_bilinear2d_aa",
}  # fmt: skip


@dataclass(slots=True)
class Kernel:
    """One launch: FLOP, and the tensors that it reads and writes by identity, with their bytes."""

    name: str
    flop: int
    reads: dict[int, int]
    writes: dict[int, int]

    @property
    def bytes(self) -> int:
        return sum(self.reads.values()) + sum(self.writes.values())


@dataclass(slots=True)
class Cost:
    """What one verb costs; `kernels` as launched, `groups` as fused."""

    flop: int
    least: int
    kernels: list[Kernel] = field(default_factory=list)
    groups: list[Kernel] = field(default_factory=list)

    @property
    def launched(self) -> int:
        return sum(kernel.bytes for kernel in self.kernels)

    @property
    def fused(self) -> int:
        return sum(kernel.bytes for kernel in self.groups)


class Counter(TorchDispatchMode):
    """Notes each operation that torch carries out inside."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[Kernel] = []
        self.views = 0
        self._kept: list[Any] = []  # identities are only good while nobody else can take them
        self._ids: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::").rstrip("_") or func._schema.name
        name = func._schema.name.removeprefix("aten::") if name in ("", "_") else name
        if name in FREE:
            self.views += 1
        else:
            packet = func._overloadpacket
            flop = flop_registry[packet](*args, **(kwargs or {}), out_val=out) if packet in flop_registry else 0
            self.note(name, int(flop), tensors((args, kwargs)), tensors(out))
        return out

    def note(self, name: str, flop: int, reads: Sequence[Tensor], writes: Sequence[Tensor]) -> None:
        """A kernel that reads and writes these."""
        # An operation in place is said to write what it was given, and reads it too.
        self.kernels.append(Kernel(name, flop, self._sizes(reads), self._sizes(writes)))

    def _sizes(self, found: Sequence[Tensor]) -> dict[int, int]:
        return {self._identity(t): seen_bytes(t) for t in found}

    def _identity(self, t: Tensor) -> int:
        """That of the memory behind a tensor, so that a view is what it looks at."""
        storage = t.untyped_storage()
        self._kept.append(storage)
        return self._ids.setdefault(storage._cdata, len(self._ids))

    def known(self, given: Sequence[Tensor]) -> set[int]:
        return {self._identity(t) for t in given}


class CountedAttention(Attention):
    """Attention as one kernel that keeps its scores to itself, as flash attention does."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.counter: Counter | None = None

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = q.to(self.dtype), k.to(self.dtype), v.to(self.dtype)
        b, heads, n, d = q.shape
        # Heads side by side in memory, as flash and memory-efficient attention answer: to join them is a view.
        out = q.new_empty(b, n, heads, v.shape[-1]).transpose(1, 2)
        if self.counter is not None:
            flop = 2 * b * heads * n * k.shape[2] * (d + v.shape[-1])
            self.counter.note("attention", flop, [q, k, v], [out])
        return out


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def seen_bytes(t: Tensor) -> int:
    """Bytes of a tensor that exist: an expanded axis is stored once."""
    count = 1
    for size, stride in zip(t.shape, t.stride(), strict=True):
        count *= size if stride or size == 0 else 1
    return count * t.element_size()


def cost(call: Callable[[], Sequence[Tensor]], given: Sequence[Tensor], attention: CountedAttention) -> Cost:
    """The cost of a call on tensors without numbers, to which `given` are the weights and inputs."""
    counter = Counter()
    attention.counter = counter
    try:
        with counter:
            answers = list(call())
        inside, wanted = counter.known(given), counter.known(answers)
    finally:
        attention.counter = None
    read = {i: n for kernel in counter.kernels for i, n in kernel.reads.items() if i in inside}
    least = sum(read.values()) + sum(seen_bytes(t) for t in answers)
    flop = sum(kernel.flop for kernel in counter.kernels)
    # A compiler writes constants into the kernels that read them.
    return Cost(flop, least, counter.kernels, fused([k for k in counter.kernels if k.name != "scalar_tensor"], wanted))


def fused(kernels: Sequence[Kernel], wanted: set[int]) -> list[Kernel]:
    """The kernels with neighbouring pointwise ones as one, whose inner tensors never reach memory.

    Pointwise kernels join where one reads what the other wrote and as many lone kernels lie before both: a way from
    one to the other through a lone kernel, which would make a circle of them, would have one more.
    """
    group, level = list(range(len(kernels))), [0] * len(kernels)
    writer: dict[int, int] = {}
    alone = [kernel.name in ALONE or kernel.flop > 0 for kernel in kernels]
    for i, kernel in enumerate(kernels):
        before = [writer[t] for t in kernel.reads if t in writer]
        level[i] = max((level[m] for m in before), default=0) + alone[i]
        for m in (m for m in before if not alone[i] and not alone[m] and level[m] == level[i]):
            old, new = group[m], group[i]
            group = [new if g == old else g for g in group]
        writer.update(dict.fromkeys(kernel.writes, i))
    return _merged(kernels, group, wanted)


def _merged(kernels: Sequence[Kernel], group: Sequence[int], wanted: set[int]) -> list[Kernel]:
    last_read: dict[int, set[int]] = {}
    for i, kernel in enumerate(kernels):
        for t in kernel.reads:
            last_read.setdefault(t, set()).add(group[i])
    found: dict[int, Kernel] = {}
    for i, kernel in enumerate(kernels):
        whole = found.setdefault(group[i], Kernel(kernel.name, 0, {}, {}))
        whole.flop += kernel.flop
        whole.reads.update({t: n for t, n in kernel.reads.items() if t not in whole.writes})
        whole.writes.update(kernel.writes)
    for key, whole in found.items():
        whole.writes = {t: n for t, n in whole.writes.items() if t in wanted or last_read.get(t, set()) - {key}}
    return list(found.values())


@contextmanager
def nothing_computed() -> Iterator[None]:
    """Inside, new tensors are on torch's "meta" device: they have shapes and types, and no numbers."""
    # Not inference_mode: there a linear layer would be an operation that no table of FLOP knows. And the drawing of
    # initial weights looks at its numbers.
    drawn = mock.patch("torch.nn.init.trunc_normal_", lambda tensor, **_: tensor)
    with torch.device("meta"), torch.no_grad(), drawn:
        yield
