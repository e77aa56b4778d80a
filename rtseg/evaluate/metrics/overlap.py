"""The overlap of a mask with the truth: areas, Dice and IoU."""

from __future__ import annotations

import cv2
import numpy as np

from ...base.types import BoolMask


def areas(truth_hw: BoolMask, mask_hw: BoolMask) -> tuple[int, int, int]:
    """The number of pixels of the truth, of the mask, and of both at once. Both are bool [H, W]."""
    both = np.count_nonzero(truth_hw & mask_hw)
    return int(np.count_nonzero(truth_hw)), int(np.count_nonzero(mask_hw)), int(both)


def dice(truth_area: int, mask_area: int, overlap_area: int) -> float:
    """2 |A and B| / (|A| + |B|); 1 if both are empty."""
    total = truth_area + mask_area
    return 2 * overlap_area / total if total else 1.0


def iou(truth_area: int, mask_area: int, overlap_area: int) -> float:
    """|A and B| / |A or B|, the Jaccard index, J of DAVIS; 1 if both are empty."""
    union = truth_area + mask_area - overlap_area
    return overlap_area / union if union else 1.0


def window(truth_hw: BoolMask, mask_hw: BoolMask) -> tuple[slice, slice]:
    """The rows and columns of the smallest window with both masks and, inside the frame, one pixel around them.

    Every figure of this folder is the same in this window as on the whole frame, and computed sooner.
    """
    height, width = truth_hw.shape
    x, y, w, h = cv2.boundingRect((truth_hw | mask_hw).view(np.uint8))
    return slice(max(y - 1, 0), min(y + h + 1, height)), slice(max(x - 1, 0), min(x + w + 1, width))
