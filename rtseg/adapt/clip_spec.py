"""The random specification of a training clip, sampled with numpy from a seed; `render_clips` turns it into pixels.

A clip is a moving view of a video with objects pasted over it (copy-paste augmentation): cut-outs of other videos, and
random outlines filled with their texture. The training does not distinguish objects of the video from pasted ones: both
are tracked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..base.types import Float32
from .appearance import Appearance, sample_appearance
from .motion import (
    FAST,
    HANDHELD,
    LOW_FRAME_RATE,
    STATIC,
    Motion,
    Rng,
    affine_path,
    camera_path,
    deformation,
    invert,
)
from .outlines import Outline, sample_outline
from .training_video import TrainingVideo

MIN_AREA = 0.004  # share of the image: an object that is smaller on the first frame is not prompted
MAX_PASTED = 4  # objects pasted over one clip at most


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
class ClipSpec:
    """A clip of T frames.

    `view_t23` maps output pixels to the video's pixels. `field_of_view_t4`: center and radii of an endoscope's round
    image, in output widths; None without one. `scene_cut`: the video and frame that the last frame shows instead.
    """

    video: TrainingVideo
    frames_t: np.ndarray
    view_t23: Float32
    deformation_t2hw: Float32
    pasted: tuple[PastedObject, ...]
    appearance: Appearance
    field_of_view_t4: Float32 | None
    scene_cut: tuple[TrainingVideo, int] | None

    @property
    def frozen(self) -> bool:
        """Whether all frames show the same frame of the video, so that only the camera moves."""
        return bool((self.frames_t == self.frames_t[0]).all())


@dataclass(frozen=True, slots=True)
class Augmentation:
    """The probability of each augmentation; the same for all clips of a training."""

    pasted: float = 0.55
    field_of_view: float = 0.25
    scene_cut: float = 0.05
    leave: float = 0.15  # a pasted object is out of the image for some frames
    duplicate: float = 0.25  # a pasted object is a copy of the one before it
    low_frame_rate: float = 0.2


def sample_clip(
    rng: Rng, video: TrainingVideo, others: Sequence[TrainingVideo], length: int, size: int, probability: Augmentation
) -> ClipSpec:
    """Specify one clip of `length` frames, `size` pixels square, over `video`.

    Pasted objects and the frame after a scene cut come from `others`.
    """
    frames_t = _frames(rng, len(video), length)
    frozen = bool(length > 1 and frames_t[0] == frames_t[-1])
    low_rate = bool(rng.random() < probability.low_frame_rate)
    fast = LOW_FRAME_RATE if low_rate else FAST
    motion = fast if frozen else (HANDHELD if rng.random() < 0.7 else STATIC)
    view_t23 = camera_path(rng, video.size_wh, length, size, motion, _focus(rng, video, int(frames_t[0])))
    spread = rng.choice([0.0, 0.004, 0.012]) if frozen else rng.choice([0.0, 0.0, 0.004])
    pasted: list[PastedObject] = []
    if not video.ids or rng.random() < probability.pasted:
        for _ in range(int(rng.integers(1, MAX_PASTED + 1))):
            original = pasted[-1] if pasted and rng.random() < probability.duplicate else None
            pasted.append(_pasted(rng, original, others, length, size, probability.leave, fast))
            if original:
                pasted[-2:] = (replace(one, duplicated=True) for one in pasted[-2:])
    elsewhere = others[int(rng.integers(len(others)))]
    cut = length > 2 and rng.random() < probability.scene_cut
    return ClipSpec(
        video,
        frames_t,
        invert(view_t23),
        deformation(rng, length, float(spread) * min(video.size_wh)),
        tuple(pasted),
        sample_appearance(rng, length),
        _field_of_view(rng, length) if rng.random() < probability.field_of_view else None,
        (elsewhere, int(rng.integers(len(elsewhere)))) if cut else None,
    )


def _frames(rng: Rng, count: int, length: int) -> np.ndarray:
    """The numbers of the frames, at a random stride, forward or backward. Sometimes all are the same frame."""
    stride = 0 if rng.random() < 0.2 else int(rng.integers(1, 5))
    stride = min(stride, (count - 1) // max(length - 1, 1))
    start = int(rng.integers(0, count - stride * (length - 1)))
    frames_t = start + stride * np.arange(length)
    return frames_t[::-1].copy() if rng.random() < 0.5 else frames_t


def _focus(rng: Rng, video: TrainingVideo, frame: int) -> tuple[float, float]:
    """The center (x, y) of a random object on a frame, or of the image if it shows none."""
    width, height = video.size_wh
    visible = [i for i in video.ids if video.areas_ti[frame, i]]
    if not visible:
        return width / 2, height / 2
    box = video.box(frame, int(rng.choice(visible)))
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _pasted(
    rng: Rng,
    original: PastedObject | None,
    others: Sequence[TrainingVideo],
    length: int,
    size: int,
    leave: float,
    motion: Motion,
) -> PastedObject:
    """A pasted object on its path. If `original` is given, it has the same region and appearance."""
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
    visible_t = np.ones(length, bool)
    if length > 1 and rng.random() < leave:
        begin = int(rng.integers(1, length))
        visible_t[begin : begin + int(rng.integers(1, length))] = False
    spread = float(rng.choice([0.0, 0.01, 0.04])) * radius
    return PastedObject(
        video, frame, object_id, outline, center, radius, invert(path_t23), deformation(rng, length, spread), visible_t,
        original.appearance if original else sample_appearance(rng, length, color_only=True),
    )  # fmt: skip


def _region(
    rng: Rng, others: Sequence[TrainingVideo]
) -> tuple[TrainingVideo, int, int | None, Outline | None, tuple[float, float], float]:
    """A region to paste: video, frame, id of one of its objects or else an outline, center (x, y) and radius."""
    video = others[int(rng.integers(len(others)))]
    frame = int(rng.integers(len(video)))
    large = [i for i in video.ids if video.areas_ti[frame, i] > MIN_AREA]
    if large and rng.random() < 0.5:
        object_id = int(rng.choice(large))
        x0, y0, x1, y1 = video.box(frame, object_id)
        return video, frame, object_id, None, ((x0 + x1) / 2, (y0 + y1) / 2), max(x1 - x0, y1 - y0) / 2
    width, height = video.size_wh
    radius = float(rng.uniform(0.15, 0.5)) * min(width, height)
    center = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
    return video, frame, None, sample_outline(rng), center, radius


def _field_of_view(rng: Rng, length: int) -> Float32:
    """Center (x, y) and radii (x, y) of the round image on each frame, float32 [T, 4], in output widths."""
    center = 0.5 + rng.normal(0, 0.05, 2) + np.cumsum(rng.normal(0, 0.004, (length, 2)), 0)
    radii = rng.uniform(0.4, 0.62) * np.exp(rng.normal(0, 0.1, 2))
    return np.concatenate([center, np.broadcast_to(radii, (length, 2))], 1).astype(np.float32)
