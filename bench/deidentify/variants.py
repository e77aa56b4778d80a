"""Variants of a picture: what lies between the same thing and the recording of it, at random, from a seed.

A dark surround is drawn on both kinds, because out-of-body pictures have come through the same endoscope.
"""

from __future__ import annotations

import cv2
import numpy as np

from rtseg.base.types import Float32, ImageU8

from .pictures import Example


def vary(example: Example, seed: int) -> ImageU8:
    """A variant: cropped, mirrored, blurred, in another light and white balance, behind smoke, with a surround."""
    rng = np.random.default_rng((seed, 5))
    image_hwc = _cropped(example.image_hwc, rng).astype(np.float32)
    if rng.random() < 0.35:
        image_hwc = cv2.GaussianBlur(image_hwc, (0, 0), float(rng.uniform(0.5, 6)))
    wide = 0.25 if example.out else 0.12  # tissue stays tissue only within a camera's usual white balance
    gain_c = np.exp(rng.normal(0, wide / 2, 3).clip(-wide, wide)) * np.exp(rng.uniform(-0.5, 0.35))
    if example.out and rng.random() < 0.3:  # in warm light
        gain_c *= (1.15, 1.0, 0.85)
    image_hwc = image_hwc * gain_c.astype(np.float32)
    mean_hw1 = image_hwc.mean(2, keepdims=True)
    image_hwc = mean_hw1 + (image_hwc - mean_hw1) * float(rng.uniform(0.75, 1.25))
    if rng.random() < 0.12:  # smoke, or a wet lens
        share = float(rng.uniform(0.1, 0.5))
        image_hwc = image_hwc * (1 - share) + 190 * share
    if rng.random() < 0.6:
        image_hwc = _surrounded(image_hwc, rng)
    image_hwc = image_hwc + rng.normal(0, float(rng.uniform(0, 4)), image_hwc.shape)
    return np.asarray(image_hwc.clip(0, 255), np.uint8)


def withdrawn(inside_hwc: ImageU8, outside_hwc: ImageU8, seed: int) -> ImageU8:
    """A picture that is partly inside, and from a third to nearly all of it out-of-body: the scope leaves the body."""
    rng = np.random.default_rng((seed, 6))
    height, width = inside_hwc.shape[:2]
    outside_hwc = np.asarray(cv2.resize(outside_hwc, (width, height), interpolation=cv2.INTER_AREA))
    y_hw, x_hw = np.indices((height, width), np.float32)
    share = float(rng.uniform(0.35, 0.9))
    if rng.random() < 0.5:  # the body's edge crosses the picture
        angle = float(rng.uniform(0, 2 * np.pi))
        along_hw = x_hw / width * np.cos(angle) + y_hw / height * np.sin(angle)
    else:  # the rest of the inside is seen through the port
        along_hw = -np.hypot(x_hw / width - rng.uniform(0.3, 0.7), y_hw / height - rng.uniform(0.3, 0.7))
    soft_hw = cv2.GaussianBlur((along_hw < np.quantile(along_hw, share)).astype(np.float32), (0, 0), width / 60)
    mixed_hwc = outside_hwc * soft_hw[..., None] + inside_hwc * (1 - soft_hw[..., None])
    return np.asarray(_surrounded(mixed_hwc, rng) if rng.random() < 0.6 else mixed_hwc, np.uint8)


def _cropped(image_hwc: ImageU8, rng: np.random.Generator) -> ImageU8:
    height, width = image_hwc.shape[:2]
    scale = float(rng.uniform(0.55, 1))
    h, w = int(height * scale), int(width * scale)
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    part_hwc = image_hwc[y : y + h, x : x + w]
    return part_hwc[:, ::-1] if rng.random() < 0.5 else part_hwc


def _surrounded(image_hwc: Float32, rng: np.random.Generator) -> Float32:
    """The picture in a disc, with less light towards its rim."""
    height, width = image_hwc.shape[:2]
    y_hw, x_hw = np.indices((height, width), np.float32)
    centre = height * rng.uniform(0.45, 0.55), width * rng.uniform(0.45, 0.55)
    radius = height * float(rng.uniform(0.45, 0.75))
    away_hw = np.hypot(y_hw - centre[0], x_hw - centre[1]) / radius
    light_hw = 1 - float(rng.uniform(0, 0.6)) * np.minimum(away_hw, 1) ** 2
    inside_hw = ((1.0 - away_hw) * radius / 2).clip(0, 1)
    return np.asarray((image_hwc * light_hw[..., None] - 4) * inside_hw[..., None] + 4, np.float32)
