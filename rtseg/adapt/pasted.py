"""Objects that are pasted over a clip: cut-outs of other videos, and random outlines filled with their texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base.types import Float32
from .appearance import Appearance, sample_appearance
from .motion import Motion, Rng, affine_path, deformation, invert
from .outlines import Outline, sample_outline
from .training_video import DrawVideo, TrainingVideo

DARK = 0.08  # mean brightness: parts of a picture that are darker are seldom pasted
SOFT = 2  # pixels around an object that its soft edge may reach
SPLINE_OVERSHOOT = 1.3  # a bicubic curve leaves the range of its values by less than this
MIN_AREA = 0.004  # share of the image: an object that is smaller on the first frame is not prompted


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


def sample_pasted(
    rng: Rng, original: PastedObject | None, others: DrawVideo, length: int, size: int, leave: float, motion: Motion
) -> PastedObject:
    """A pasted object on its path. If `original` is given, it has the same region and appearance.

    With the probability `leave`, it is out of the image for some frames.
    """
    video, frame, object_id, outline, center, radius = (
        (original.video, original.frame, original.object_id, original.outline, original.center_xy, original.radius)
        if original
        else _region(rng, others)
    )
    scale = float(np.exp(rng.uniform(np.log(0.1), np.log(0.42)))) * size / radius
    target = rng.uniform(0.1, 0.9, 2) * size
    flip = rng.choice([-1.0, 1.0])
    angle = float(rng.uniform(-np.pi, np.pi) if outline or rng.random() < 0.3 else rng.normal(0, 0.3))
    path_t23 = affine_path(rng, length, size, center, (target[0], target[1]), (flip * scale, scale), angle, motion)
    spread = float(rng.choice([0.0, 0.01, 0.04])) * radius
    return PastedObject(
        video, frame, object_id, outline, center, radius, invert(path_t23), deformation(rng, length, spread),
        sample_visible(rng, length, leave),
        original.appearance if original else sample_appearance(rng, length, color_only=True),
    )  # fmt: skip


def sample_visible(rng: Rng, length: int, leave: float) -> np.ndarray:
    """On which frames an object is visible, bool [T]: always on the first, and mostly on all."""
    visible_t = np.ones(length, bool)
    if length > 1 and rng.random() < leave:
        begin = int(rng.integers(1, length))
        visible_t[begin : begin + int(rng.integers(1, length))] = False
    return visible_t


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


def _region(
    rng: Rng, others: DrawVideo
) -> tuple[TrainingVideo, int, int | None, Outline | None, tuple[float, float], float]:
    """A region to paste: video, frame, id of one of its objects or else an outline, center (x, y) and radius."""
    video = others(rng, 1)
    frame = int(rng.integers(len(video)))
    large = [i for i in video.ids if video.areas_ti[frame, i] > MIN_AREA]
    if large and rng.random() < 0.5:
        object_id = int(rng.choice(large))
        x0, y0, x1, y1 = video.box(frame, object_id)
        return video, frame, object_id, None, ((x0 + x1) / 2, (y0 + y1) / 2), max(x1 - x0, y1 - y0) / 2
    width, height = video.size_wh
    radius = float(rng.uniform(0.15, 0.5)) * min(width, height)
    for _ in range(4):
        u, v = rng.random(2)
        if video.bright_tgg[frame, int(8 * v), int(8 * u)] > DARK:
            break
    center = (float(u * width), float(v * height))
    return video, frame, None, sample_outline(rng), center, radius
