"""What tells the inside of a body from anything else, as numbers of one small picture.

Colour (tissue is red to yellow, and little else is there), the surround (an endoscope's picture may be a disc), how
light falls off towards its rim, and texture. All of them are measured on 96 x 72 pixels, inside the lit part of the
picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ...base.types import BoolMask, Float32, ImageU8

SIZE = (96, 72)  # width and height of the small picture
DARK = 26  # grey levels: a pixel whose brightest channel is not above this is not lit
LIT = 0.06  # the share of the picture that has to be lit
COLOURED = 0.06  # the saturation that the most saturated tenth of the lit part has to reach: less is a grey camera
BLOCKS = (8, 6)  # columns and rows: what a part of the picture shows, not only all of it
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NAMES = (
    "lit", "lit_corners", "hull", "centre",
    *(f"{name}_q{int(100 * q)}" for name in ("rg", "bg", "saturation", "grey") for q in _QUANTILES),
    "warm", "red", "yellow", "green", "blue", "neutral", "overexposed", "spread_rg", "spread_bg",
    "foreign_blocks", "foreign_worst", "rg_by_light", "bg_by_light", "rg_fine", "bg_fine",
    "brightest_rg", "brightest_bg",
    "blocks_rg", "blocks_bg", "falloff", "fine", "coarse", "fine_to_coarse", "straight", "flat", "glints",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """The numbers of one picture, `numbers_n` in the order of `NAMES`, or `why` it cannot be judged."""

    numbers_n: Float32
    why: str = ""


def small(image_hwc: ImageU8) -> ImageU8:
    """The picture, uint8 RGB [H, W, 3], averaged to 72 x 96 pixels."""
    return np.asarray(cv2.resize(image_hwc, SIZE, interpolation=cv2.INTER_AREA), np.uint8)


def lit_part(small_hwc: ImageU8) -> BoolMask:
    """The lit part [H, W]: the largest region that is not dark, with its holes, without what lies beside it."""
    bright_hw = (small_hwc.max(2) > DARK).astype(np.uint8)
    bright_hw = cv2.morphologyEx(bright_hw, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))  # thin things are text
    count, labels_hw, stats, _ = cv2.connectedComponentsWithStats(bright_hw, connectivity=4)
    if count < 2:
        return np.zeros(bright_hw.shape, np.bool_)
    largest_hw = (labels_hw == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    contours, _ = cv2.findContours(largest_hw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return np.asarray(cv2.drawContours(largest_hw, contours, -1, 1, cv2.FILLED) > 0)


def looks(image_hwc: ImageU8) -> Looks:
    """The numbers of a picture, uint8 RGB [H, W, 3]."""
    small_hwc = small(image_hwc)
    lit_hw = lit_part(small_hwc)
    if lit_hw.mean() < LIT:
        return Looks(np.zeros(len(NAMES), np.float32), "dark")
    inside_hw = cv2.erode(lit_hw.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    colour = _colour(small_hwc, inside_hw)
    if colour is None:
        return Looks(np.zeros(len(NAMES), np.float32), "grey")
    grey_hw = cv2.cvtColor(small_hwc, cv2.COLOR_RGB2GRAY).astype(np.float32)
    numbers = [*_surround(lit_hw), *colour, _falloff(grey_hw, inside_hw), *_texture(grey_hw, inside_hw)]
    return Looks(np.asarray(numbers, np.float32))


def _surround(lit_hw: BoolMask) -> list[float]:
    """The share that is lit, of the corners, of the hull that the lit part fills, and how far off centre it is."""
    height, width = lit_hw.shape
    side = height // 8
    corners = [
        lit_hw[y, x].mean() for y in (slice(side), slice(-side, None)) for x in (slice(side), slice(-side, None))
    ]
    points = cv2.findNonZero(lit_hw.astype(np.uint8))
    hull = float(cv2.contourArea(cv2.convexHull(points))) if points is not None else 0.0
    y, x = (index.mean() for index in np.nonzero(lit_hw))
    off = float(np.hypot(x / width - 0.5, y / height - 0.5))
    return [float(lit_hw.mean()), float(np.mean(corners)), min(2.0, float(lit_hw.sum()) / max(hull, 1.0)), off]


def _colour(small_hwc: ImageU8, inside_hw: BoolMask) -> list[float] | None:
    """Numbers of the colours of the lit part; None if it has none."""
    red_hw, green_hw, blue_hw = (small_hwc[..., c].astype(np.float32) + 4 for c in range(3))  # 4: noise of dark pixels
    rg_hw, bg_hw = np.log(red_hw / green_hw), np.log(blue_hw / green_hw)
    top_hw, low_hw = small_hwc.max(2).astype(np.float32), small_hwc.min(2).astype(np.float32)
    saturation_hw = (top_hw - low_hw) / (top_hw + 16)
    judged_hw = inside_hw & (top_hw > DARK)
    if judged_hw.sum() < 64 or np.quantile(saturation_hw[judged_hw], 0.9) < COLOURED:
        return None
    grey_hw = np.asarray(cv2.cvtColor(small_hwc, cv2.COLOR_RGB2GRAY), np.uint8)
    rg, bg, saturation = rg_hw[judged_hw], bg_hw[judged_hw], saturation_hw[judged_hw]
    spread = [float(q) for v in (rg, bg, saturation, grey_hw[inside_hw] / 255.0) for q in np.quantile(v, _QUANTILES)]
    warm_hw = (rg_hw > 0.12) & (rg_hw > bg_hw + 0.08)
    neutral_hw = (np.abs(rg_hw) < 0.12) & (np.abs(bg_hw) < 0.12)
    kinds = [
        warm_hw, (rg_hw > 0.4) & (bg_hw > -0.25), (rg_hw > 0.05) & (bg_hw < -0.25),
        (rg_hw < -0.05) & (bg_hw < 0), (bg_hw > 0.08) & (bg_hw > rg_hw), neutral_hw,
    ]  # fmt: skip
    over = float((low_hw[inside_hw] > 240).mean())
    foreign = _by_block((~warm_hw & ~neutral_hw & judged_hw).astype(np.float32), judged_hw)
    shares = [float(kind_hw[judged_hw].mean()) for kind_hw in kinds]
    own = [over, float(rg.std()), float(bg.std()), float((foreign > 0.5).mean()), float(foreign.max())]
    return [*spread, *shares, *own, *_tissue(rg_hw, bg_hw, grey_hw, judged_hw)]


def _tissue(rg_hw: Float32, bg_hw: Float32, grey_hw: ImageU8, judged_hw: BoolMask) -> list[float]:
    """What light does in tissue: it is redder where there is less; colour varies finely; highlights are white."""
    light = np.log(grey_hw[judged_hw].astype(np.float32) + 8)
    light -= light.mean()
    brightest = light >= np.partition(light, -max(2, len(light) // 50))[-max(2, len(light) // 50)]
    by_light, fine, highlights, blocks = [], [], [], []
    weight_hw = judged_hw.astype(np.float32)
    there = cv2.resize(weight_hw, BLOCKS, interpolation=cv2.INTER_AREA)
    for hue_hw in (rg_hw, bg_hw):
        hue = hue_hw[judged_hw]
        by_light.append(float((light * (hue - hue.mean())).mean() / (light.std() * hue.std() + 1e-3)))
        fine.append(float(np.abs(hue_hw - cv2.GaussianBlur(hue_hw, (0, 0), 1.5))[judged_hw].mean()))
        highlights.append(float(hue[brightest].mean()))
        means = cv2.resize(hue_hw * weight_hw, BLOCKS, interpolation=cv2.INTER_AREA)[there > 0.3] / there[there > 0.3]
        blocks.append(float(means.std()) if len(means) else 0.0)
    return [*by_light, *fine, *highlights, *blocks]


def _by_block(of_hw: Float32, judged_hw: BoolMask) -> Float32:
    """The share of `of_hw` among the judged pixels of each block that has enough of them."""
    there = cv2.resize(judged_hw.astype(np.float32), BLOCKS, interpolation=cv2.INTER_AREA).ravel()
    found = cv2.resize(of_hw, BLOCKS, interpolation=cv2.INTER_AREA).ravel()
    return np.asarray(np.where(there > 0.3, found / np.maximum(there, 1e-3), 0), np.float32)


def _falloff(grey_hw: Float32, inside_hw: BoolMask) -> float:
    """How the logarithm of the light goes with the distance from the centre: an endoscope carries its own lamp."""
    (y, x), light = np.nonzero(inside_hw), np.log(grey_hw[inside_hw] + 8)
    away = np.hypot(x - x.mean(), y - y.mean())
    return float(((away - away.mean()) * (light - light.mean())).mean() / (away.std() * light.std() + 1e-3))


def _texture(grey_hw: Float32, inside_hw: BoolMask) -> list[float]:
    """Contrast at two scales, their ratio, how straight edges are, how much is flat, and how much glints."""
    smooth_hw = cv2.GaussianBlur(grey_hw, (0, 0), 1.0)
    wide_hw = cv2.GaussianBlur(grey_hw, (0, 0), 4.0)
    fine_hw, coarse_hw = np.abs(grey_hw - smooth_hw), np.abs(smooth_hw - wide_hw)
    mean = float(grey_hw[inside_hw].mean()) + 16
    fine, coarse = float(fine_hw[inside_hw].mean()) / mean, float(coarse_hw[inside_hw].mean()) / mean
    dx_hw, dy_hw = cv2.Sobel(smooth_hw, cv2.CV_32F, 1, 0), cv2.Sobel(smooth_hw, cv2.CV_32F, 0, 1)
    dx, dy = dx_hw[inside_hw], dy_hw[inside_hw]
    strength = np.hypot(dx, dy)
    # The directions of edges, weighted: one for each 10 degrees. Man-made things have few of them.
    bins = (np.degrees(np.arctan2(dy, dx)) % 180 / 10).astype(np.int64).clip(0, 17)
    share = np.bincount(bins, strength, 18) / (strength.sum() + 1e-3)
    straight = float(np.sort(share)[-3:].sum())
    flat = float((strength < 0.03 * mean).mean())
    glints = float(((grey_hw > wide_hw + 50) & inside_hw).sum() / inside_hw.sum())
    return [fine, coarse, fine / (coarse + 1e-3), straight, flat, glints]
