"""Objects that are pasted over a clip: cut-outs of other videos, and random outlines filled with their texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base.types import Float32
from .appearance import Appearance
from .motion import Motion, Rng, affine_path, deformation, excursion, invert
from .outlines import Outline, sample_outline
from .training_video import DrawVideo, TrainingVideo

DARK = 0.08  # mean brightness: parts of a picture that are darker are seldom pasted
SOFT = 2  # pixels around an object that its soft edge may reach
SPLINE_OVERSHOOT = 1.3  # a bicubic curve leaves the range of its values by less than this
ENTERS = 0.7  # probability that what reaches the edge of its own picture does so where it is pasted
EDGE = 2  # pixels: an object this near to the edge reaches it


Window = tuple[slice, slice]  # rows and columns of the output


@dataclass(frozen=True, slots=True)
class PastedObject:
    """A region of a frame of a video: the pixels of one of its objects, or those inside an outline.

    `map_t23` maps output pixels to the video's pixels. A point of the outline is (pixel - `center_xy`) / `radius`.
    """

    video: TrainingVideo
    frame: int
    object_id: int | None
    outline: Outline | None
    center_xy: tuple[float, float]
    radius: float
    map_t23: Float32
    deformation_t2hw: Float32
    visible_t: np.ndarray
    appearance: Appearance
    duplicated: bool = False  # the clip shows a copy of the same region


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a frame of a video: one of its objects, or what is inside an outline; center (x, y) and radius."""

    video: TrainingVideo
    frame: int
    object_id: int | None
    outline: Outline | None
    center_xy: tuple[float, float]
    radius: float


def sample_pasted(
    rng: Rng, region: Region, look: Appearance, length: int, size: int, leave: float, motion: Motion
) -> PastedObject:
    """A region on a path over the clip.

    What reaches the edge of its own picture, as instruments do, mostly reaches into this one from an edge. With the
    probability `leave`, the object is away for some frames: it moves out, or is hidden at once.
    """
    center, radius = region.center_xy, region.radius
    entry = None if region.object_id is None else entry_of(region.video, region.frame, region.object_id)
    flip = float(rng.choice([-1.0, 1.0]))
    if entry is not None and rng.random() < ENTERS:
        scale = float(np.exp(rng.uniform(np.log(0.2), np.log(0.55)))) * size / radius
        source = (float(entry[0]), float(entry[1]))
        target, inward = _edge(rng, size)
        own = np.array([flip, 1.0]) * (np.array(center) - entry)
        angle = float(np.arctan2(inward[1], inward[0]) - np.arctan2(own[1], own[0]))
    else:
        scale = float(np.exp(rng.uniform(np.log(0.1), np.log(0.42)))) * size / radius
        source, target = center, rng.uniform(0.1, 0.9, 2) * size
        turned = region.outline is not None or rng.random() < 0.3
        angle = float(rng.uniform(-np.pi, np.pi) if turned else rng.normal(0, 0.3))
        inward = np.array([np.cos(a := rng.uniform(-np.pi, np.pi)), np.sin(a)])
    path_t23 = affine_path(
        rng, length, size, source, (float(target[0]), float(target[1])), (flip * scale, scale), angle, motion
    )
    visible_t = np.ones(length, bool)
    if length > 1 and rng.random() < leave:
        away_t = excursion(rng, length)
        if rng.random() < 0.5:
            path_t23[:, :, 2] -= 1.2 * size * away_t[:, None] * inward
        else:
            visible_t = away_t == 0
    spread = float(rng.choice([0.0, 0.01, 0.04])) * radius
    return PastedObject(
        region.video, region.frame, region.object_id, region.outline, center, radius,
        invert(path_t23), deformation(rng, length, spread), visible_t, look,
    )  # fmt: skip


def _edge(rng: Rng, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A point just outside of an edge of the output, and the direction (x, y) from it to a point well inside."""
    along, axis, far = rng.uniform(0.05, 0.95), int(rng.integers(2)), int(rng.integers(2))
    point = np.array([along, along])
    point[axis] = 1.03 if far else -0.03
    inward = rng.uniform(0.3, 0.7, 2) - point
    return point * size, inward / np.linalg.norm(inward)


def entry_of(video: TrainingVideo, frame: int, object_id: int) -> np.ndarray | None:
    """The middle (x, y) of the pixels where an object reaches the picture's edge; None if it does not."""
    own_hw = video.host(frame) == object_id
    near_hw = np.zeros_like(own_hw)
    for edge in (np.s_[:EDGE], np.s_[-EDGE:]):
        near_hw[edge] = own_hw[edge]
        near_hw[:, edge] = own_hw[:, edge]
    at_n2 = np.argwhere(near_hw)
    return at_n2.mean(0)[::-1] if len(at_n2) else None


def whole(size: int) -> Window:
    """The window of the whole output."""
    return slice(0, size), slice(0, size)


def window_of(one: PastedObject, times: np.ndarray, size: int) -> Window | None:
    """The rows and columns of the output that the object may cover on these frames; None if there are none.

    `size` is the side of the output.
    """
    if not len(times):
        return None
    reach = one.radius * (one.outline.reach if one.outline else 1.0)
    reach += SPLINE_OVERSHOOT * float(np.abs(one.deformation_t2hw[times]).max())
    corner_n2 = np.array(one.center_xy) + reach * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    path_t23 = invert(one.map_t23[times])
    out_tn2 = corner_n2 @ path_t23[:, :, :2].transpose(0, 2, 1) + path_t23[:, None, :, 2]
    low, high = np.floor(out_tn2.min((0, 1))) - SOFT, np.ceil(out_tn2.max((0, 1))) + SOFT + 1
    (x0, y0), (x1, y1) = (np.clip(ends, 0, size).astype(int).tolist() for ends in (low, high))
    return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None


def object_region(video: TrainingVideo, frame: int, object_id: int) -> Region:
    """The region of an object that is visible on this frame."""
    x0, y0, x1, y1 = video.box(frame, object_id)
    return Region(video, frame, object_id, None, ((x0 + x1) / 2, (y0 + y1) / 2), max(x1 - x0, y1 - y0) / 2)


def sample_region(rng: Rng, others: DrawVideo) -> Region:
    """A random region of another video: one of its objects, or a random outline."""
    video = others(rng, 1)
    frame = int(rng.integers(len(video)))
    large = video.large(frame)
    if large and rng.random() < 0.5:
        return object_region(video, frame, int(rng.choice(large)))
    width, height = video.size_wh
    radius = float(rng.uniform(0.15, 0.5)) * min(width, height)
    for _ in range(4):
        u, v = rng.random(2)
        if video.bright_tgg[frame, int(8 * v), int(8 * u)] > DARK:
            break
    return Region(video, frame, None, sample_outline(rng), (float(u * width), float(v * height)), radius)
