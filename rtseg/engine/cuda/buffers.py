"""The fixed buffers that captured steps read, and the upload into them.

One set serves all numbers of objects and memory slots: a step for fewer reads its first rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...base.types import ImageU8
from ...sam2 import Recall
from ..picture.device_picture import lies_on
from ..picture.upload import PinnedBuffer

ALIGNED = 256  # bytes that the start of the picture, behind the facts, is aligned to


@dataclass(frozen=True, slots=True)
class Facts:
    """The small inputs of a step beside the picture, for b objects, t memory slots and p pointers.

    `slots_bt` int64: each memory's slot in the pool; `rows_bt` int64: its row of the temporal table; `present_bt` bool:
    whether there is one; `ages_bp` fp32 and `real_bp` bool: the same of the pointers; `own_b` int64: the slot of the
    new memory.
    """

    slots_bt: Any
    rows_bt: Any
    own_b: Any
    ages_bp: Any
    present_bt: Any
    real_bp: Any

    @property
    def all(self) -> tuple[Any, ...]:
        """All fields in the order of the constructor."""
        return self.slots_bt, self.rows_bt, self.own_b, self.ages_bp, self.present_bt, self.real_bp


@dataclass(frozen=True, slots=True)
class Layout:
    """The layout of facts in a buffer, for up to this many objects, memories and pointers."""

    objects: int
    slots: int
    pointers: int

    def _parts(self) -> Iterator[tuple[torch.dtype, tuple[int, ...]]]:
        by_slot, by_pointer = (self.objects, self.slots), (self.objects, self.pointers)
        yield from ((torch.int64, by_slot), (torch.int64, by_slot), (torch.int64, (self.objects,)))
        yield from ((torch.float32, by_pointer), (torch.bool, by_slot), (torch.bool, by_pointer))

    @property
    def nbytes(self) -> int:
        """The size of the facts in bytes, padded to `ALIGNED`."""
        used = sum(dtype.itemsize * int(np.prod(shape)) for dtype, shape in self._parts())
        return -(-used // ALIGNED) * ALIGNED

    def facts_in(self, bytes_u8: Tensor) -> Facts:
        """Views of the facts at the start of a buffer. The widest dtypes come first, so that all are aligned."""
        views, at = [], 0
        for dtype, shape in self._parts():
            size = dtype.itemsize * int(np.prod(shape))
            views.append(bytes_u8[at : at + size].view(dtype).view(shape))
            at += size
        return Facts(*views)


class Inputs:
    """The upload for each picture of one size, uint8 [H, W, 3]: the picture and the facts, in one copy.

    There are two buffers of pinned memory: one is filled while the other is read.
    """

    def __init__(self, layout: Layout, height: int, width: int, device: torch.device) -> None:
        self.layout = layout
        self._picture_shape = (height, width, 3)
        total = layout.nbytes + height * width * 3
        self._hosts = [Filled(PinnedBuffer(total, device), self) for _ in range(2)]
        self._device_u8 = torch.zeros(total, dtype=torch.uint8, device=device)
        self.picture_hwc = self.picture_in(self._device_u8)
        self._facts = layout.facts_in(self._device_u8)

    def picture_in(self, bytes_u8: Tensor) -> Tensor:
        """A view of the picture in such a buffer."""
        return bytes_u8[self.layout.nbytes :].view(self._picture_shape)

    def facts(self, objects: int, slots: int, pointers: int) -> Facts:
        """The facts of the first `objects`, `slots` and `pointers`."""
        f, b, t, p = self._facts, objects, slots, pointers
        return Facts(
            f.slots_bt[:b, :t], f.rows_bt[:b, :t], f.own_b[:b], f.ages_bp[:b, :p], f.present_bt[:b, :t],
            f.real_bp[:b, :p],
        )  # fmt: skip

    def load(
        self, image_hwc: ImageU8, recalls: Sequence[Recall] = (), places: Sequence[Sequence[int]] = (),
        own: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """Upload a picture and its facts: each object recalls the pool's slots `places`, and writes to slot `own`.

        If the picture is on the device already, only the facts are uploaded.
        """
        filled = self._hosts[0]
        self._hosts.reverse()
        filled.host.wait()
        there_hwc = lies_on(image_hwc, self._device_u8.device)
        if there_hwc is None:
            filled.picture_hwc[:] = image_hwc
        filled.head_u8[:] = 0  # all places name the blank slot, and are masked
        write(filled.facts, recalls, places, own)
        if there_hwc is None:
            filled.host.up(self._device_u8)
        else:
            filled.host.up(self._device_u8[: self.layout.nbytes])
            self.picture_hwc.copy_(there_hwc)

    def noise(self, seed: int, scratch: int) -> None:
        """Fill the device's buffer with a random picture, and with facts in which every slot and pointer is present.

        All memories are in slot `scratch`, and so is the new one. This is the input for choosing kernels, and for
        checking that a graph depends on its inputs.
        """
        f = self._facts
        for fact, value in ((f.slots_bt, scratch), (f.own_b, scratch), (f.rows_bt, 0), (f.ages_bp, 1)):
            fact.fill_(value)
        f.present_bt.fill_(True)
        f.real_bp.fill_(True)
        picture_hwc = np.random.default_rng(seed).integers(0, 256, self._picture_shape, np.uint8)
        self.picture_hwc.copy_(torch.from_numpy(picture_hwc))

    def clear(self) -> None:
        """Fill the device's buffer with zeros: no memory, no pointer."""
        self._device_u8.zero_()


class Filled:
    """Numpy views of pinned memory. They are made once, because making one costs as much as writing through it."""

    def __init__(self, host: PinnedBuffer, inputs: Inputs) -> None:
        self.host = host
        self.picture_hwc = inputs.picture_in(host.bytes_u8).numpy()
        self.head_u8 = host.bytes_u8[: inputs.layout.nbytes].numpy()
        self.facts = arrays_of(inputs.layout.facts_in(host.bytes_u8))


def arrays_of(facts: Facts) -> Facts:
    """Numpy views of the same memory."""
    return Facts(*(fact.numpy() for fact in facts.all))


def write(facts: Facts, recalls: Sequence[Recall], places: Sequence[Sequence[int]], own: Sequence[int]) -> None:
    """Fill facts that are numpy arrays, and zero before."""
    slots_bt, rows_bt, own_b, ages_bp, present_bt, real_bp = facts.all
    own_b[: len(own)] = own
    for i, recall in enumerate(recalls):
        t, p = len(recall.slots), len(recall.ages)
        rows_bt[i, :t], present_bt[i, :t] = recall.slots, True
        ages_bp[i, :p], real_bp[i, :p] = recall.ages, True
    for i, slots in enumerate(places):
        slots_bt[i, : len(slots)] = slots


def randomize(tensors: Sequence[Tensor], seed: int) -> None:
    """Fill tensors with normally distributed numbers that are the same on every device."""
    draw = np.random.default_rng(seed)
    for tensor in tensors:
        tensor.copy_(torch.from_numpy(draw.standard_normal(tuple(tensor.shape), np.float32)))
