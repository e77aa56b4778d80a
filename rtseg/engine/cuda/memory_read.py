"""How attention reads memories: from the pool, as a captured step does, or stacked from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...sam2 import Recall, Remembered
from ..picture.upload import Uploader
from ..static.memory import Attend, PaddedRead
from .buffers import Facts, Layout, arrays_of, write


class PoolRead(PaddedRead):
    """`PaddedRead` for memories in a pool: gathers the slots that the facts name into the layout that attention takes.

    The sums are the same; keys and values are written once, to where attention reads them.
    """

    def __init__(
        self, attend: Attend, keys_slnd: Tensor, values_snm: Tensor, facts: Facts, pointers_bpd: Tensor,
        whole: bool = False,
    ) -> None:  # fmt: skip
        b, t = facts.slots_bt.shape
        layers, n, dim = keys_slnd.shape[1:]
        # The row of an absent pointer still holds an earlier one, which may be anything.
        known_bpd = pointers_bpd if whole else pointers_bpd.masked_fill(~facts.real_bp[:, :, None], 0.0)
        if torch.compiler.is_compiling():  # the compiler writes once by itself, if nothing is written in place
            keys_btlnd, values_btnm = keys_slnd[facts.slots_bt], values_snm[facts.slots_bt].to(keys_slnd.dtype)
            super().__init__(
                attend, keys_btlnd, values_btnm, facts.rows_bt, facts.present_bt, known_bpd, facts.ages_bp,
                facts.real_bp, whole,
            )  # fmt: skip
            return
        values_bsm, own_blsd = attend.pointer_tokens(known_bpd, facts.ages_bp)
        slots, rows, spatial = facts.slots_bt.flatten(), facts.rows_bt.flatten(), t * n
        maps = keys_slnd.index_select(0, slots).view(b, t, layers, n, dim)
        codes = attend.slots.index_select(0, rows).to(maps.dtype).view(b, t, layers, n, dim)
        self.keys_blnd = maps.new_empty(b, layers, spatial + values_bsm.shape[1], dim)
        to = self.keys_blnd[:, :, :spatial].unflatten(2, (t, n))
        torch.add(maps.transpose(1, 2), codes.transpose(1, 2), out=to)
        self.keys_blnd[:, :, spatial:].copy_(own_blsd)
        self.values_b1nm = maps.new_empty(b, 1, self.keys_blnd.shape[2], values_snm.shape[2])
        self.values_b1nm[:, 0, :spatial].copy_(values_snm.index_select(0, slots).view(b, spatial, -1))
        self.values_b1nm[:, 0, spatial:].copy_(values_bsm)
        self.mask(attend, facts.present_bt, facts.real_bp, n, whole)
        self.attention, self.objects = attend.attention, b


def stacked(
    attend: Attend, recalls: Sequence[Recall], capacity: Layout, blank: Remembered, upload: Uploader,
    keys_of: Callable[[Remembered], Tensor],
) -> PaddedRead:  # fmt: skip
    """`PaddedRead` for memories that are anywhere, padded with `blank` to the slots of `capacity`."""
    each = [[*recall.memories, *[blank] * (capacity.slots - len(recall.memories))] for recall in recalls]
    keys = torch.stack([torch.stack([keys_of(m) for m in memories]) for memories in each])
    values = torch.stack([torch.stack([m.map_chw.flatten(1).T for m in memories]) for memories in each])
    known = [F.pad(recall.pointers_pc, (0, 0, 0, capacity.pointers - len(recall.ages))) for recall in recalls]
    head_u8 = torch.zeros(capacity.nbytes, dtype=torch.uint8)
    write(arrays_of(capacity.facts_in(head_u8)), recalls, (), ())
    facts = capacity.facts_in(upload(head_u8.numpy()))
    return PaddedRead(
        attend, keys, values.to(keys.dtype), facts.rows_bt, facts.present_bt, torch.stack(known), facts.ages_bp,
        facts.real_bp,
    )  # fmt: skip
