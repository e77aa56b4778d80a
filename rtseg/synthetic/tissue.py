"""Tissue: overlapping organs, painted once as one map of colour and gloss.

The smooth part (organs, their domes and the folds between them) is painted at a low resolution, the detail (lobules,
fibres, vessels, burns, threads) at full resolution. `TISSUE` is the extent of the map; the picture's short side is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ..base.types import Float32, ImageU8
from .grade import Grade
from .noise import Canvas, Rng, cells, noise
from .options import Site
from .vessels import burns, threads, vessels

TISSUE = (2.2, 1.5)  # width and height of the painted map, units
COARSE = 128.0  # pixels a unit, at least, of the smooth part
FOLD = np.array((0.40, 0.60, 0.58), np.float32)  # how much a fold darkens each channel: to dark red, not to black


@dataclass(frozen=True)
class Organ:
    """The appearance of a tissue: colour, and the amounts of lobules, fibres, vessels, mottling and gloss."""

    rgb: tuple[int, int, int]
    lobules: float = 0.0
    fibres: float = 0.0
    vessels: float = 0.5
    mottle: float = 0.08
    gloss: float = 1.0


LIVER = Organ((112, 34, 28), lobules=0.10, vessels=0.05, mottle=0.06, gloss=0.9)
GALLBLADDER = Organ((206, 166, 124), vessels=0.9, mottle=0.08, gloss=1.1)
FAT = Organ((232, 170, 88), lobules=0.26, vessels=0.5, mottle=0.07, gloss=0.7)
BOWEL = Organ((218, 142, 118), fibres=0.05, vessels=1.0, mottle=0.06, gloss=1.1)
PERITONEUM = Organ((198, 116, 100), fibres=0.03, vessels=0.8, mottle=0.09, gloss=0.9)
UTERUS = Organ((214, 128, 124), vessels=0.35, mottle=0.06, gloss=1.2)
STOMACH = Organ((226, 152, 136), fibres=0.04, vessels=0.8, mottle=0.07, gloss=1.0)
MUSCLE = Organ((150, 54, 46), fibres=0.22, vessels=0.2, mottle=0.08, gloss=0.6)
SPLEEN = Organ((96, 34, 52), lobules=0.05, vessels=0.1, mottle=0.05, gloss=1.2)
PORCINE = Organ((224, 186, 164), fibres=0.03, vessels=0.25, mottle=0.05, gloss=1.1)

LAYOUTS: dict[Site, tuple[Organ, tuple[Organ, ...]]] = {
    Site.GALLBLADDER: (PERITONEUM, (LIVER, GALLBLADDER, FAT, LIVER, STOMACH)),
    Site.BOWEL: (FAT, (BOWEL, BOWEL, FAT, PERITONEUM)),
    Site.PELVIS: (PERITONEUM, (UTERUS, BOWEL, FAT, UTERUS)),
    Site.STOMACH: (FAT, (STOMACH, SPLEEN, LIVER, PERITONEUM)),
    Site.WALL: (MUSCLE, (FAT, PERITONEUM, MUSCLE)),
    Site.PALE: (PORCINE, (PORCINE, FAT, PORCINE, STOMACH)),
}


@dataclass(frozen=True)
class _Bed:
    """The smooth part, float32, at a low resolution; channels first, which is faster in numpy."""

    colour_chw: Float32
    relief_hw: Float32
    detail_chw: Float32  # lobules, fibres, vessels, gloss


def _column(values: npt.ArrayLike) -> Float32:
    """One value for each channel, float32 [C, 1, 1]."""
    return np.array(values, np.float32)[:, None, None]


def _reach(rng: Rng, canvas: Canvas, wobble_hw: Float32) -> tuple[Float32, float]:
    """The distance of each pixel from an organ's axis, 1 at its edge, float32 [h, w]; and half its breadth in units."""
    x_w, y_h = canvas.grid()
    x, y = rng.uniform(-0.46, 0.46) * canvas.width, rng.uniform(-0.46, 0.46) * canvas.height
    tilt, kind = rng.uniform(0, math.pi), rng.random()
    along_hw = (x_w - x) * math.cos(tilt) + (y_h - y) * math.sin(tilt)
    across_hw = (y_h - y) * math.cos(tilt) - (x_w - x) * math.sin(tilt)
    if kind < 0.25:  # a lobe that reaches in from one side
        breadth = rng.uniform(0.25, 0.5)
        reach_hw = 1 + (across_hw + rng.uniform(-0.5, 0.5) * along_hw**2) / breadth
        return np.maximum(reach_hw + 0.10 * wobble_hw, 0).astype(np.float32), breadth
    if kind < 0.5:  # a tube, winding
        breadth, waves = rng.uniform(0.07, 0.17), rng.uniform(3, 7)
        wind_hw = rng.uniform(0.06, 0.18) * np.sin(waves * along_hw + rng.uniform(0, 6))
        narrow_hw = 1 + 0.12 * np.sin(rng.uniform(14, 30) * along_hw)  # haustra
        return (np.abs(across_hw + wind_hw) / (breadth * narrow_hw) + 0.08 * wobble_hw).astype(np.float32), breadth
    long, breadth, curve = rng.uniform(0.35, 0.9), rng.uniform(0.14, 0.36), rng.uniform(-0.6, 0.6)
    bent_hw = across_hw / breadth + curve * (along_hw / long) ** 2
    return (np.sqrt((along_hw / long) ** 2 + bent_hw**2) + 0.09 * wobble_hw).astype(np.float32), breadth


