"""What a person would say, made from the truth: masks, boxes, points, and clicks where the network is wrong.

All of it happens on the device, for all objects at once; `generator` draws.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sam2 import CLAMP_LOGIT, PromptBatch

SHAKE = 0.05  # of a box's sides: how far off its corners are drawn


def redrawn(mask_bhw: Tensor, fatter: float) -> Tensor:
    """The masks [b, 1, S, S] as another hand might have drawn them: all fatter, or thinner, by so many pixels."""
    mask_b1hw = mask_bhw[:, None].float()
    side = 2 * abs(round(fatter)) + 1
    if side == 1:
        return mask_b1hw
    if fatter > 0:
        return F.max_pool2d(mask_b1hw, side, 1, side // 2)
    thinner_b1hw = 1 - F.max_pool2d(1 - mask_b1hw, side, 1, side // 2)
    return torch.where(thinner_b1hw.flatten(1).any(1).view(-1, 1, 1, 1), thinner_b1hw, mask_b1hw)


def box(mask_bhw: Tensor, generator: torch.Generator) -> PromptBatch:
    """A shaky box around each object, as SAM's two corner points."""
    size = mask_bhw.shape[-1]
    sides = []
    for axis in (1, 2):  # columns of pixels, then rows
        line_bs = mask_bhw.any(axis)
        first_b = line_bs.int().argmax(1)
        last_b = size - line_bs.flip(1).int().argmax(1)
        sides.append(torch.stack((first_b, last_b), 1).float())
    box_b22 = torch.stack(sides, 2)  # [b, corner, (x, y)]
    extent_b12 = box_b22[:, 1:] - box_b22[:, :1]
    shaken = box_b22 + SHAKE * extent_b12 * torch.randn(box_b22.shape, generator=generator, device=mask_bhw.device)
    labels_bp = torch.tensor([2, 3], device=mask_bhw.device).expand(len(mask_bhw), 2)
    return PromptBatch(shaken.clamp(0, size), labels_bp)


def points(mask_bhw: Tensor, generator: torch.Generator, count: int = 1) -> PromptBatch:
    """Points somewhere inside each object, given at once."""
    at_bp2 = torch.stack([_anywhere(mask_bhw, generator) for _ in range(count)], 1)
    return PromptBatch(at_bp2, torch.ones(len(mask_bhw), count, dtype=torch.int64, device=mask_bhw.device))


def correction(
    before: PromptBatch, logits_b1hw: Tensor, mask_bhw: Tensor, generator: torch.Generator, clicks: int = 1
) -> PromptBatch:
    """`before` and some clicks more, where the mask at hand (logits [b, 1, 4g, 4g]) differs from the truth.

    A click says object or background, as the truth does there; where nothing differs it is inside the object.
    """
    scale = mask_bhw.shape[-1] // logits_b1hw.shape[-1]
    truth_bhw = F.avg_pool2d(mask_bhw[:, None].float(), scale)[:, 0] > 0.5
    wrong_bhw = (logits_b1hw[:, 0] > 0) != truth_bhw
    any_b11 = wrong_bhw.flatten(1).any(1)[:, None, None]
    where_bhw = torch.where(any_b11, wrong_bhw, truth_bhw)
    at_bp2 = torch.stack([_anywhere(where_bhw, generator) for _ in range(clicks)], 1)
    rows_b1 = torch.arange(len(at_bp2), device=at_bp2.device)[:, None]
    label_bp = truth_bhw[rows_b1, at_bp2[..., 1].long(), at_bp2[..., 0].long()].long()
    at_bp2 = (at_bp2 + 0.5) * scale - 0.5
    return PromptBatch(
        torch.cat((before.points_bpc, at_bp2), 1),
        torch.cat((before.labels_bp, label_bp), 1),
        logits_b1hw.detach().clamp(-CLAMP_LOGIT, CLAMP_LOGIT),
    )


def _anywhere(inside_bhw: Tensor, generator: torch.Generator) -> Tensor:
    """A random pixel (x, y) of each mask, [b, 2]; of the picture, where a mask is empty."""
    width = inside_bhw.shape[-1]
    # The largest of uniform numbers, of which those outside are no candidates: one draw, and no wait for the host.
    draw_bhw = torch.rand(inside_bhw.shape, generator=generator, device=inside_bhw.device)
    pick_b = torch.where(inside_bhw.bool(), draw_bhw, -draw_bhw).flatten(1).argmax(1)
    return torch.stack((pick_b % width, pick_b // width), 1).float()
