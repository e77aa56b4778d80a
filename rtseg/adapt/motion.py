"""How things move in training clips: affine paths and soft bending, drawn once for a clip.

A path is float32 [T, 2, 3]; `path` maps from source to output pixels, `inverse` turns it round, which is what sampling
wants. Bending is a coarse grid of shifts, [T, 2, BEND, BEND], to be stretched over the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base.types import Float32

Rng = np.random.Generator
BEND = 5


@dataclass(frozen=True)
class Motion:
    """How far a thing may wander, per frame, as standard deviations: shift in output widths, turn in radians."""

    shift: float
    turn: float
    zoom: float


STILL = Motion(0.0, 0.0, 0.0)
HANDHELD = Motion(0.015, 0.015, 0.01)
LIVELY = Motion(0.06, 0.08, 0.05)
JUMPY = Motion(0.15, 0.15, 0.08)  # as in recordings that keep one frame a second


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


def inverse(map_t23: Float32) -> Float32:
    """The maps the other way, [T, 2, 3]."""
    square_t33 = np.zeros((len(map_t23), 3, 3))
    square_t33[:, :2], square_t33[:, 2, 2] = map_t23, 1
    return np.linalg.inv(square_t33)[:, :2].astype(np.float32)


def camera(
    rng: Rng, source_wh: tuple[int, int], length: int, size: int, motion: Motion, towards_xy: tuple[float, float]
) -> Float32:
    """A view of a source for each frame: flipped, zoomed and squeezed at random, leaning towards a place in it."""
    width, height = source_wh
    zoom = float(np.exp(rng.uniform(-0.1, 0.55)))
    squeeze = float(np.exp(rng.uniform(-0.15, 0.15)))
    centre = np.array([width / 2, height / 2])
    centre += rng.uniform(0, 1) * (1 - 1 / max(zoom, 1.0)) * (np.array(towards_xy) - centre)
    target = size / 2 + rng.normal(0, 0.04 * size, 2)
    flip = rng.choice([-1.0, 1.0])
    scale = (flip * zoom * squeeze * size / width, zoom / squeeze * size / height)
    angle = float(rng.normal(0, 0.12))
    return path(rng, length, size, (centre[0], centre[1]), (target[0], target[1]), scale, angle, motion)


def bending(rng: Rng, length: int, spread: float) -> Float32:
    """Shifts of a coarse grid, [length, 2, BEND, BEND], that grow from nothing; `spread` a frame, in source pixels."""
    if not spread:
        return np.zeros((length, 2, BEND, BEND), np.float32)
    drift = rng.normal(0, spread, (1, 2, BEND, BEND)) * np.arange(length)[:, None, None, None]
    jitter = rng.normal(0, 0.4 * spread, (length, 2, BEND, BEND)).cumsum(0)
    return np.asarray(drift + jitter - jitter[:1], np.float32)