def _lay(rng: Rng, canvas: Canvas, site: Site) -> _Bed:
    base, others = LAYOUTS[site]
    h, w = canvas.shape
    wobble_hw, soft = noise(rng, canvas, 0.30, 2), max(0.012, 2.5 / canvas.detail)
    colour_chw = np.empty((3, h, w), np.float32)
    colour_chw[:] = _column(base.rgb)
    relief_hw = 0.07 * noise(rng, canvas, 0.6)
    detail_chw = np.empty((4, h, w), np.float32)
    detail_chw[:] = _column((base.lobules, base.fibres, base.vessels, base.gloss))
    colour_chw *= 1 + 1.6 * base.mottle * noise(rng, canvas, 0.22, 2)
    for _ in range(int(rng.integers(4, 8))):
        organ = others[int(rng.integers(len(others)))]
        reach_hw, breadth = _reach(rng, canvas, wobble_hw)
        rgb = np.array(organ.rgb) * rng.uniform(0.82, 1.1) * rng.uniform(0.95, 1.05, 3)
        round_hw = np.sqrt(np.clip(1 - reach_hw**2, 0, 1))
        inside_hw = np.clip((1 - reach_hw) * np.float32(breadth / soft), 0, 1)
        edge_hw = np.exp(np.clip(reach_hw - 1, 0, 20) * np.float32(-breadth / rng.uniform(0.02, 0.08)))
        fold_c11 = _column(FOLD * rng.uniform(0.35, 1.1))
        lit_chw = _column(rgb) * (1 - (1 - round_hw ** rng.uniform(0.5, 1.0)) * fold_c11)
        colour_chw *= 1 - edge_hw * fold_c11
        colour_chw += (lit_chw - colour_chw) * inside_hw
        own_c11 = _column((organ.lobules, organ.fibres, organ.vessels, organ.gloss))
        detail_chw += (own_c11 - detail_chw) * inside_hw
        relief_hw += (breadth * round_hw - relief_hw) * inside_hw
    return _Bed(colour_chw, relief_hw.astype(np.float32), detail_chw)


