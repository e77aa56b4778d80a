"""Random motion in training clips: affine paths and elastic deformation, sampled once per clip.

A path is float32 [T, 2, 3], one affine map per frame. `affine_path` maps from source to output pixels; `invert` gives
the maps from output to source pixels, which image sampling needs. A deformation is a coarse grid of shifts,
[T, 2, GRID, GRID], which is interpolated over the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base.types import Float32

Rng = np.random.Generator
GRID = 5  # cells of a deformation grid, per side


@dataclass(frozen=True)
class Motion:
    """How much an object or a camera moves: standard deviations per frame.

    `shift` is in output widths, `rotation` in radians, `zoom` is the logarithm of the scale.
    """

    shift: float
    rotation: float
    zoom: float


STATIC = Motion(0.0, 0.0, 0.0)
HANDHELD = Motion(0.015, 0.015, 0.01)
FAST = Motion(0.06, 0.08, 0.05)
LOW_FRAME_RATE = Motion(0.15, 0.15, 0.08)  # as in recordings with one frame per second


def affine(
    source_xy: tuple[float, float], target_xy: tuple[float, float], scale_xy: tuple[float, float], angle: float
) -> Float32:
    """The map float32 [2, 3] that scales about `source_xy`, rotates by `angle` radians and moves to `target_xy`."""
    c, s = np.cos(angle), np.sin(angle)
    linear = np.array([[c, -s], [s, c]]) @ np.diag(scale_xy)
    offset = np.array(target_xy) - linear @ np.array(source_xy)
    return np.column_stack([linear, offset]).astype(np.float32)


def random_walk(rng: Rng, length: int, spread: float) -> Float32:
    """A smooth random walk, float32 [length], that starts at 0: a constant drift plus jitter."""
    steps_t = rng.normal(0, spread) + rng.normal(0, 0.4 * spread, length)
    steps_t[0] = 0
    return np.cumsum(steps_t).astype(np.float32)


def excursion(rng: Rng, length: int) -> Float32:
    """How far something has left, 0 to 1 and float32 [length]: it goes at a random time, and mostly comes back."""
    away_t = np.zeros(length, np.float32)
    begin = int(rng.integers(1, length))
    end = int(rng.integers(begin, length)) + 1
    away_t[begin:] = 1
    away_t[begin] = rng.uniform(0.3, 1)
    if rng.random() < 0.7:
        away_t[end:] = 0
    return away_t


def affine_path(
    rng: Rng,
    length: int,
    size: int,
    source_xy: tuple[float, float],
    target_xy: tuple[float, float],
    scale_xy: tuple[float, float],
    angle: float,
    motion: Motion,
) -> Float32:
    """Affine maps float32 [length, 2, 3] that drift from a starting pose by random walks of `motion`.

    `size` is the side of the square output in pixels; the other arguments are those of `affine` on the first frame.
    """
    dx_t, dy_t = (size * random_walk(rng, length, motion.shift) for _ in range(2))
    angle_t = angle + random_walk(rng, length, motion.rotation)
    zoom_t = np.exp(random_walk(rng, length, motion.zoom))
    return np.stack(
        [
            affine(source_xy, (target_xy[0] + dx, target_xy[1] + dy), (scale_xy[0] * z, scale_xy[1] * z), a)
            for dx, dy, a, z in zip(dx_t, dy_t, angle_t, zoom_t, strict=True)
        ]
    )


def invert(map_t23: Float32) -> Float32:
    """The inverse of each affine map, float32 [T, 2, 3]."""
    square_t33 = np.zeros((len(map_t23), 3, 3))
    square_t33[:, :2], square_t33[:, 2, 2] = map_t23, 1
    return np.linalg.inv(square_t33)[:, :2].astype(np.float32)


def camera_path(
    rng: Rng, source_wh: tuple[int, int], length: int, size: int, motion: Motion, focus_xy: tuple[float, float]
) -> Float32:
    """A random view of a source for each frame: flipped, zoomed, stretched, and drawn towards `focus_xy` in it."""
    width, height = source_wh
    zoom = float(np.exp(rng.uniform(-0.1, 0.55)))
    stretch = float(np.exp(rng.uniform(-0.15, 0.15)))
    center = np.array([width / 2, height / 2])
    center += rng.uniform(0, 1) * (1 - 1 / max(zoom, 1.0)) * (np.array(focus_xy) - center)
    target = size / 2 + rng.normal(0, 0.04 * size, 2)
    flip = rng.choice([-1.0, 1.0])
    scale = (flip * zoom * stretch * size / width, zoom / stretch * size / height)
    angle = float(rng.normal(0, 0.12))
    return affine_path(rng, length, size, (center[0], center[1]), (target[0], target[1]), scale, angle, motion)


def deformation(rng: Rng, length: int, spread: float) -> Float32:
    """An elastic deformation that grows from zero: shifts in source pixels, float32 [length, 2, GRID, GRID].

    `spread` is the standard deviation of the shift per frame, in source pixels.
    """
    if not spread:
        return np.zeros((length, 2, GRID, GRID), np.float32)
    drift = rng.normal(0, spread, (1, 2, GRID, GRID)) * np.arange(length)[:, None, None, None]
    jitter = rng.normal(0, 0.4 * spread, (length, 2, GRID, GRID)).cumsum(0)
    return np.asarray(drift + jitter - jitter[:1], np.float32)
