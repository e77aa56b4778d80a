"""Rivals: the components that the network's rival masks show outside the chosen mask."""

from __future__ import annotations

import cv2
import numpy as np

from ..base.types import BoolMask, Float32


def area_and_rival_overlap(logits_hw: Float32, rivals_khw: Float32) -> tuple[int, float]:
    """`MaskQuality.area` and `MaskQuality.rival_overlap` of a mask, from its logits and those of its rival masks.

    A rival is the largest connected component of a rival mask outside the mask. Its overlap is the area of the mask's
    box divided by that of the box around both. The smallest overlap of all rivals counts; it is 1 if there are none.
    """
    mask_hw = logits_hw > 0
    overlap = 1.0
    for outside_hw in (rivals_khw > 0) & ~mask_hw:
        components, labels_hw, stats, _ = cv2.connectedComponentsWithStats(outside_hw.astype(np.uint8))
        if components > 1 and mask_hw.any():
            largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
            overlap = min(overlap, _box_area(mask_hw) / _box_area(mask_hw | (labels_hw == largest)))
    return int(np.count_nonzero(mask_hw)), overlap


def _box_area(mask_hw: BoolMask) -> int:
    _, _, width, height = cv2.boundingRect(mask_hw.astype(np.uint8))
    return int(width * height)
