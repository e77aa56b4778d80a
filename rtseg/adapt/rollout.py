"""Objects followed through a clip, with memories of the network's own predictions: what training unrolls.

The first frame is prompted; each later frame is conditioned on memories of the earlier ones. Which memories, and at
which temporal slots, is a `Recollect` function: it sees the times of the frames remembered and the time now.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..sam2 import Features, PromptBatch, Recall, Sam2, on_device
from ..sam2.memory import MemoryTokens
from ..sam2.network import certain, upsample
from .motion import Rng

POINTERS = 15  # of the latest frames, beside those of conditioning frames
Recollect = Callable[[list[int], int], list[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Predicted:
    """One frame of B objects: the mask in use, and every candidate (None where a given mask was taken as it is)."""

    logits_b1hw: Tensor
    score_b: Tensor
    pointer_bd: Tensor
    all_logits_bkhw: Tensor | None = None
    all_iou_bk: Tensor | None = None

    @staticmethod
    def joined(parts: list[Predicted], rows: list[Tensor]) -> Predicted:
        """Masks in use of several parts of the objects as those of all; `rows` says which each part has."""
        order = torch.cat(rows).argsort()
        return Predicted(
            *(torch.cat([getattr(p, name) for p in parts])[order] for name in ("logits_b1hw", "score_b", "pointer_bd"))
        )


@dataclass(frozen=True, slots=True)
class _Memory:
    time: int
    map_bmhw: Tensor
    pointer_bd: Tensor


def fifo(times: list[int], now: int) -> list[tuple[int, int]]:
    """SAM 2's own: frames 1 to 6 ago, slot = distance - 1. Returns (index into `times`, slot) pairs."""
    return [(i, now - t - 1) for i, t in enumerate(times) if now - t <= 6]


def scattered(rng: Rng) -> Recollect:
    """What a pruned bank may look like: the newest memory and a random few others, by rank or by random slots."""

    def recollect(times: list[int], _now: int) -> list[tuple[int, int]]:
        if not times:
            return []
        kept = [i for i in range(len(times) - 1) if rng.random() < 0.7] + [len(times) - 1]
        kept = kept[-6:]
        slots = sorted(rng.choice(6, len(kept), replace=False)) if rng.random() < 0.5 else range(len(kept))
        return [(i, int(slot)) for i, slot in zip(reversed(kept), slots, strict=True)]

    return recollect


@dataclass(slots=True)
class Rollout:
    """B objects on their way through a clip. Differentiable: the caller chooses the grad mode."""

    net: Sam2
    recollect: Recollect
    _anchors: list[_Memory] = field(default_factory=list)  # of prompted frames
    _recent: list[_Memory] = field(default_factory=list)

    def condition(self, own: Features, now: int) -> Tensor:
        """Features of the B objects' frames [B, ...] in the light of what is remembered."""
        if not self._anchors:
            return self.net.attend(own, [None] * len(own.top))
        conditioned: Tensor = self.net.memory_attention(own.top, self._tokens(now))
        return conditioned

    def given(self, own: Features, mask_b1hw: Tensor) -> Predicted:
        """A mask, 0/1 [B, 1, S, S], taken as the answer."""
        out = self.net.from_mask(own, mask_b1hw)
        return Predicted(out.logits_b1hw, out.score_b, out.pointer_bc)

    def predict(self, conditioned_bdhw: Tensor, own: Features, prompts: PromptBatch | None = None) -> Predicted:
        """All candidates, and the mask that the predictor would choose of them; in fp32, as the engine decodes."""
        prompts = prompts or on_device(PromptBatch.none(len(own.top)), own.top.device)
        with torch.autocast(own.top.device.type, enabled=False):
            own = Features(own.top.float(), own.mid.float(), own.fine.float())
            found = self.net.predict_masks(conditioned_bdhw.float(), own, prompts)
            chosen = self.net.answer(found, prompts.multimask)
        return Predicted(chosen.logits_b1hw, found.score_b, chosen.pointer_bc, found.logits_bkhw, found.iou_bk)

    def remember(self, own: Features, predicted: Predicted, now: int, prompted: bool) -> None:
        """Keep this frame; one that was prompted is an anchor, which is always looked at."""
        full_b1hw = upsample(predicted.logits_b1hw, self.net.image_size)
        full_b1hw = certain(full_b1hw) if prompted else full_b1hw
        memory = _Memory(now, self.net.remember(own, full_b1hw, predicted.score_b), predicted.pointer_bd)
        if prompted:
            self._anchors.append(memory)
        else:
            self._recent = [*self._recent, memory][-POINTERS:]

    def _tokens(self, now: int) -> MemoryTokens:
        """All objects remember the same frames, so positions are made once, and nothing is padded."""
        net = self.net
        chosen = self.recollect([m.time for m in self._recent], now)
        memories = [*self._anchors, *(self._recent[i] for i, _ in chosen)]
        slots = (*[net.preset.num_maskmem - 1] * len(self._anchors), *(slot for _, slot in chosen))
        owners = [*self._anchors, *reversed(self._recent)]
        ages = tuple(now - m.time for m in owners)
        maps_btmhw = torch.stack([m.map_bmhw for m in memories], 1)
        pointers_bpd = torch.stack([m.pointer_bd for m in owners], 1)
        first = Recall.from_maps(maps_btmhw[0], slots, pointers_bpd[0], ages)
        *_, positions_nm = net.tokenizer.one(first, net.maskmem_tpos_enc, net.obj_ptr_tpos_proj)
        values_bsm = maps_btmhw.flatten(3).transpose(2, 3).flatten(1, 2)
        values_bnm = torch.cat((values_bsm, pointers_bpd.reshape(len(pointers_bpd), -1, net.preset.memory_dim)), 1)
        return MemoryTokens(values_bnm, values_bnm + positions_nm, values_bsm.shape[1], None)
