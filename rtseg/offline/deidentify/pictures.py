"""What takes the place of a picture that is hidden, or of a part of one. Neither can be undone.

A hidden picture becomes 8 x 6 colours of 16 levels each, drawn soft. All frames of a hidden stretch have the colours of
its first, so that a moving camera does not give many views of one thing, from which a sharper picture could be
calculated. Text becomes black.
"""

from __future__ import annotations

import cv2
import numpy as np

from ...base.types import BoolMask, ImageU8

GRID = (8, 6)  # columns and rows of colours
LEVELS = 16  # of each colour


def reduced(image_hwc: ImageU8) -> ImageU8:
    """All that is kept of a hidden picture, uint8 [6, 8, 3]: the mean colours of its cells, in 16 levels."""
    mean_hwc = cv2.resize(image_hwc, GRID, interpolation=cv2.INTER_AREA)
    step = 256 // LEVELS
    return np.asarray(mean_hwc // step * step + step // 2, np.uint8)


def blurred(colours_hwc: ImageU8, height: int, width: int) -> ImageU8:
    """The picture, uint8 [height, width, 3], of what `reduced` kept."""
    soft_hwc = cv2.resize(colours_hwc, (16 * GRID[0], 16 * GRID[1]), interpolation=cv2.INTER_LINEAR)
    soft_hwc = cv2.GaussianBlur(soft_hwc, (0, 0), 10.0)
    return np.asarray(cv2.resize(soft_hwc, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def blackened(image_hwc: ImageU8, cells_hw: BoolMask) -> ImageU8:
    """A copy of the picture in which the cells are black; `cells_hw` has any size."""
    height, width = image_hwc.shape[:2]
    mask_hw = cv2.resize(cells_hw.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    masked_hwc = image_hwc.copy()
    masked_hwc[mask_hw > 0] = 0
    return masked_hwc
