"""Colour grading: white balance, saturation, gamma and contrast of a camera, drawn once for each scene.

Gamma commutes with multiplication by light, so the grading is applied to the textures and costs nothing a frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..base.types import Float32
from .noise import Rng

LUMA = np.array((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Grade:
    """The colour rendition of one camera."""

    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    saturation: float = 1.0
    gamma: float = 1.0
    gain: float = 1.0

    @classmethod
    def draw(cls, rng: Rng, strength: float, grey: bool) -> Grade:
        warm, green = rng.uniform(-0.16, 0.16, 2) * strength
        saturation = 1 + strength * rng.uniform(-0.6, 0.35)
        gamma = float(np.exp(strength * rng.uniform(-0.35, 0.35)))
        balance = (1 + warm, 1 + 0.5 * green, 1 - warm)
        return cls(balance, 0.0 if grey else float(saturation), gamma, float(1 + strength * rng.uniform(-0.15, 0.25)))

    def __call__(self, rgb_hwc: Float32) -> Float32:
        """Colours, float32 [H, W, 3], 0 to 255 and beyond, as this camera renders them; not below 0."""
        mix = np.float32(self.saturation) * np.eye(3, dtype=np.float32) + np.float32(1 - self.saturation) * LUMA[None]
        seen_hwc = cv2.transform(rgb_hwc, mix * (np.array(self.balance, np.float32) / 255)[None])
        return np.asarray(cv2.pow(np.maximum(seen_hwc, 0), self.gamma) * np.float32(255 * self.gain), np.float32)

    def colour(self, rgb: tuple[float, float, float]) -> tuple[float, float, float]:
        """One colour as this camera renders it."""
        red, green, blue = self(np.array([[rgb]], np.float32))[0, 0]
        return float(red), float(green), float(blue)