def _fine(rng: Rng, canvas: Canvas, bed: _Bed) -> tuple[Float32, Float32]:
    """Colour [3, H, W] and gloss [H, W], 0 to 255, at full resolution."""
    h, w = canvas.shape
    lobules_hw, fibres_hw, vessels_hw, gloss_hw = (cv2.resize(part_hw, (w, h)) for part_hw in bed.detail_chw)
    relief_hw = cv2.resize(bed.relief_hw, (w, h)) + np.float32(0.004) * noise(rng, canvas, 0.04, 3)
    lobes_hw = 0.5 * cells(rng, canvas, rng.uniform(0.035, 0.07)) + 0.5 * cells(rng, canvas, rng.uniform(0.010, 0.02))
    grain_hw = lobules_hw * (lobes_hw - 0.5) + fibres_hw * 0.5 * noise(rng, canvas, 0.012, 2, stretch=14)
    grain_hw += 0.055 * noise(rng, canvas, 0.10, 3) + 0.018 * noise(rng, canvas, 0.008, 2)
    vein_hw, net_hw = vessels(rng, canvas)
    blood_hw = np.clip(vessels_hw * (0.8 * vein_hw + net_hw), 0, 0.8)
    blood = (140, 26, 34) if rng.random() < 0.7 else (92, 44, 84)  # arteries, or veins
    scale = canvas.detail / 8
    dx_hw, dy_hw = (cv2.Sobel(relief_hw, cv2.CV_32F, dx, 1 - dx, scale=scale) for dx in (1, 0))
    facing_hw = 1 / np.sqrt(1 + np.minimum(dx_hw * dx_hw + dy_hw * dy_hw, 6))
    lean_hw = np.clip(0.10 * dx_hw + 0.16 * dy_hw, -0.25, 0.2) * facing_hw
    light_hw = (0.55 + 0.5 * facing_hw - lean_hw) * (1 + grain_hw)
    keep_hw, add_hw = light_hw * (1 - blood_hw), light_hw * blood_hw
    mixed = [
        np.asarray(cv2.resize(part_hw, (w, h)), np.float32) * keep_hw + add_hw * np.float32(value)
        for part_hw, value in zip(bed.colour_chw, blood, strict=True)
    ]
    size, rough = math.exp(rng.uniform(math.log(0.008), math.log(0.08))), rng.uniform(12, 30)  # of the glossy spots
    gloss_hw *= 146 * facing_hw * facing_hw * facing_hw + rough * noise(rng, canvas, size, 3)
    return np.stack(mixed), np.asarray(gloss_hw, np.float32)


def paint_tissue(seed: int, site: Site, grade: Grade, detail: float) -> ImageU8:
    """The tissue map of a seed, uint8 [H, W, 4]: colour under a light of 1, and gloss."""
    lay, fine, extra = (np.random.default_rng((seed, 1, k)) for k in range(3))
    canvas = Canvas(*TISSUE, detail)
    colour_chw, gloss_hw = _fine(fine, canvas, _lay(lay, Canvas(*TISSUE, min(detail, max(COARSE, 0.4 * detail))), site))
    burns(extra, canvas, colour_chw)
    threads(extra, canvas, colour_chw, many=site is Site.PALE)
    seen_hwc = grade(np.asarray(cv2.merge(list(colour_chw)), np.float32))
    painted_hwc = np.empty((*gloss_hw.shape, 4), np.uint8)
    np.clip(seen_hwc, 0, 255, out=painted_hwc[..., :3], casting="unsafe")
    np.clip(gloss_hw, 0, 255, out=painted_hwc[..., 3], casting="unsafe")
    return painted_hwc


def to_pixel(canvas: Canvas, points_nc: Float32) -> Float32:
    """Units from the map's centre to pixels of its texture, [..., 2]."""
    h, w = canvas.shape
    scale = np.array((w / canvas.width, h / canvas.height), np.float32)
    return np.asarray(
        (points_nc + np.array((canvas.width / 2, canvas.height / 2), np.float32)) * scale - 0.5, np.float32
    )
