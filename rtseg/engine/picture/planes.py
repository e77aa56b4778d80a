"""The definition of the network's input: a picture resized to a square and normalised, in numpy and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np

from ...base.types import Float32, ImageU8
from ...sam2 import MEAN, STD

SCALE = (1 / (255 * np.array(STD))).astype(np.float32)
SHIFT = (np.array(MEAN) / np.array(STD)).astype(np.float32)


def to_planes(image_hwc: ImageU8, size: int) -> Float32:
    """Convert a picture uint8 [H, W, 3] RGB to the network's input: a square, normalised, float32 [1, 3, S, S]."""
    height, width = image_hwc.shape[:2]
    # Area averaging preserves thin tools when the picture shrinks; when it grows, it is useless and slow.
    shrinks = height >= size and width >= size
    square_hwc = cv2.resize(image_hwc, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    planes_chw = np.empty((3, size, size), np.float32)
    for c in range(3):
        np.multiply(square_hwc[..., c], SCALE[c], out=planes_chw[c])
        planes_chw[c] -= SHIFT[c]
    return planes_chw[None]
