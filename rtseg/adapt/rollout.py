"""Tracking of objects through a clip with memories of the network's own predictions: the loop that training unrolls.

The first frame is prompted. Each later frame attends to memories of earlier frames. A `SelectMemories` function chooses
the memories and their temporal slots from the times of the remembered frames and the current time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..sam2 import Features, PromptBatch, Recall, Sam2, on_device
from ..sam2.adapters import PAST, Past
from ..sam2.memory import MemoryTokens
from ..sam2.network import certain, upsample
from .motion import Rng

POINTERS = 15  # object pointers of the latest frames; those of conditioning frames are added
# (times of the remembered frames, current time) -> pairs of an index into these times and a temporal slot
SelectMemories = Callable[[list[int], int], list[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Predicted:
    """The prediction for B objects on one frame: the chosen masks, and all candidates with their predicted IoU.

    The candidates are None if the mask was given by a prompt.
    """

    logits_b1hw: Tensor
    score_b: Tensor
    pointer_bd: Tensor
    all_logits_bkhw: Tensor | None = None
    all_iou_bk: Tensor | None = None
    copied_bgg: Tensor | None = None  # the mask that `Match` copied for this frame, 0 to 1

    @staticmethod
    def merge(parts: list[Predicted], rows: list[Tensor]) -> Predicted:
        """The chosen masks of all objects, merged from parts for some of them. `rows`: the objects of each part."""
        order = torch.cat(rows).argsort()
        return Predicted(
            *(torch.cat([getattr(p, name) for p in parts])[order] for name in ("logits_b1hw", "score_b", "pointer_bd"))
        )


@dataclass(frozen=True, slots=True)
class _Memory:
    time: int
    map_bmhw: Tensor
    pointer_bd: Tensor
    cells_bcgg: Tensor | None = None


def fifo(times: list[int], now: int) -> list[tuple[int, int]]:
    """SAM 2's own selection: the last six frames, each in the slot of its distance - 1."""
    return [(i, now - t - 1) for i, t in enumerate(times) if now - t <= 6]


def random_subset(rng: Rng) -> SelectMemories:
    """A selection of the newest memory and a few random others, like a pruned bank; slots by rank, or random."""

    def select(times: list[int], _now: int) -> list[tuple[int, int]]:
        if not times:
            return []
        chosen = [i for i in range(len(times) - 1) if rng.random() < 0.7] + [len(times) - 1]
        chosen = chosen[-6:]
        slots = sorted(rng.choice(6, len(chosen), replace=False)) if rng.random() < 0.5 else range(len(chosen))
        return [(i, int(slot)) for i, slot in zip(reversed(chosen), slots, strict=True)]

    return select


@dataclass(slots=True)
class Rollout:
    """B objects that are tracked through a clip. Differentiable; the caller sets the grad mode."""

    net: Sam2
    select: SelectMemories
    copied_b2gg: Tensor | None = None  # what `Match` copied for the latest `attend`
    _conditioning: list[_Memory] = field(default_factory=list)  # of prompted frames
    _recent: list[_Memory] = field(default_factory=list)

    def attend(self, own: Features, now: int) -> Tensor:
        """The conditioned features [B, D, g, g] of the objects' frames at time `now`; `own` has one row per object."""
        if not self._conditioning:
            return self.net.attend(own, [None] * len(own.top))
        conditioned: Tensor = self.net.memory_attention(own.top, self._tokens(now))
        match, cells_bcgg = self.net.match, self._conditioning[-1].cells_bcgg
        if match is not None and cells_bcgg is not None:
            self.copied_b2gg = match.copy(match.embed(own), cells_bcgg)
            conditioned = conditioned + match.prior(self.copied_b2gg)
        return conditioned if self.net.adapter is None else self.net.adapter.attended(conditioned, self._past())

    def _past(self) -> Past:
        """What adapters read of the memories: tracked frames, then conditioning frames, the newest first."""
        newest = [*reversed(self._recent), *reversed(self._conditioning)][:PAST]
        newest += [newest[-1]] * (PAST - len(newest))
        return Past(torch.stack([m.map_bmhw for m in newest], 1), self._conditioning[0].pointer_bd)

    def from_mask(self, own: Features, mask_b1hw: Tensor) -> Predicted:
        """The prediction that a mask prompt, 0/1 [B, 1, S, S], gives: that mask."""
        out = self.net.from_mask(own, mask_b1hw)
        return Predicted(out.logits_b1hw, out.score_b, out.pointer_bc)

    def predict(self, conditioned_bdhw: Tensor, own: Features, prompts: PromptBatch | None = None) -> Predicted:
        """All candidates, and the mask that the tracker would choose; in fp32, as the engine decodes."""
        prompts = prompts or on_device(PromptBatch.none(len(own.top)), own.top.device)
        with torch.autocast(own.top.device.type, enabled=False):
            own = Features(own.top.float(), own.mid.float(), own.fine.float())
            found = self.net.predict_masks(conditioned_bdhw.float(), own, prompts)
            chosen = self.net.answer(found, prompts.multimask)
        copied_bgg = None if self.copied_b2gg is None else self.copied_b2gg[:, 0]
        return Predicted(
            chosen.logits_b1hw, found.score_b, chosen.pointer_bc, found.logits_bkhw, found.iou_bk, copied_bgg
        )

    def remember(self, own: Features, predicted: Predicted, now: int, prompted: bool) -> None:
        """Store the memory of this frame. A prompted frame's is a conditioning memory, which attention always reads."""
        full_b1hw = upsample(predicted.logits_b1hw, self.net.image_size)
        full_b1hw = certain(full_b1hw) if prompted else full_b1hw
        memory = _Memory(
            now,
            self.net.remember(own, full_b1hw, predicted.score_b),
            predicted.pointer_bd,
            self.net.match.remember(own, predicted.logits_b1hw) if prompted and self.net.match else None,
        )
        if prompted:
            self._conditioning.append(memory)
        else:
            self._recent = [*self._recent, memory][-POINTERS:]

    def _tokens(self, now: int) -> MemoryTokens:
        """The memory tokens of all objects. All have memories of the same frames, so positions are computed once."""
        net = self.net
        selected = self.select([m.time for m in self._recent], now)
        memories = [*self._conditioning, *(self._recent[i] for i, _ in selected)]
        slots = (*[net.preset.num_maskmem - 1] * len(self._conditioning), *(slot for _, slot in selected))
        pointed = [*self._conditioning, *reversed(self._recent)]
        ages = tuple(now - m.time for m in pointed)
        maps_btmhw = torch.stack([m.map_bmhw for m in memories], 1)
        pointers_bpd = torch.stack([m.pointer_bd for m in pointed], 1)
        first = Recall.from_maps(maps_btmhw[0], slots, pointers_bpd[0], ages)
        *_, positions_nm = net.tokenizer.one(first, net.maskmem_tpos_enc, net.obj_ptr_tpos_proj)
        values_bsm = maps_btmhw.flatten(3).transpose(2, 3).flatten(1, 2)
        values_bnm = torch.cat((values_bsm, pointers_bpd.reshape(len(pointers_bpd), -1, net.preset.memory_dim)), 1)
        return MemoryTokens(values_bnm, values_bnm + positions_nm, values_bsm.shape[1], None)
