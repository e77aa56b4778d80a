"""The inputs and outputs of the plans, at fixed addresses.

A buffer has room for all objects; fewer objects use its first rows, so that one set serves every number of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...sam2 import Recall
from ..gpu import Gpu
from ..picture.upload import DoubleUpload
from ..static.copies import copy_all
from ..static.match import CellRows
from ..static.pool import BLANK, Pool
from .onnx import Port, Shapes
from .plans import ALIGNED

FACTS = (
    "slots_bt",
    "present_bt",
    "ages_bp",
    "real_bp",
    "certain_b",
)  # the host sets these for each frame


class Facts:
    """The layout of a frame's small inputs in one run of bytes, for any number of objects and slots.

    These are `FACTS`; `places_bt`, the slot of each memory in the pool; and `own_b`, the slot of the new one.
    """

    def __init__(self, shapes: Shapes) -> None:
        self._shapes, self._at, self.bytes = shapes, dict[str, int](), 0
        for name in (*FACTS, "places_bt", "own_b"):
            ports = [self._ports(slots)[name] for slots in shapes.slots]
            largest = max(math.prod(port.shape_for(shapes.max_objects)) * port.dtype.itemsize for port in ports)
            self._at[name] = self.bytes
            self.bytes += -(-largest // ALIGNED) * ALIGNED

    def _ports(self, slots: int) -> dict[str, Port]:
        places = {"places_bt": Port((slots,), torch.int64), "own_b": Port((), torch.int64)}
        return self._shapes.ports(slots) | places

    def cut(self, bytes_u8: Tensor, objects: int, slots: int) -> dict[str, Tensor]:
        """Views of the facts in these bytes, as tensors of their own dtypes."""
        ports, cut = self._ports(slots), {}
        for name, at in self._at.items():
            shape, dtype = ports[name].shape_for(objects), ports[name].dtype
            cut[name] = bytes_u8[at : at + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
        return cut

    def write(
        self, bytes_u8: Tensor, recalls: Sequence[Recall], slots: int, places: Sequence[Sequence[int]],
        own: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """Write the inputs for objects with these memories and without prompts."""
        bytes_u8[: self.bytes].zero_()
        facts = {name: tensor.numpy() for name, tensor in self.cut(bytes_u8, len(recalls), slots).items()}
        facts["places_bt"].fill(BLANK)  # a slot of zeros, because masked memories have to be finite
        facts["own_b"][: len(own)] = own
        for i, recall in enumerate(recalls):
            t, p = len(recall.slots), len(recall.ages)
            facts["slots_bt"][i, :t], facts["present_bt"][i, :t] = recall.slots, True
            facts["places_bt"][i, :t] = places[i]
            facts["ages_bp"][i, :p], facts["real_bp"][i, :p] = recall.ages, True


class Buffers:
    """Device tensors by name. Construct it inside the GPU's `work`."""

    def __init__(self, shapes: Shapes, gpu: Gpu) -> None:
        self._shapes = shapes
        self._all: dict[tuple[str, tuple[int, ...]], Tensor] = {}
        for slots in shapes.slots:
            for name, port in shapes.ports(slots).items():
                shape = port.shape_for(shapes.max_objects)
                if name not in FACTS and (name, shape) not in self._all:
                    self._all[name, shape] = gpu.zeros(shape, port.dtype)
        self.facts = Facts(shapes)
        self.facts_u8 = gpu.zeros((self.facts.bytes,), torch.uint8)
        self._upload = DoubleUpload(self.facts_u8, gpu)
        self._cuts: dict[tuple[int, int], dict[str, Tensor]] = {}
        # Of a network with `Match`: the cells of each object's newest conditioning frame.
        one = shapes.ports(shapes.slots[0]) if shapes.preset.match_dim else {}
        b = {
            name: self._all[name, one[name].shape_for(shapes.max_objects)]
            for name in ("cells_bcgg", "matched_b")
            if one
        }
        self._rows = CellRows(**b) if b else None
        self._pointers = [0] * shapes.max_objects  # how many pointers each object's row holds

    def for_objects(self, objects: int, slots: int = 0) -> dict[str, Tensor]:
        """The buffers for this many objects. `slots` may be left out if no memory is read."""
        key = objects, slots or self._shapes.slots[0]
        if key not in self._cuts:
            self._cuts[key] = self._cut(*key)
        return self._cuts[key]

    def _cut(self, objects: int, slots: int) -> dict[str, Tensor]:
        cut = self.facts.cut(self.facts_u8, objects, slots)
        for name, port in self._shapes.ports(slots).items():
            if name not in FACTS:
                tensor = self._all[name, port.shape_for(self._shapes.max_objects)]
                cut[name] = tensor if port.shared else tensor[:objects]
        return cut

    def upload_facts(self, recalls: Sequence[Recall], slots: int, places: Sequence[Sequence[int]]) -> None:
        """Upload the facts of these objects alone. The facts of a tracked step are uploaded with its picture."""
        with self._upload.filling() as bytes_u8:
            self.facts.write(bytes_u8, recalls, slots, places)

    def upload_certain(self, prompted: Sequence[bool]) -> None:
        """Upload which objects were prompted."""
        with self._upload.filling() as bytes_u8:
            bytes_u8.zero_()
            rows = self.facts.cut(bytes_u8, len(prompted), self._shapes.slots[0])["certain_b"]
            rows.numpy()[:] = prompted

    def gather(self, pool: Pool, objects: int, slots: int) -> None:
        """Gather the memories that `attend` with this many slots reads, from the places that the facts name."""
        b = self.for_objects(objects, slots)
        places = b["places_bt"].flatten()
        torch.index_select(pool.keys_slnd, 0, places, out=b["keys_btlnd"].flatten(0, 1))
        torch.index_select(pool.values_snm, 0, places, out=b["values_btnm"].flatten(0, 1))

    def copy_in(self, recalls: Sequence[Recall], slots: int) -> None:
        """Copy memories, which must have keys, to where `gather` would put them."""
        b, copied = self.for_objects(len(recalls), slots), list[tuple[Tensor, Tensor]]()
        for i, recall in enumerate(recalls):
            for j, memory in enumerate(recall.memories):
                assert memory.keys_lnd is not None
                copied.append((b["keys_btlnd"][i, j], memory.keys_lnd))
                copied.append((b["values_btnm"][i, j], memory.map_chw.flatten(1).T))
        copy_all(copied)

    def copy_pointers(self, recalls: Sequence[Recall]) -> None:
        """Copy the object pointers, and the cells of a network with `Match`.

        Older pointers behind them are zeroed, because a mask does not hide NaN.
        """
        pointers_bpd = self.for_objects(len(recalls))["pointers_bpd"]
        copied = self._rows.copies(recalls) if self._rows else []
        for i, recall in enumerate(recalls):
            before, p = self._pointers[i], len(recall.ages)
            if before > p:
                pointers_bpd[i, p:before].zero_()
            self._pointers[i] = p
            copied.append((pointers_bpd[i, :p], recall.pointers_pc))
        copy_all(copied)
