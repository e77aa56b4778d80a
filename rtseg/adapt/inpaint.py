"""What may have been behind an object that moves away: colour from around the hole, detail from elsewhere.

The colour is the normalised average over ever larger squares (push and pull, Gortler et al. 1996). It is smooth, which
tissue is not: so the detail of another part of the picture is added. Cheap enough to be done for each clip.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN = 5  # pixels around the hole that are left out, because edges of masks are never exact
DETAIL = 9  # side of the square whose average is taken from a picture to get its detail


def filled(image_3hw: Tensor, hole_hw: Tensor, shift: tuple[int, int]) -> Tensor:
    """The picture (uint8 [3, H, W]) with its hole (bool [H, W]) filled, uint8 [3, H, W].

    `shift` (down, across) is from where the detail comes, in pixels; there, too, the hole has none.
    """
    hole_11hw = _widened(hole_hw[None, None].float(), 2 * MARGIN + 1)
    image_13hw = image_3hw[None].float()
    color = _pull(image_13hw * (1 - hole_11hw), 1 - hole_11hw)
    detail = (image_13hw - _mean(image_13hw, DETAIL)) * (1 - _widened(hole_11hw, DETAIL))
    soft_11hw = _mean(hole_11hw, MARGIN)
    mixed = torch.lerp(image_13hw, color + detail.roll(shift, (2, 3)), soft_11hw)
    return mixed[0].clamp_(0, 255).to(torch.uint8)


def _widened(mask_11hw: Tensor, side: int) -> Tensor:
    """The mask, wider by `side` // 2 in all directions."""
    rows = F.max_pool2d(mask_11hw, (side, 1), 1, (side // 2, 0))
    return F.max_pool2d(rows, (1, side), 1, (0, side // 2))


def _mean(t_1chw: Tensor, side: int) -> Tensor:
    """The mean over squares of `side` pixels."""
    rows = F.avg_pool2d(t_1chw, (side, 1), 1, (side // 2, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, side // 2), count_include_pad=False)


def _pull(sum_13hw: Tensor, weight_11hw: Tensor) -> Tensor:
    """Values where the weight is 1, and averages from around elsewhere. `sum_13hw`: values times weight."""
    height, width = weight_11hw.shape[-2:]
    known = sum_13hw / weight_11hw.clamp(min=1e-6)
    if height == width == 1:
        return known
    half_sum, half_weight = (F.avg_pool2d(t, 2, ceil_mode=True) for t in (sum_13hw, weight_11hw))
    coarse = F.interpolate(_pull(half_sum, half_weight), size=(height, width), mode="bilinear", align_corners=False)
    return torch.lerp(coarse, known, weight_11hw)
