"""Everything that goes in or out of the plans, at addresses that never change.

A buffer has room for all objects; fewer use its first rows, so that one set serves every number of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...sam2 import Recall
from .gpu import Gpu
from .onnx import Shapes

FROM_HOST = ("slots_bt", "present_bt", "ages_bp", "real_bp", "certain_b")
TO_HOST = ("logits_b1hw", "iou_b", "score_b")


class Buffers:
    """Device tensors by name, and pinned host tensors for those that are filled or read by the host."""

    def __init__(self, shapes: Shapes, gpu: Gpu) -> None:
        self._shapes = shapes
        self._all: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        self._host: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        for slots in shapes.slots:
            for name, port in shapes.ports(slots).items():
                shape = port.of(shapes.max_objects)
                if (name, shape) not in self._all:
                    self._all[name, shape] = gpu.zeros(shape, port.dtype)
                    if name in FROM_HOST + TO_HOST:
                        self._host[name, shape] = gpu.pinned(shape, port.dtype)
        # How much each object's row holds: memories have a buffer for each number of slots, pointers have one.
        self._memories = {slots: [0] * shapes.max_objects for slots in shapes.slots}
        self._pointers = [0] * shapes.max_objects

    def of(self, objects: int, slots: int = 0) -> dict[str, Tensor]:
        """The buffers of this many objects; `slots` may be left out where no memory is read."""
        return self._cut(self._all, objects, slots or self._shapes.slots[0])

    def host(self, objects: int, slots: int = 0) -> dict[str, Tensor]:
        """The pinned tensors beside them."""
        return self._cut(self._host, objects, slots or self._shapes.slots[0])

    def _cut(self, tensors: dict[tuple[str, tuple[int, ...]], Tensor], objects: int, slots: int) -> dict[str, Tensor]:
        cut = {}
        for name, port in self._shapes.ports(slots).items():
            tensor = tensors.get((name, port.of(self._shapes.max_objects)))
            if tensor is not None:
                cut[name] = tensor if port.shared else tensor[:objects]
        return cut

    def upload(self, objects: int, slots: int, *names: str) -> None:
        """Copy pinned tensors to the device."""
        host, device = self.host(objects, slots), self.of(objects, slots)
        for name in names:
            device[name].copy_(host[name], non_blocking=True)

    def load(self, recalls: Sequence[Recall], slots: int) -> None:
        """What each object remembers, for the `attend` with this many slots; its memories have keys."""
        device, host = self.of(len(recalls), slots), self.host(len(recalls), slots)
        for i, recall in enumerate(recalls):
            t, p = len(recall.slots), len(recall.ages)
            torch.stack(
                [m.keys_lnd for m in recall.memories if m.keys_lnd is not None], out=device["keys_btlnd"][i, :t]
            )
            torch.stack([m.map_chw.flatten(1).T for m in recall.memories], out=device["values_btnm"][i, :t])
            device["pointers_bpd"][i, :p] = recall.pointers_pc
            self._forget(device, slots, i, t, p)
            host["slots_bt"][i, :t], host["ages_bp"][i, :p] = torch.tensor(recall.slots), torch.tensor(recall.ages)
            for name, filled in (("present_bt", t), ("real_bp", p)):
                host[name][i, :filled], host[name][i, filled:] = True, False
        self.upload(len(recalls), slots, "slots_bt", "present_bt", "ages_bp", "real_bp")

    def _forget(self, device: dict[str, Tensor], slots: int, row: int, t: int, p: int) -> None:
        """Zero what an earlier frame left behind these memories: a mask hides any number but no NaN."""
        old_t, old_p = self._memories[slots][row], self._pointers[row]
        if old_t > t:
            device["keys_btlnd"][row, t:old_t], device["values_btnm"][row, t:old_t] = 0, 0
        if old_p > p:
            device["pointers_bpd"][row, p:old_p] = 0
        self._memories[slots][row], self._pointers[row] = t, p
