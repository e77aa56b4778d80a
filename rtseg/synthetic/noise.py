"""Smooth noise for textures, the same at any resolution.

Lengths are in units of the picture's short side; `detail` is pixels a unit. The random numbers do not depend on
`detail`: a scene painted at a low resolution is the same scene, downscaled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ..base.types import Float32

Rng = np.random.Generator


@dataclass(frozen=True)
class Canvas:
    """A rectangle to paint on, `width` x `height` units at `detail` pixels a unit."""

    width: float
    height: float
    detail: float

    @property
    def shape(self) -> tuple[int, int]:
        return max(2, round(self.height * self.detail)), max(2, round(self.width * self.detail))

    def at(self, fraction: float) -> Canvas:
        """The same rectangle with fewer pixels."""
        return Canvas(self.width, self.height, self.detail * fraction)

    def grid(self) -> tuple[Float32, Float32]:
        """x and y of the pixels' centres in units from the rectangle's centre, float32 [1, W] and [H, 1]."""
        h, w = self.shape
        x_w = (np.arange(w, dtype=np.float32) + 0.5) / w * self.width - self.width / 2
        y_h = (np.arange(h, dtype=np.float32) + 0.5) / h * self.height - self.height / 2
        return x_w[None].astype(np.float32), y_h[:, None].astype(np.float32)


def noise(rng: Rng, canvas: Canvas, cell: float, octaves: int = 1, stretch: float = 1.0) -> Float32:
    """Smooth noise, float32 [H, W], of about unit variance; `cell`: units between bumps; `stretch`: factor along x."""
    h, w = canvas.shape
    total_hw = np.zeros((h, w), np.float32)
    for octave, child in enumerate(rng.spawn(octaves)):
        step = cell / 2**octave
        if step * canvas.detail < 1.5:
            break
        rows, columns = math.ceil(canvas.height / step) + 2, math.ceil(canvas.width / (step * stretch)) + 2
        coarse_hw = child.standard_normal((rows, columns), np.float32) * np.float32(0.55**octave)
        dense = step * canvas.detail < 4  # there, cubic interpolation looks the same as linear
        total_hw += cv2.resize(coarse_hw, (w, h), interpolation=cv2.INTER_LINEAR if dense else cv2.INTER_CUBIC)
    return total_hw


def cells(rng: Rng, canvas: Canvas, size: float) -> Float32:
    """Lobules, as of fat: float32 [H, W], 0 in the clefts between them to 1 on top; `size` units across."""
    h, w = canvas.shape
    rows, columns = math.ceil(canvas.height / size), math.ceil(canvas.width / size)
    jitter = rng.uniform(-0.42, 0.42, (2, rows, columns))
    y = np.clip((np.arange(rows)[:, None] + 0.5 + jitter[0]) / rows * h, 0, h - 1).astype(int)
    x = np.clip((np.arange(columns)[None] + 0.5 + jitter[1]) / columns * w, 0, w - 1).astype(int)
    seeds_hw = np.ones((h, w), np.uint8)
    seeds_hw[y, x] = 0
    away_hw = cv2.distanceTransform(seeds_hw, cv2.DIST_L2, 3) * np.float32(1 / (0.62 * size * canvas.detail))
    return np.asarray(np.clip(1 - away_hw**2, 0, 1), np.float32)
