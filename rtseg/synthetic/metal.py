"""Tools for painting instruments: a plate to paint on, and the shading of metal under a lamp beside the lens.

The lamp points where the camera points, so a surface is bright where it faces the camera, in any pose of the
instrument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ..base.types import Float32, ImageU8
from .grade import Grade
from .looks import Rgb
from .noise import Canvas, Rng, noise
from .view import Place

SHIFT = 4  # fractional bits of OpenCV's drawing


@dataclass(frozen=True, eq=False)
class Piece:
    """A painted rigid piece, uint8 [h, w, 4]. It rotates about (column, row) `pin`; `per_unit`: pixels a unit."""

    texture_hwc: ImageU8
    pin: tuple[float, float]
    per_unit: tuple[float, float]

    def place(self, x: float, y: float, angle: float, across: float = 1.0, scale: float = 1.0) -> Place:
        """The transform [2, 3] from pixels to units, with the pin at (x, y); `across` squeezes it towards its axis."""
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        turn = np.array([[cos, -sin * across], [sin, cos * across]]) / np.array(self.per_unit)
        return np.column_stack([turn, np.array((x, y)) - turn @ np.array(self.pin)])


@dataclass(frozen=True)
class Plate:
    """An empty piece from (`left`, -`half`) to (`right`, `half`) about its pin, in widths of the shaft."""

    left: float
    right: float
    half: float
    width: float  # units of one width
    detail: tuple[float, float]  # pixels a unit, along and across

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels a width, along and across."""
        return self.width * self.detail[0], self.width * self.detail[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels, with a margin of two, so that alpha ends inside."""
        return math.ceil(2 * self.half * self.scale[1]) + 4, math.ceil((self.right - self.left) * self.scale[0]) + 4

    @property
    def pin(self) -> tuple[float, float]:
        return 2 - self.left * self.scale[0], (self.shape[0] - 1) / 2

    def grid(self) -> tuple[Float32, Float32]:
        """x along and y across in widths from the pin, float32 [1, W] and [H, 1]."""
        (h, w), (x, y), (sx, sy) = self.shape, self.pin, self.scale
        x_w, y_h = (np.arange(w) - x) / sx, (np.arange(h) - y) / sy
        return x_w[None].astype(np.float32), y_h[:, None].astype(np.float32)

    def fill(self, *outlines: np.ndarray, holes: tuple[np.ndarray, ...] = ()) -> ImageU8:
        """Polygons (points in widths from the pin) as alpha, uint8 [H, W]."""
        alpha_hw = np.zeros(self.shape, np.uint8)
        for value, group in ((255, outlines), (0, holes)):
            for outline in group:
                points = np.round((outline * self.scale + self.pin) * 2**SHIFT).astype(np.int32)
                cv2.fillPoly(alpha_hw, [points], value, cv2.LINE_AA, SHIFT)
        return alpha_hw

    def streaks(self, rng: Rng) -> Float32:
        """Brush marks along the metal, float32 [H, W]."""
        h, w = self.shape
        coarse_hw = rng.standard_normal((max(3, min(h, 40)), 7)).astype(np.float32)
        return np.asarray(cv2.resize(coarse_hw, (w, h)), np.float32)

    def piece(self, colour_hwc: Float32, alpha_hw: ImageU8, grade: Grade) -> Piece:
        seen_hwc = np.clip(grade(colour_hwc), 0, 255).astype(np.uint8)
        return Piece(np.dstack([seen_hwc, alpha_hw]), self.pin, self.detail)


def metal(rgb: Rgb, facing_hw: Float32, streaks_hw: Float32, gloss: float) -> Float32:
    """Colours of metal, float32 [H, W, 3], from how much it faces the camera (0 to 1)."""
    lit_hw = 0.20 + 0.85 * facing_hw + 0.05 * streaks_hw
    bright_hw = gloss * (150 * np.clip((facing_hw - 0.9) / 0.1, 0, 1) ** 2 + 60 * facing_hw**6)
    around_hw = np.clip(0.45 - facing_hw, 0, 1) * (0.4 + gloss)  # its sides reflect tissue
    red = np.array((90, 26, 20), np.float32)
    return np.asarray(
        np.array(rgb, np.float32) * lit_hw[..., None] + bright_hw[..., None] + around_hw[..., None] * red, np.float32
    )


def tube(across_hw: Float32) -> Float32:
    """How much a tube faces the camera; `across_hw` is from -1 to 1. The lamp is slightly to one side."""
    return np.asarray(np.sqrt(np.clip(1 - (across_hw + 0.18) ** 2, 0, 1)), np.float32)


def bevel(alpha_hw: ImageU8, breadth: float) -> Float32:
    """How much a flat piece with a rounded rim of `breadth` pixels faces the camera, float32 [H, W]."""
    deep_hw = cv2.distanceTransform(cv2.threshold(alpha_hw, 127, 255, cv2.THRESH_BINARY)[1], cv2.DIST_L2, 5)
    rise_hw = np.clip(deep_hw / max(breadth, 1.0), 0, 1)
    return np.asarray(np.sqrt(np.clip(1 - (1 - rise_hw) ** 2, 0, 1)) * 0.8 + 0.12, np.float32)


def add_blood(rng: Rng, plate: Plate, colour_hwc: Float32, amount: float) -> None:
    """Add smears of blood, more towards the tip, in place."""
    if amount <= 0:
        return
    h, w = plate.shape
    patch = Canvas(w / plate.scale[0], h / plate.scale[1], plate.scale[1])
    smear_hw = np.asarray(cv2.resize(noise(rng, patch, 0.9, 4), (w, h)), np.float32)
    x_w, _ = plate.grid()
    cover_hw = np.clip((smear_hw + 2.2 * amount - 2.0 + 0.25 * np.clip(x_w, -4, 3)) * 1.6, 0, 0.8)[..., None]
    lit_hw1 = 0.5 + colour_hwc.mean(2, keepdims=True) / 200
    colour_hwc += (np.array((120, 14, 16), np.float32) * lit_hw1 - colour_hwc) * cover_hw
