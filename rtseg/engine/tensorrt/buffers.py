"""Everything that goes in or out of the plans, at addresses that never change.

A buffer has room for all objects; fewer use its first rows, so that one set serves every number of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ...sam2 import Recall
from ..cuda.buffers import copy_all
from .gpu import Gpu
from .onnx import Shapes
from .plans import ALIGNED

FACTS = ("slots_bt", "present_bt", "ages_bp", "real_bp", "certain_b")  # what the host says of a frame


class Upload:
    """Bytes on the device, and two pinned copies of them on the host: while one is on its way, the other is filled."""

    def __init__(self, device_u8: Tensor, gpu: Gpu) -> None:
        self.device_u8 = device_u8
        self._hosts = [(gpu.pinned((device_u8.numel(),), torch.uint8), gpu.event()) for _ in range(2)]

    @contextmanager
    def filling(self) -> Iterator[Tensor]:
        """Inside, the host's bytes may be written; at the end they are sent. Only inside the GPU's `work`."""
        host_u8, sent = self._hosts[0]
        self._hosts.reverse()
        if not sent.query():  # two uploads ago: over, unless the caller is two frames ahead of the device
            sent.synchronize()
        yield host_u8
        self.device_u8.copy_(host_u8, non_blocking=True)
        sent.record()


class Facts:
    """Where each of `FACTS` lies in one run of bytes, for any number of objects and slots."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes, self._at, self.bytes = shapes, dict[str, int](), 0
        for name in FACTS:
            ports = [shapes.ports(slots)[name] for slots in shapes.slots]
            largest = max(math.prod(port.of(shapes.max_objects)) * port.dtype.itemsize for port in ports)
            self._at[name] = self.bytes
            self.bytes += -(-largest // ALIGNED) * ALIGNED

    def cut(self, bytes_u8: Tensor, objects: int, slots: int) -> dict[str, Tensor]:
        """The facts in these bytes, as tensors of their own types."""
        ports, cut = self._shapes.ports(slots), {}
        for name, at in self._at.items():
            shape, dtype = ports[name].of(objects), ports[name].dtype
            cut[name] = bytes_u8[at : at + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
        return cut

    def write(self, bytes_u8: Tensor, recalls: Sequence[Recall], slots: int) -> None:
        """What the host says of objects that recall this, and are not prompted."""
        bytes_u8[: self.bytes].zero_()
        facts = {name: tensor.numpy() for name, tensor in self.cut(bytes_u8, len(recalls), slots).items()}
        for i, recall in enumerate(recalls):
            t, p = len(recall.slots), len(recall.ages)
            facts["slots_bt"][i, :t], facts["present_bt"][i, :t] = recall.slots, True
            facts["ages_bp"][i, :p], facts["real_bp"][i, :p] = recall.ages, True


class Buffers:
    """Device tensors by name. Made inside the GPU's `work`."""

    def __init__(self, shapes: Shapes, gpu: Gpu) -> None:
        self._shapes = shapes
        self._all: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        for slots in shapes.slots:
            for name, port in shapes.ports(slots).items():
                shape = port.of(shapes.max_objects)
                if name not in FACTS and (name, shape) not in self._all:
                    self._all[name, shape] = gpu.zeros(shape, port.dtype)
        self.facts = Facts(shapes)
        self.facts_u8 = gpu.zeros((self.facts.bytes,), torch.uint8)
        self._upload = Upload(self.facts_u8, gpu)
        # How much each object's row holds: memories have a buffer for each number of slots, pointers have one.
        self._memories = {slots: [0] * shapes.max_objects for slots in shapes.slots}
        self._pointers = [0] * shapes.max_objects

    def of(self, objects: int, slots: int = 0) -> dict[str, Tensor]:
        """The buffers of this many objects; `slots` may be left out where no memory is read."""
        slots = slots or self._shapes.slots[0]
        cut = self.facts.cut(self.facts_u8, objects, slots)
        for name, port in self._shapes.ports(slots).items():
            if name not in FACTS:
                tensor = self._all[name, port.of(self._shapes.max_objects)]
                cut[name] = tensor if port.shared else tensor[:objects]
        return cut

    def tell(self, recalls: Sequence[Recall], slots: int) -> None:
        """Send the facts of these objects up on their own; a tracked frame's come with its picture."""
        with self._upload.filling() as bytes_u8:
            self.facts.write(bytes_u8, recalls, slots)

    def certain(self, prompted: Sequence[bool]) -> None:
        """Send up which objects a person prompted."""
        with self._upload.filling() as bytes_u8:
            bytes_u8.zero_()
            rows = self.facts.cut(bytes_u8, len(prompted), self._shapes.slots[0])["certain_b"]
            rows.numpy()[:] = prompted

    def load(self, recalls: Sequence[Recall], slots: int) -> None:
        """What each object remembers, for the `attend` with this many slots; its memories have keys."""
        device, copied = self.of(len(recalls), slots), list[tuple[Tensor, Tensor]]()
        for i, recall in enumerate(recalls):
            self._forget(device, slots, i, len(recall.slots), len(recall.ages))
            for j, memory in enumerate(recall.memories):
                assert memory.keys_lnd is not None
                copied.append((device["keys_btlnd"][i, j], memory.keys_lnd))
                copied.append((device["values_btnm"][i, j], memory.map_chw.flatten(1).T))
            copied.append((device["pointers_bpd"][i, : len(recall.ages)], recall.pointers_pc))
        copy_all(copied)

    def _forget(self, device: dict[str, Tensor], slots: int, row: int, t: int, p: int) -> None:
        """Zero what an earlier frame left behind these memories: a mask hides any number but no NaN."""
        old_t, old_p = self._memories[slots][row], self._pointers[row]
        if old_t > t:
            device["keys_btlnd"][row, t:old_t].zero_()
            device["values_btnm"][row, t:old_t].zero_()
        if old_p > p:
            device["pointers_bpd"][row, p:old_p].zero_()
        self._memories[slots][row], self._pointers[row] = t, p
