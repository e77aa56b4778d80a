"""The random specification of a training clip, sampled with numpy from a seed; `render_clips` turns it into pixels.

A clip is a moving view of a video with objects pasted over it (copy-paste augmentation): cut-outs of other videos, and
random outlines filled with their texture. Where all frames show the same picture, its own objects may move, too. The
training does not distinguish objects of the video from pasted ones: both are tracked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..base.types import Float32
from .animation import animate
from .appearance import Appearance, sample_appearance, unchanged
from .camera_faults import CameraFaults, sample_faults
from .motion import (
    FAST,
    HANDHELD,
    LOW_FRAME_RATE,
    STATIC,
    Motion,
    Rng,
    camera_path,
    deformation,
    invert,
)
from .pasted import PastedObject, Region, object_region, sample_pasted, sample_region
from .training_video import DrawVideo, TrainingVideo
from .veils import Veil, sample_highlights, sample_smoke

MAX_PASTED = 4  # objects pasted over one clip at most
FAR = 0.3  # probability that the first frame, which is prompted, is any other of the video: a long time ago, or to come


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """A clip of T frames.

    `view_t23` maps output pixels to the video's pixels. `field_of_view_t4`: center and radii of an endoscope's round
    image, in output widths; None without one. `scene_cut`: the video and frame that the last frame shows instead.
    `veils`: smoke and highlights, from the back to the front. `faults`: those of the camera.
    """

    video: TrainingVideo
    frames_t: np.ndarray
    view_t23: Float32
    deformation_t2hw: Float32
    pasted: tuple[PastedObject, ...]
    appearance: Appearance
    field_of_view_t4: Float32 | None
    scene_cut: tuple[TrainingVideo, int] | None
    veils: tuple[Veil, ...]
    faults: CameraFaults

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
    duplicate: float = 0.25  # a pasted object is a copy of the one before it, or of one that the video shows
    low_frame_rate: float = 0.2
    highlights: float = 0.25
    smoke: float = 0.12
    faults: float = 0.5  # the camera has faults, of which each has its own probability: `sample_faults`
    animated: float = 0.6  # objects move by themselves where all frames show the same picture


def sample_clip(
    rng: Rng, video: TrainingVideo, others: DrawVideo, length: int, size: int, probability: Augmentation
) -> ClipSpec:
    """Specify one clip of `length` frames, `size` pixels square, over `video`.

    Pasted objects and the frame after a scene cut come from `others`.
    """
    frames_t = np.full(length, rng.integers(len(video))) if video.stills else _frames(rng, len(video), length)
    frozen = bool(length > 1 and (frames_t == frames_t[0]).all())
    fast = LOW_FRAME_RATE if rng.random() < probability.low_frame_rate else FAST
    animated = frozen and rng.random() < probability.animated
    still_camera = STATIC if rng.random() < 0.3 else HANDHELD
    motion = fast if frozen and not animated else still_camera
    view_t23 = camera_path(rng, video.size_wh, length, size, motion, _focus(rng, video, int(frames_t[0])))
    spread = rng.choice([0.0, 0.004, 0.012]) if frozen and not animated else rng.choice([0.0, 0.0, 0.004])
    pasted: list[PastedObject] = []
    own = [object_region(video, int(frames_t[0]), i) for i in video.large(int(frames_t[0]))]
    if animated:
        video, pasted = animate(rng, video, int(frames_t[0]), view_t23, probability.leave, fast)
        frames_t = np.zeros_like(frames_t) if pasted else frames_t
    if not own or rng.random() < probability.pasted:
        pasted += _pasted(rng, own, others, length, size, probability, fast)
    elsewhere = others(rng, length)
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
        _veils(rng, length, probability),
        sample_faults(rng, length) if rng.random() < probability.faults else CameraFaults(np.zeros((length, 2))),
    )


def _veils(rng: Rng, length: int, probability: Augmentation) -> tuple[Veil, ...]:
    veils = (sample_highlights(rng, length),) if rng.random() < probability.highlights else ()
    return (*veils, sample_smoke(rng, length)) if rng.random() < probability.smoke else veils


def _pasted(
    rng: Rng,
    own: Sequence[Region],
    others: DrawVideo,
    length: int,
    size: int,
    probability: Augmentation,
    motion: Motion,
) -> list[PastedObject]:
    """Some objects to paste. At times, one is a copy of the one before it; the first, of one that the video shows."""
    pasted: list[PastedObject] = []
    region, look = (own[int(rng.integers(len(own)))], unchanged(length)) if own else (None, None)
    for _ in range(int(rng.integers(1, MAX_PASTED + 1))):
        copied = rng.random() < probability.duplicate
        if region is None or look is None or not copied:
            region, look = sample_region(rng, others), sample_appearance(rng, length, color_only=True)
            copied = False
        one = sample_pasted(rng, region, look, length, size, probability.leave, motion)
        pasted.append(replace(one, duplicated=copied))
        if copied and len(pasted) > 1:
            pasted[-2] = replace(pasted[-2], duplicated=True)
    return pasted


def _frames(rng: Rng, count: int, length: int) -> np.ndarray:
    """The numbers of the frames, at a random stride, forward or backward. Sometimes all are the same frame; sometimes
    the first is anywhere.
    """
    stride = 0 if rng.random() < 0.2 else int(rng.integers(1, 5))
    stride = min(stride, (count - 1) // max(length - 1, 1))
    start = int(rng.integers(0, count - stride * (length - 1)))
    frames_t = start + stride * np.arange(length)
    frames_t = frames_t[::-1].copy() if rng.random() < 0.5 else frames_t
    if stride and rng.random() < FAR:
        frames_t[0] = rng.integers(count)
    return frames_t


def _focus(rng: Rng, video: TrainingVideo, frame: int) -> tuple[float, float]:
    """The center (x, y) of a random object on a frame, or of the image if it shows none."""
    width, height = video.size_wh
    visible = [i for i in video.ids if video.areas_ti[frame, i]]
    if not visible:
        return width / 2, height / 2
    box = video.box(frame, int(rng.choice(visible)))
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _field_of_view(rng: Rng, length: int) -> Float32:
    """Center (x, y) and radii (x, y) of the round image on each frame, float32 [T, 4], in output widths."""
    center = 0.5 + rng.normal(0, 0.05, 2) + np.cumsum(rng.normal(0, 0.004, (length, 2)), 0)
    radii = rng.uniform(0.4, 0.62) * np.exp(rng.normal(0, 0.1, 2))
    return np.concatenate([center, np.broadcast_to(radii, (length, 2))], 1).astype(np.float32)
