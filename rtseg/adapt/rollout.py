"""One object per clip, followed through time: the loop that training and validation share.

The first frame is prompted; each later frame is conditioned on memories of the earlier ones. Which memories, and
at which temporal slots, is a `Recollect` function: it sees the times of the frames remembered and the time now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..sam2 import Features, Prompts, Recall, Sam2
from ..sam2.decoder import choose
from ..sam2.network import ABSENT_LOGIT, certain, upsample
from .augment import Rng

POINTERS = 15  # of the latest frames, beside the conditioning one
Recollect = Callable[[list[int], int], list[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class FirstFrame:
    """What the first frame is prompted with: `mask_b1hw` 0/1 [B, 1, S, S], or points and boxes."""

    mask_b1hw: Tensor | None = None
    prompts: Prompts | None = None


@dataclass(frozen=True, slots=True)
class Predicted:
    """One frame of B objects: the mask in use, and every candidate (None where a given mask was taken as it is)."""

    logits_b1hw: Tensor
    score_b: Tensor
    all_logits_bkhw: Tensor | None
    all_iou_bk: Tensor | None


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
        slots = sorted(rng.choice(6, len(kept), replace=False)) if rng.random() < 0.5 else range(len(kept))
        return [(i, int(slot)) for i, slot in zip(reversed(kept), slots, strict=True)]

    return recollect


def rollout(
    net: Sam2, features: Iterable[Features], times: Iterable[int], first: FirstFrame, recollect: Recollect
) -> Iterator[Predicted]:
    """Follow B objects; yields one `Predicted` per frame. Differentiable: the caller chooses the grad mode.

    `features` are those of frames at `times` (ascending); N = B, or N = 1 shared by all.
    """
    anchor: _Memory | None = None
    recent: list[_Memory] = []
    for feats, now in zip(features, times, strict=True):
        if anchor is None:
            predicted, pointer_bd = _prompted(net, feats, first)
        else:
            cond = net.attend(feats, _recalls(net, anchor, recent, now, recollect))
            predicted, pointer_bd = _choose(net, cond, feats, Prompts.none(len(pointer_bd)))
        yield predicted
        full_b1hw = upsample(predicted.logits_b1hw, net.image_size)
        map_bmhw = net.remember(feats, certain(full_b1hw) if anchor is None else full_b1hw, predicted.score_b)
        memory = _Memory(now, map_bmhw, pointer_bd)
        if anchor is None:
            anchor = memory
        else:
            recent = [*recent, memory][-POINTERS:]


def _recalls(net: Sam2, anchor: _Memory, recent: list[_Memory], now: int, recollect: Recollect) -> list[Recall]:
    kept = recollect([m.time for m in recent], now)
    memories = [anchor, *(recent[i] for i, _ in kept)]
    slots = [net.preset.num_maskmem - 1, *(slot for _, slot in kept)]
    owners = [anchor, *reversed(recent)]
    ages = [now - m.time for m in owners]
    maps_btmhw = torch.stack([m.map_bmhw for m in memories], 1)
    pointers_bpd = torch.stack([m.pointer_bd for m in owners], 1)
    return [Recall.of(maps_btmhw[b], tuple(slots), pointers_bpd[b], tuple(ages)) for b in range(len(maps_btmhw))]


def _prompted(net: Sam2, feats: Features, first: FirstFrame) -> tuple[Predicted, Tensor]:
    if first.mask_b1hw is not None:
        out = net.from_mask(feats, first.mask_b1hw)
        return Predicted(out.logits_b1hw, out.score_b, None, None), out.pointer_bc
    assert first.prompts is not None
    batch = len(first.prompts.labels_bp)
    return _choose(net, net.attend(feats, [None] * batch), feats, first.prompts)


def _choose(net: Sam2, cond_bdhw: Tensor, feats: Features, prompts: Prompts) -> tuple[Predicted, Tensor]:
    """All candidates, and of the three multimask ones the mask that the network itself thinks best."""
    found = net.predict_masks(cond_bdhw, feats, prompts)
    mask_b, token_b = choose(found, prompts.multimask)
    rows_b = torch.arange(len(mask_b), device=mask_b.device)
    logits_b1hw = found.logits_bkhw[rows_b, mask_b][:, None]
    seen_b111 = (found.score_b > 0)[:, None, None, None]
    chosen_b1hw = torch.where(seen_b111, logits_b1hw, ABSENT_LOGIT)
    predicted = Predicted(chosen_b1hw, found.score_b, found.logits_bkhw, found.iou_bk)
    return predicted, net.pointer(found.tokens_bkc[rows_b, token_b], found.score_b)


def _redrawn(mask_b1hw: Tensor, rng: Rng) -> Tensor:
    """The mask, one time in four as another hand might have drawn it: a little fatter or thinner."""
    if rng.random() < 0.75:
        return mask_b1hw
    side = int(rng.choice([3, 5]))
    fatter_b1hw = F.max_pool2d(mask_b1hw, side, 1, side // 2)
    thinner_b1hw = 1 - F.max_pool2d(1 - mask_b1hw, side, 1, side // 2)
    return fatter_b1hw if rng.random() < 0.5 else thinner_b1hw


def prompt_from_mask(mask_bhw: Tensor, kind: str, rng: Rng) -> FirstFrame:
    """A prompt as a person would give it, from the truth 0/1 [B, S, S]: `mask`, a shaky `box`, or a `point` inside."""
    if kind == "mask":
        return FirstFrame(mask_b1hw=_redrawn(mask_bhw[:, None].float(), rng))
    points, labels = [], []
    for mask_hw in mask_bhw.cpu().numpy():
        ys, xs = np.nonzero(mask_hw)
        if kind == "point":
            pick = rng.integers(len(xs))
            points.append([[float(xs[pick]), float(ys[pick])]])
            labels.append([1])
        else:
            box = np.array([[xs.min(), ys.min()], [xs.max() + 1, ys.max() + 1]], np.float64)
            points.append(np.clip(box + rng.normal(0, 0.05, (2, 2)) * (box[1] - box[0]), 0, len(mask_hw)).tolist())
            labels.append([2, 3])
    points_bp2 = torch.tensor(points, dtype=torch.float32, device=mask_bhw.device)
    return FirstFrame(prompts=Prompts(points_bp2, torch.tensor(labels, device=mask_bhw.device), None))
