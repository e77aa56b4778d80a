"""F of DAVIS: the agreement of a mask's contour with the truth's, within a tolerance.

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation" (CVPR 2016), as computed
by the toolkit of DAVIS 2017: a contour pixel is right if the other contour is within the tolerance, a disk. Precision
is the share of the mask's contour that is right, recall that of the truth's contour, F their harmonic mean.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from ...base.types import BoolMask, ImageU8

TOLERANCE = 0.008  # times the frame's diagonal


def tolerance_px(height: int, width: int) -> int:
    """The radius of DAVIS's disk on a frame of this size, in pixels."""
    return math.ceil(TOLERANCE * math.hypot(height, width))


def contour(mask_hw: BoolMask) -> ImageU8:
    """1 at each pixel that differs from the one to its right, below, or diagonally below and right; uint8 [H, W].

    So a contour is one pixel wide and half a pixel up and left of the real border. The edge of the frame is repeated
    outside: an object that the frame cuts off has no contour there. The same as DAVIS's `seg2bmap`.
    """
    square = np.ones((2, 2), np.uint8)
    picture = np.ascontiguousarray(mask_hw).view(np.uint8)
    edge = cv2.morphologyEx(picture, cv2.MORPH_GRADIENT, square, anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(edge, np.uint8)


def boundary_f(truth_hw: BoolMask, mask_hw: BoolMask, radius: int) -> float:
    """F of a mask, bool [H, W], with a tolerance of `radius` pixels: 0 to 1.

    If only one of the two has a contour, F is 0; if neither has one it is 1, as in DAVIS. A mask that is empty or fills
    the whole frame has no contour.
    """
    truth_edge_hw, edge_hw = contour(truth_hw), contour(mask_hw)
    truth_length, length = int(np.count_nonzero(truth_edge_hw)), int(np.count_nonzero(edge_hw))
    if not truth_length or not length:
        return float(truth_length == length)
    precision = _near(edge_hw, truth_edge_hw, radius) / length
    recall = _near(truth_edge_hw, edge_hw, radius) / truth_length
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _near(edge_hw: ImageU8, other_hw: ImageU8, radius: int) -> int:
    """The number of pixels of a contour within `radius` of the other one."""
    across = np.arange(-radius, radius + 1)
    disk = (across[:, None] ** 2 + across**2 <= radius**2).astype(np.uint8)
    return int(np.count_nonzero(np.asarray(cv2.dilate(other_hw, disk), np.uint8) & edge_hw))
