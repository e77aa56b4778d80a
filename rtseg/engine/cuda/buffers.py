"""The fixed buffers that a captured step reads, and the way a frame gets into them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ...sam2 import Recall
from ...types import ImageU8

ALIGNED = 256  # bytes; where the picture starts behind the facts


@dataclass(slots=True)
class Host:
    """Host memory for one upload (pinned), and the event after it (None before the first, and on a CPU)."""

    bytes_u8: Tensor
    uploaded: torch.cuda.Event | None = field(default=None)


class Inputs:
    """What a step reads: a picture uint8 [H, W, 3], and for each of b objects t memory slots and p pointers.

    `keys_btlnd` [b, t, L, n, D] in the type of the products, `values_btnm` [b, t, n, M] and `pointers_bpd` fp32;
    `untouched_b`: no object is prompted. The picture and the small facts (slots, ages, which are real) lie in one
    buffer, and come up in one copy from one of two pinned ones: while one is read, the other is filled.
    """

    def __init__(
        self, objects: int, slots: int, pointers: int, height: int, width: int, sizes: tuple[int, int, int, int],
        dtype: torch.dtype, device: torch.device,
    ) -> None:  # fmt: skip
        layers, n, dim, memory_dim = sizes
        self._shape = (objects, slots, pointers)
        self._picture_shape = (height, width, 3)
        self._facts_bytes = 4 * objects * 2 * (slots + pointers)
        self._head = -(-self._facts_bytes // ALIGNED) * ALIGNED
        total = self._head + height * width * 3
        pinned = device.type == "cuda"
        self._hosts = [Host(torch.zeros(total, dtype=torch.uint8, pin_memory=pinned)) for _ in range(2)]
        self._device_u8 = torch.zeros(total, dtype=torch.uint8, device=device)
        self.keys_btlnd = torch.zeros(objects, slots, layers, n, dim, dtype=dtype, device=device)
        self.values_btnm = torch.zeros(objects, slots, n, memory_dim, device=device)
        self.pointers_bpd = torch.zeros(objects, pointers, dim, device=device)
        self.untouched_b = torch.zeros(objects, dtype=torch.bool, device=device)
        self._held = [(0, 0)] * objects  # memories and pointers of each object that the buffers hold

    @property
    def picture_hwc(self) -> Tensor:
        return self._device_u8[self._head :].view(self._picture_shape)

    def facts(self) -> tuple[Tensor, ...]:
        """int32: rows of the slot table [b, t], which are present, ages of the pointers [b, p], which are real."""
        return self._facts_in(self._device_u8)

    def _facts_in(self, bytes_u8: Tensor) -> tuple[Tensor, ...]:
        objects, slots, pointers = self._shape
        rows = bytes_u8[: self._facts_bytes].view(torch.int32).view(objects, -1)
        return rows.split((slots, slots, pointers, pointers), dim=1)

    def load(self, image_hwc: ImageU8, recalls: Sequence[Recall], keys_of: Callable[[Tensor], Tensor]) -> None:
        """Bring up a picture and what each object recalls; `keys_of` makes the keys of a memory that has none."""
        self._clear_stale(recalls)
        self._upload(image_hwc, recalls)
        copied: list[tuple[Tensor, Tensor]] = []
        for i, recall in enumerate(recalls):
            for j, memory in enumerate(recall.memories):
                tokens_nm = memory.map_chw.flatten(1).T
                keys_lnd = keys_of(tokens_nm) if memory.keys_lnd is None else memory.keys_lnd
                copied += [(self.values_btnm[i, j], tokens_nm), (self.keys_btlnd[i, j], keys_lnd)]
            copied.append((self.pointers_bpd[i, : len(recall.ages)], recall.pointers_pc))
        copy_all(copied)

    def _upload(self, image_hwc: ImageU8, recalls: Sequence[Recall]) -> None:
        host = self._hosts[0]
        self._hosts.reverse()
        if host.uploaded is not None:
            host.uploaded.synchronize()  # two frames ago: over, unless the caller is two frames ahead of the device
        np.copyto(host.bytes_u8[self._head :].view(self._picture_shape).numpy(), image_hwc)
        slots_bt, present_bt, ages_bp, real_bp = facts = [t.numpy() for t in self._facts_in(host.bytes_u8)]
        for fact in facts:
            fact.fill(0)
        for i, recall in enumerate(recalls):
            t, p = len(recall.slots), len(recall.ages)
            slots_bt[i, :t], present_bt[i, :t] = recall.slots, 1
            ages_bp[i, :p], real_bp[i, :p] = recall.ages, 1
        self._device_u8.copy_(host.bytes_u8, non_blocking=True)
        if self._device_u8.is_cuda:
            host.uploaded = host.uploaded or torch.cuda.Event()
            host.uploaded.record()

    def _clear_stale(self, recalls: Sequence[Recall]) -> None:
        """Zero the slots that were held and are not any more: what is masked must be finite, and that may not be."""
        for i, recall in enumerate(recalls):
            t, p = len(recall.memories), len(recall.ages)
            if t < self._held[i][0]:
                self.keys_btlnd[i, t:].zero_()
                self.values_btnm[i, t:].zero_()
            if p < self._held[i][1]:
                self.pointers_bpd[i, p:].zero_()
            self._held[i] = (t, p)

    def noise(self, seed: int) -> None:
        """Every slot held, all of it random: to choose kernels by, and to see that a graph answers to its inputs."""
        generator = torch.Generator(self._device_u8.device).manual_seed(seed)
        self.picture_hwc.random_(0, 256, generator=generator)
        for buffer in (self.keys_btlnd, self.values_btnm, self.pointers_bpd):
            buffer.normal_(generator=generator)
        for fact in self.facts():
            fact.fill_(1)

    def clear(self) -> None:
        """Nothing held."""
        for buffer in (self._device_u8, self.keys_btlnd, self.values_btnm, self.pointers_bpd):
            buffer.zero_()


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """A copy of each tensor in memory of its own."""
    fresh = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors]
    copy_all(list(zip(fresh, tensors, strict=True)))
    return fresh


def copy_all(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Copy (to, from) pairs, all of one type in one launch."""
    by_type: defaultdict[torch.dtype, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for to, source in pairs:
        if to.numel():
            by_type[to.dtype].append((to, source))
    for group in by_type.values():
        torch._foreach_copy_([to for to, _ in group], [source for _, source in group], non_blocking=True)
