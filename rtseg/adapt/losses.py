"""The loss of one frame's prediction: mask (focal and dice), predicted IoU, and object score.

The weights for fine-tuning are SAM 2's: 20, 1, 1, 1. Masks are compared at twice the decoder's resolution, 128 px for a
256 px network: a finer comparison would only measure the upsampling. `gamma` 0 with `alpha` 0.5 is plain cross-entropy,
which learns faster from scratch; fine-tuning uses 2 and 0.25.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class LossWeights:
    """The weight of each loss term; `gamma` and `alpha` are those of the focal loss."""

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    score: float = 1.0
    gamma: float = 2.0
    alpha: float = 0.25
    match: float = 0.0  # of `correspondence_loss`
    copied: float = 0.5  # of `copied_loss`


FINE_TUNING = LossWeights()
FROM_SCRATCH = LossWeights(focal=2.0, dice=1.0, gamma=0.0, alpha=0.5, match=0.2)
LOSSES = {"from-scratch": FROM_SCRATCH, "fine-tuning": FINE_TUNING}


def focal_loss(logits_bkhw: Tensor, target_bkhw: Tensor, gamma: float, alpha: float) -> Tensor:
    """The focal loss, [B, K], as the mean over pixels; targets may be soft."""
    cross = F.binary_cross_entropy_with_logits(logits_bkhw, target_bkhw, reduction="none")
    weight = alpha * target_bkhw + (1 - alpha) * (1 - target_bkhw)
    if gamma:
        prob = logits_bkhw.sigmoid()
        cross = cross * (prob * (1 - target_bkhw) + (1 - prob) * target_bkhw) ** gamma
    return (weight * cross).mean((-2, -1))


def dice_loss(logits_bkhw: Tensor, target_bkhw: Tensor) -> Tensor:
    """1 - Dice of soft predictions, [B, K]; 1 is added to numerator and denominator, so empty masks are finite."""
    prob = logits_bkhw.sigmoid()
    overlap = (prob * target_bkhw).sum((-2, -1))
    return 1 - (2 * overlap + 1) / (prob.sum((-2, -1)) + target_bkhw.sum((-2, -1)) + 1)


def hard_iou(logits_bkhw: Tensor, target_bkhw: Tensor) -> Tensor:
    """The IoU of the masks (logit > 0 against target > 0.5), [B, K]; 1 if both are empty."""
    mask, truth = logits_bkhw > 0, target_bkhw > 0.5
    both = (mask & truth).sum((-2, -1)).float()
    either = (mask | truth).sum((-2, -1)).float()
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)


def copied_loss(copied_bgg: Tensor, target_bhw: Tensor) -> Tensor:
    """The cross-entropy of copied masks (`Match`), 0 to 1, as a scalar."""
    target_bgg = F.adaptive_avg_pool2d(target_bhw[:, None].float(), (copied_bgg.shape[1], copied_bgg.shape[2]))[:, 0]
    return F.binary_cross_entropy(copied_bgg.float().clamp(1e-3, 1 - 1e-3), target_bgg)


def frame_loss(
    logits_bkhw: Tensor, iou_bk: Tensor, score_b: Tensor, target_bhw: Tensor, weights: LossWeights
) -> dict[str, Tensor]:
    """The weighted loss terms of one frame of B objects, as scalars: `mask`, `iou`, `score`.

    `logits_bkhw` [B, 4, h, w] holds the single-mask output and three candidates, of which only the best is trained;
    `target_bhw` is 0/1 [B, S, S]. Absent objects (empty target) contribute to the `score` term only.
    """
    up_bkhw = F.interpolate(logits_bkhw.float(), scale_factor=2, mode="bilinear", align_corners=False)
    target_b1hw = F.adaptive_avg_pool2d(target_bhw[:, None].float(), (up_bkhw.shape[-2], up_bkhw.shape[-1]))
    target_bkhw = target_b1hw.expand_as(up_bkhw)
    present_b = target_bhw.flatten(1).any(1).float()
    count = present_b.sum().clamp(min=1)
    cost_bk = weights.focal * focal_loss(up_bkhw, target_bkhw, weights.gamma, weights.alpha) + weights.dice * dice_loss(
        up_bkhw, target_bkhw
    )
    mask_b = cost_bk[:, 0] + cost_bk[:, 1:].amin(1)
    iou_b = (iou_bk.float() - hard_iou(up_bkhw.detach(), target_bkhw)).abs().mean(1)
    score = F.binary_cross_entropy_with_logits(score_b.float(), present_b)
    return {
        "mask": (mask_b * present_b).sum() / count,
        "iou": weights.iou * (iou_b * present_b).sum() / count,
        "score": weights.score * score,
    }
