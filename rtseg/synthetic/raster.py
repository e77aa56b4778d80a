"""The pixel grid, and small tables computed from a view. Both renderers use them, so that they agree.

Column i of a picture is at x = (i + 0.5 - width / 2) / unit, with the picture's short side as the unit.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from ..base.types import Float32, ImageU8
from .view import NODES, Place, Shadow, Sprite, Surround, View

Index = npt.NDArray[np.intp]
LIGHT_1 = 120  # 8-bit value of a light of 1; the largest light is 2.1
GAIN_1 = 120  # 8-bit value of a gain of 1
BLOOD_EDGE = 6000.0  # opacity levels for each unit of depth: steep, so that blood has a sharp edge
BLOOD_MOST = 225.0  # of 255: tissue shows through slightly
DROP_EDGE = 0.12  # share of a drop's radius over which it fades in
RIM_LIGHT, RIM_AT, RIM_WIDE = 36.0, 0.84, 0.14  # of a drop's rim: brightness (levels), radius and width (in radii)
GRAIN = 256  # pixels, after which the sensor's noise repeats


def unit_of(width: int, height: int) -> float:
    return float(min(width, height))


def cell_of(width: int, height: int) -> int:
    """Pixels between two nodes of the coarse grid, on which smooth fields are computed."""
    return max(4, 1 << max(0, int(math.log2(unit_of(width, height) / 36))))


@lru_cache(maxsize=16)
def _interpolation(length: int, unit: float, cell: int) -> tuple[Index, Float32]:
    """Positions of a picture's cells in a field, with a margin of one cell: the node before each, and the fraction."""
    centre = (np.arange(-1, math.ceil(length / cell) + 1) + 0.5) * cell
    node = np.clip(((centre - length / 2) / unit + 1) * (NODES - 1) / 2, 0, NODES - 1)
    before = np.minimum(node.astype(np.intp), NODES - 2)
    return before, (node - before).astype(np.float32)


def field_at_cells(view: View, width: int, height: int) -> Float32:
    """The view's field at the cells of a picture, with a margin of one cell, float32 [gh, gw, channels].

    Interpolated element by element: matrix products would start all BLAS threads, which then busy-wait on cores that
    a feed needs.
    """
    cell, unit = cell_of(width, height), unit_of(width, height)
    (row, down_h), (column, across_w) = _interpolation(height, unit, cell), _interpolation(width, unit, cell)
    down_hnc = view.field_hwc[row] + down_h[:, None, None] * (view.field_hwc[row + 1] - view.field_hwc[row])
    left_hwc = down_hnc[:, column]
    return np.asarray(left_hwc + across_w[:, None] * (down_hnc[:, column + 1] - left_hwc), np.float32)


def shadow_kernels(shadow: Shadow, unit: float, cell: int) -> tuple[Float32, Float32]:
    """Two correlation kernels (along x and y) that shift and soften the instruments' cells into their shadow."""
    reach = 4
    steps = np.arange(-reach, reach + 1)
    sigma = max(shadow.softness * unit / cell, 0.4)
    both = [np.exp(-0.5 * ((steps + shift * unit / cell) / sigma) ** 2) for shift in (shadow.dx, shadow.dy)]
    across, down = (np.asarray(k / max(k.sum(), 1e-6), np.float32) for k in both)
    return across, down


def blur_size(sigma: float) -> int:
    """The width of the sensor's blur kernel, which omits only negligible weights."""
    return 3 if sigma < 0.65 else 5


def blur_kernel(sigma: float) -> Float32:
    """The sensor's blur, as OpenCV computes it."""
    size = blur_size(sigma)
    weights = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
    return np.asarray(weights / weights.sum(), np.float32)


def pixel_place(sprite: Sprite, width: int, height: int) -> Place:
    """From a texture's (column, row) to a picture's, [2, 3]."""
    place = sprite.place * unit_of(width, height)
    place[:, 2] += (width / 2 - 0.5, height / 2 - 0.5)
    return place


@lru_cache(maxsize=32)
def surround_alpha(surround: Surround, width: int, height: int) -> ImageU8:
    """How much light passes the endoscope's tube, uint8 [H, W]; masks are cut where it is below 128."""
    unit = unit_of(width, height)
    x_w = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / unit - surround.x
    y_h = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / unit - surround.y
    away_hw = np.sqrt(x_w[None] ** 2 + y_h[:, None] ** 2)
    soft = max(surround.softness, 0.5 / unit)
    return np.clip(127.5 + 127.5 * (surround.radius - away_hw) / soft, 0, 255).astype(np.uint8)


@lru_cache(maxsize=2)
def _grain(grey: bool) -> Float32:
    rng = np.random.default_rng(7)
    luma_hwc = rng.standard_normal((GRAIN, GRAIN, 1))
    chroma_hwc = 0 if grey else cv2.GaussianBlur(1.4 * rng.standard_normal((GRAIN, GRAIN, 3)), (3, 3), 0.7)
    return np.asarray(0.85 * luma_hwc + chroma_hwc + np.zeros(3), np.float32)


@lru_cache(maxsize=64)
def grain(grey: bool, level: int) -> tuple[ImageU8, ImageU8]:
    """A sensor's noise of `level` levels, as values to add and to subtract, uint8 [GRAIN, GRAIN, 3] each."""
    noise_hwc = np.round(_grain(grey) * np.float32(level))
    return np.clip(noise_hwc, 0, 255).astype(np.uint8), np.clip(-noise_hwc, 0, 255).astype(np.uint8)


def drop_profile(r_hw: Float32) -> tuple[Float32, Float32]:
    """A drop's opacity (0 to 1) and its rim's light (levels), by the distance from its centre in radii."""
    cover_hw = np.clip((1 - r_hw) / DROP_EDGE, 0, 1)
    rim_hw = RIM_LIGHT * np.clip(1 - np.abs(r_hw - RIM_AT) / RIM_WIDE, 0, 1)
    return cover_hw.astype(np.float32), rim_hw.astype(np.float32)
