"""Simulated prompts, derived from the true masks: masks, boxes, points, and clicks where the network is wrong.

All functions work on the device, for B objects at once; `generator` draws the random numbers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sam2 import CLAMP_LOGIT, PromptBatch

BOX_JITTER = 0.1  # a box's corners deviate by up to this share of its sides, each box by its own standard deviation
CENTRAL = 0.5  # probability that the first point is where the object is thickest, as a careful person clicks
COARSE = 8  # pixels per cell of the map on which the thickest place is looked for
STEPS = 12  # of erosion of that map


def resized_masks(mask_bhw: Tensor, pixels: float) -> Tensor:
    """The masks [b, S, S] as another annotator might draw them, [b, 1, S, S]: dilated by `pixels`, or eroded if < 0.

    A mask that erosion would remove stays as it is.
    """
    mask_b1hw = mask_bhw[:, None].float()
    side = 2 * abs(round(pixels)) + 1
    if side == 1:
        return mask_b1hw
    if pixels > 0:
        return F.max_pool2d(mask_b1hw, side, 1, side // 2)
    eroded_b1hw = 1 - F.max_pool2d(1 - mask_b1hw, side, 1, side // 2)
    return torch.where(eroded_b1hw.flatten(1).any(1).view(-1, 1, 1, 1), eroded_b1hw, mask_b1hw)


def box_prompts(mask_bhw: Tensor, generator: torch.Generator) -> PromptBatch:
    """A jittered bounding box of each object, as SAM's two corner points."""
    size = mask_bhw.shape[-1]
    sides = []
    for axis in (1, 2):  # columns of pixels, then rows
        line_bs = mask_bhw.any(axis)
        first_b = line_bs.int().argmax(1)
        last_b = size - line_bs.flip(1).int().argmax(1)
        sides.append(torch.stack((first_b, last_b), 1).float())
    box_b22 = torch.stack(sides, 2)  # [b, corner, (x, y)]
    extent_b12 = box_b22[:, 1:] - box_b22[:, :1]
    noise_b22 = torch.randn(box_b22.shape, generator=generator, device=mask_bhw.device)
    spread_b11 = BOX_JITTER * torch.rand((len(box_b22), 1, 1), generator=generator, device=mask_bhw.device)
    jittered_b22 = box_b22 + spread_b11 * extent_b12 * noise_b22
    labels_bp = torch.tensor([2, 3], device=mask_bhw.device).expand(len(mask_bhw), 2)
    return PromptBatch(jittered_b22.clamp(0, size), labels_bp)


def point_prompts(mask_bhw: Tensor, generator: torch.Generator, count: int = 1) -> PromptBatch:
    """`count` points inside each object; the first is at times where the object is thickest, the others are random."""
    at_bp2 = torch.stack([_random_pixel(mask_bhw, generator) for _ in range(count)], 1)
    central_b = torch.rand(len(mask_bhw), generator=generator, device=mask_bhw.device) < CENTRAL
    at_bp2[:, 0] = torch.where(central_b[:, None], _thickest_pixel(mask_bhw), at_bp2[:, 0])
    return PromptBatch(at_bp2, torch.ones(len(mask_bhw), count, dtype=torch.int64, device=mask_bhw.device))


def corrected_prompts(
    before: PromptBatch, logits_b1hw: Tensor, mask_bhw: Tensor, generator: torch.Generator, clicks: int = 1
) -> PromptBatch:
    """`before` plus `clicks` clicks where the predicted mask (logits [b, 1, 4g, 4g]) differs from the true one.

    A click's label is the true mask's value there. If the masks do not differ, the click is inside the object.
    """
    scale = mask_bhw.shape[-1] // logits_b1hw.shape[-1]
    truth_bhw = F.avg_pool2d(mask_bhw[:, None].float(), scale)[:, 0] > 0.5
    wrong_bhw = (logits_b1hw[:, 0] > 0) != truth_bhw
    any_b11 = wrong_bhw.flatten(1).any(1)[:, None, None]
    where_bhw = torch.where(any_b11, wrong_bhw, truth_bhw)
    at_bp2 = torch.stack([_random_pixel(where_bhw, generator) for _ in range(clicks)], 1)
    rows_b1 = torch.arange(len(at_bp2), device=at_bp2.device)[:, None]
    label_bp = truth_bhw[rows_b1, at_bp2[..., 1].long(), at_bp2[..., 0].long()].long()
    at_bp2 = (at_bp2 + 0.5) * scale - 0.5
    return PromptBatch(
        torch.cat((before.points_bpc, at_bp2), 1),
        torch.cat((before.labels_bp, label_bp), 1),
        logits_b1hw.detach().clamp(-CLAMP_LOGIT, CLAMP_LOGIT),
    )


def _random_pixel(mask_bhw: Tensor, generator: torch.Generator) -> Tensor:
    """A random pixel (x, y) of each mask, [b, 2]; of the whole image if a mask is empty."""
    width = mask_bhw.shape[-1]
    # The pixel with the largest random number, negated outside the mask: one draw, without waiting for the device.
    draw_bhw = torch.rand(mask_bhw.shape, generator=generator, device=mask_bhw.device)
    pick_b = torch.where(mask_bhw.bool(), draw_bhw, -draw_bhw).flatten(1).argmax(1)
    return torch.stack((pick_b % width, pick_b // width), 1).float()


def _thickest_pixel(mask_bhw: Tensor) -> Tensor:
    """The pixel (x, y) of each mask that is farthest from its edge and from the image's, [b, 2], to half a cell."""
    depth_b1hw = F.avg_pool2d(mask_bhw[:, None].float(), COARSE)
    left_b1hw = (depth_b1hw > 0.99).float()
    for _ in range(STEPS):
        depth_b1hw = depth_b1hw + left_b1hw
        left_b1hw = 1 - F.max_pool2d(F.pad(1 - left_b1hw, (1, 1, 1, 1), value=1.0), 3, 1)
    # Of many cells of one depth, one in the middle: the mean depth around it is the greatest.
    depth_b1hw = depth_b1hw + 0.1 * F.avg_pool2d(depth_b1hw, 5, 1, 2)
    width = depth_b1hw.shape[-1]
    pick_b = depth_b1hw.flatten(1).argmax(1)
    return _nearest_inside(mask_bhw, torch.stack((pick_b % width, pick_b // width), 1) * COARSE)


def _nearest_inside(mask_bhw: Tensor, corner_b2: Tensor) -> Tensor:
    """The pixel (x, y) of each mask nearest to the middle of a cell, whose first pixel is given, [b, 2]."""
    side = torch.arange(COARSE, device=mask_bhw.device)
    at_n2 = torch.cartesian_prod(side, side)
    at_n2 = at_n2[(at_n2 - COARSE // 2).square().sum(1).argsort()]
    pixel_bn2 = corner_b2[:, None] + at_n2
    rows_b1 = torch.arange(len(mask_bhw), device=mask_bhw.device)[:, None]
    first_b = mask_bhw[rows_b1, pixel_bn2[..., 1], pixel_bn2[..., 0]].int().argmax(1)
    return pixel_bn2[rows_b1[:, 0], first_b].float()
