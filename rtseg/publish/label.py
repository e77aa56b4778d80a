"""The label beside an object: how it is drawn, and where it is placed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import cv2
import numpy as np

from ..base.colors import Rgb
from ..base.types import BoolMask, Float32, ImageU8
from .mask_state import Box

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SUPER = 4  # text is drawn this many times larger and averaged down: OpenCV's own small text is jagged
_DARK, _LIGHT = (14, 16, 20), (255, 255, 255)


def _lay_over(label_hwc: Float32, cover_hw: ImageU8, color: Rgb, opacity: float) -> None:
    """Blend a colour over a label, premultiplied RGBA float32 [h, w, 4] in 0..1, by the coverage `cover_hw`."""
    alpha_hw1 = (cover_hw * np.float32(opacity / 255))[..., None]
    source_c = np.array([*(c / 255 for c in color), 1], np.float32)
    label_hwc *= 1 - alpha_hw1
    label_hwc += alpha_hw1 * source_c


@lru_cache(maxsize=128)
def render_label(text: str, color: Rgb, height: int) -> ImageU8:
    """A label `height` pixels high: premultiplied RGBA, uint8 [height, w, 4]."""
    tall = height * _SUPER
    scale, thick = tall / 44, max(1, round(tall / 20))
    (text_width, cap), _ = cv2.getTextSize(text, _FONT, scale, thick)
    edge = tall // 3
    wide = -(-(2 * edge + text_width) // _SUPER) * _SUPER
    text_hw = np.zeros((tall, wide), np.uint8)
    cv2.putText(text_hw, text, (edge + tall // 12, (tall + cap) // 2), _FONT, scale, 255, thick, cv2.LINE_AA)
    halo_hw = np.asarray(cv2.dilate(text_hw, np.ones((_SUPER + 1, _SUPER + 1), np.uint8)), np.uint8)
    panel_hw = np.full((tall, wide), 255, np.uint8)
    strip_hw = np.zeros((tall, wide), np.uint8)
    strip_hw[:, : tall // 5] = 255

    def small(image_hw: ImageU8) -> ImageU8:
        return np.asarray(cv2.resize(image_hw, (wide // _SUPER, height), interpolation=cv2.INTER_AREA), np.uint8)

    label_hwc = np.zeros((height, wide // _SUPER, 4), np.float32)
    _lay_over(label_hwc, small(panel_hw), _DARK, 0.6)
    _lay_over(label_hwc, small(halo_hw), _DARK, 0.8)
    _lay_over(label_hwc, small(text_hw), _LIGHT, 1.0)
    _lay_over(label_hwc, small(strip_hw), color, 1.0)
    return np.asarray(np.rint(label_hwc * 255), np.uint8)


def blend_label(image_hwc: ImageU8, label_hwc: ImageU8, box: Box) -> None:
    """Blend a label into the picture, in place, only inside `box`."""
    x0, y0, x1, y1 = box
    under_hwc = image_hwc[y0:y1, x0:x1]
    over_hwc = label_hwc[: y1 - y0, : x1 - x0]
    clear_hw1 = 255 - over_hwc[..., 3:].astype(np.uint16)
    under_hwc[...] = np.minimum(over_hwc[..., :3] + (under_hwc * clear_hw1 + 127) // 255, 255)


def _overlap(a: Box, b: Box) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _beside(mask_hw: BoolMask, box: Box, width: int, height: int, gap: int) -> Iterator[tuple[int, int]]:
    """Top-left corners for a label, best first: above the object's top pixel, below, right, left, at its corners."""
    x0, y0, x1, y1 = box
    top, bottom = (int(np.flatnonzero(mask_hw[y, x0:x1]).mean()) + x0 for y in (y0, y1 - 1))
    left, right = (int(np.flatnonzero(mask_hw[y0:y1, x]).mean()) + y0 for x in (x0, x1 - 1))
    yield top - width // 2, y0 - height - gap
    yield bottom - width // 2, y1 + gap
    yield x1 + gap, right - height // 2
    yield x0 - width - gap, left - height // 2
    yield from ((x, y) for y in (y0, y1 - height) for x in (x0, x1 - width))


def place_label(
    mask_hw: BoolMask, box: Box, size: tuple[int, int], taken: Sequence[Box], masks: Sequence[BoolMask]
) -> Box:
    """The box of a label of (width, height) `size`: near its mask, inside the picture, off other labels and off masks.

    `box`: the bounding box of `mask_hw`. `taken`: the boxes of labels already placed.
    """
    rows, columns = mask_hw.shape
    width, height = min(size[0], columns), min(size[1], rows)

    def inside(corner: tuple[int, int]) -> Box:
        x, y = min(max(corner[0], 0), columns - width), min(max(corner[1], 0), rows - height)
        return x, y, x + width, y + height

    def cost(b: Box) -> tuple[int, int]:
        hidden = sum(int(np.count_nonzero(m[b[1] : b[3], b[0] : b[2]])) for m in masks)
        return sum(_overlap(b, t) for t in taken), hidden

    best = min(map(inside, _beside(mask_hw, box, width, height, height // 4)), key=cost)
    if cost(best)[0] == 0:
        return best
    ys = sorted(range(0, rows, height + 1), key=lambda y: abs(y - box[1]))
    return min((inside((x, y)) for y in ys for x in (box[0], 0, columns)), key=lambda b: cost(b)[0])
