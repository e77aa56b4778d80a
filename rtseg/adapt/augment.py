"""Motion and light for training clips: affine paths, warps and colour changes that hold over a whole clip.

Images are uint8 [h, w, 3] RGB, id masks uint8 [h, w]; a path is float32 [T, 2, 3], from source to output pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..types import Float32, ImageU8

Rng = np.random.Generator


@dataclass(frozen=True)
class Motion:
    """How far a thing may wander, per frame, as standard deviations: shift in output widths, turn in radians."""

    shift: float
    turn: float
    zoom: float


STILL = Motion(0.0, 0.0, 0.0)
HANDHELD = Motion(0.015, 0.015, 0.01)
LIVELY = Motion(0.07, 0.1, 0.06)


def affine(
    source_xy: tuple[float, float], target_xy: tuple[float, float], scale_xy: tuple[float, float], angle: float
) -> Float32:
    """The [2, 3] map that scales about `source_xy`, turns by `angle`, and lands on `target_xy`."""
    c, s = np.cos(angle), np.sin(angle)
    linear = np.array([[c, -s], [s, c]]) @ np.diag(scale_xy)
    offset = np.array(target_xy) - linear @ np.array(source_xy)
    return np.column_stack([linear, offset]).astype(np.float32)


def wander(rng: Rng, length: int, spread: float) -> Float32:
    """A smooth random walk, float32 [length], that starts at 0: constant drift plus jitter."""
    steps_t = rng.normal(0, spread) + rng.normal(0, 0.4 * spread, length)
    steps_t[0] = 0
    return np.cumsum(steps_t).astype(np.float32)


def path(
    rng: Rng,
    length: int,
    size: int,
    source_xy: tuple[float, float],
    target_xy: tuple[float, float],
    scale_xy: tuple[float, float],
    angle: float,
    motion: Motion,
) -> Float32:
    """Affine maps float32 [length, 2, 3] that drift from a starting pose as `motion` says."""
    dx_t, dy_t = (size * wander(rng, length, motion.shift) for _ in range(2))
    angle_t = angle + wander(rng, length, motion.turn)
    zoom_t = np.exp(wander(rng, length, motion.zoom))
    return np.stack(
        [
            affine(source_xy, (target_xy[0] + dx, target_xy[1] + dy), (scale_xy[0] * z, scale_xy[1] * z), a)
            for dx, dy, a, z in zip(dx_t, dy_t, angle_t, zoom_t, strict=True)
        ]
    )


def camera(rng: Rng, mask_hw: ImageU8, length: int, size: int, motion: Motion) -> Float32:
    """A view of the source for each frame: flipped, zoomed and squeezed at random, leaning towards the object."""
    height, width = mask_hw.shape
    zoom = float(np.exp(rng.uniform(-0.1, 0.55)))
    squeeze = float(np.exp(rng.uniform(-0.15, 0.15)))
    centre = np.array([width / 2, height / 2])
    ys, xs = np.nonzero(mask_hw)
    if len(xs):
        centre += rng.uniform(0, 1) * (1 - 1 / max(zoom, 1.0)) * (np.array([xs.mean(), ys.mean()]) - centre)
    target = size / 2 + rng.normal(0, 0.04 * size, 2)
    flip = rng.choice([-1.0, 1.0])
    scale = (flip * zoom * squeeze * size / width, zoom / squeeze * size / height)
    return path(rng, length, size, tuple(centre), tuple(target), scale, float(rng.normal(0, 0.12)), motion)


def warp(image_hwc: ImageU8, map_23: Float32, size: int) -> ImageU8:
    """One image seen through `map_23`, [size, size, 3]; what lies outside is a mirror image."""
    out = cv2.warpAffine(image_hwc, map_23, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(out, np.uint8)


def warp_mask(mask_hw: ImageU8, map_23: Float32, size: int) -> ImageU8:
    """A 0/1 mask seen through `map_23`, [size, size]; mirrored outside like its image, so that both agree."""
    soft = cv2.warpAffine(
        mask_hw * np.uint8(255), map_23, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return (np.asarray(soft) > 127).astype(np.uint8)


def through_scope(rng: Rng, image_thwc: ImageU8, mask_thw: ImageU8) -> None:
    """Black out, in place, what an endoscope's round field of view would hide; the field may drift a little."""
    length, height, width = mask_thw.shape
    centre = np.array([width / 2, height / 2]) + rng.normal(0, 0.05, 2) * width
    radius_xy = np.array([width, height]) * rng.uniform(0.4, 0.62) * np.exp(rng.normal(0, 0.1, 2))
    dark = int(rng.integers(0, 14))
    drift_tc = width * np.stack([wander(rng, length, 0.004) for _ in range(2)], axis=1)
    for t in range(length):
        field_hw = np.zeros((height, width), np.uint8)
        at = tuple(int(v) for v in centre + drift_tc[t])
        cv2.ellipse(field_hw, at, tuple(int(v) for v in radius_xy), 0, 0, 360, (1,), -1)
        image_thwc[t][field_hw == 0] = dark
        mask_thw[t] *= field_hw


def recolour(rng: Rng, image_thwc: ImageU8) -> ImageU8:
    """Gain, gamma, tint, grey and blur, drawn once for the clip; brightness also flickers a little per frame."""
    gain_c = np.exp(rng.normal(0, 0.12, 3)) * np.exp(rng.normal(0, 0.15))
    if rng.random() < 0.25:
        image_thwc = np.repeat(image_thwc.mean(-1, keepdims=True).astype(np.uint8), 3, axis=-1)
        if rng.random() < 0.5:
            gain_c[:] = gain_c.mean()
    elif rng.random() < 0.2:
        image_thwc = image_thwc[..., rng.permutation(3)]
    gamma = np.exp(rng.normal(0, 0.25))
    blur = rng.random() < 0.15
    ramp = (np.arange(256) / 255.0) ** gamma * 255
    frames = []
    for image_hwc in image_thwc:
        flicker = np.exp(rng.normal(0, 0.03))
        table = np.clip(ramp[:, None] * gain_c[None] * flicker, 0, 255).astype(np.uint8)[None]
        frame = cv2.LUT(np.ascontiguousarray(image_hwc), table)
        frames.append(cv2.GaussianBlur(frame, (0, 0), 1.0) if blur else frame)
    return np.stack(frames).astype(np.uint8)
