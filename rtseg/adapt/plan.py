"""What a training clip will be: drawn with numpy from a seed, and turned into pixels by `compose`.

A clip is a moving view of a video, under things that fly over it: cut-outs of other videos and random outlines filled
with their texture. What is in the video and what flies are objects alike; any of them may be the one to follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..base.types import Float32
from .look import Look, draw_look
from .material import Video
from .motion import HANDHELD, JUMPY, LIVELY, STILL, Motion, Rng, bending, camera, inverse, path
from .shapes import Outline, draw_outline

SMALLEST = 0.004  # of the picture: an object that is smaller on the first frame is not worth a prompt
MOST_LAYERS = 4


@dataclass(frozen=True, slots=True)
class Layer:
    """Something that flies: a frame of a video, seen through one of its objects or through an outline.

    `place_t23` maps output pixels to the video's. The outline's (u, v) is (pixel - centre) / reach.
    """

    video: Video
    frame: int
    object_id: int | None
    outline: Outline | None
    centre_xy: tuple[float, float]
    reach: float
    place_t23: Float32
    bend_t2hw: Float32
    shown_t: np.ndarray
    look: Look
    alike: bool = False  # there is another one of it in the clip


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """A clip of T frames; `field_t4`: centre and radii of an endoscope's round picture, in output widths."""

    video: Video
    frames_t: np.ndarray
    view_t23: Float32
    bend_t2hw: Float32
    layers: tuple[Layer, ...]
    look: Look
    field_t4: Float32 | None
    cut: tuple[Video, int] | None  # what the last frame shows instead

    @property
    def still(self) -> bool:
        """Whether all frames show the same one of the video, so that nothing in it moves by itself."""
        return bool((self.frames_t == self.frames_t[0]).all())


@dataclass(frozen=True, slots=True)
class Habits:
    """How often things happen, as probabilities; the same for every clip of a training."""

    layers: float = 0.55
    field: float = 0.25
    cut: float = 0.05
    leave: float = 0.15
    twin: float = 0.25  # a flying thing that looks like the one before it
    jumpy: float = 0.2


def draw_clip(rng: Rng, video: Video, others: Sequence[Video], length: int, size: int, habits: Habits) -> ClipPlan:
    """One clip over `video`; layers and cuts come from `others`."""
    frames_t = _frames(rng, len(video), length)
    still = bool(length > 1 and frames_t[0] == frames_t[-1])
    jumpy = bool(rng.random() < habits.jumpy)
    motion = (JUMPY if jumpy else LIVELY) if still else (HANDHELD if rng.random() < 0.7 else STILL)
    view_t23 = camera(rng, video.size_wh, length, size, motion, _towards(rng, video, int(frames_t[0])))
    bend = rng.choice([0.0, 0.004, 0.012]) if still else rng.choice([0.0, 0.0, 0.004])
    layers: list[Layer] = []
    if not video.ids or rng.random() < habits.layers:
        for _ in range(int(rng.integers(1, MOST_LAYERS + 1))):
            twin = layers[-1] if layers and rng.random() < habits.twin else None
            layers.append(_layer(rng, twin, others, length, size, habits, JUMPY if jumpy else LIVELY))
            if twin:
                layers[-2:] = (replace(layer, alike=True) for layer in layers[-2:])
    elsewhere = others[int(rng.integers(len(others)))]
    cut = length > 2 and rng.random() < habits.cut
    return ClipPlan(
        video,
        frames_t,
        inverse(view_t23),
        bending(rng, length, float(bend) * min(video.size_wh)),
        tuple(layers),
        draw_look(rng, length),
        _field(rng, length) if rng.random() < habits.field else None,
        (elsewhere, int(rng.integers(len(elsewhere)))) if cut else None,
    )


def _frames(rng: Rng, count: int, length: int) -> np.ndarray:
    """Which frames: a random stride, forward or backward; sometimes one frame only, moved by the camera."""
    stride = 0 if rng.random() < 0.2 else int(rng.integers(1, 5))
    stride = min(stride, (count - 1) // max(length - 1, 1))
    start = int(rng.integers(0, count - stride * (length - 1)))
    frames_t = start + stride * np.arange(length)
    return frames_t[::-1].copy() if rng.random() < 0.5 else frames_t


def _towards(rng: Rng, video: Video, frame: int) -> tuple[float, float]:
    """The middle of one of the objects on a frame, or of the picture."""
    width, height = video.size_wh
    seen = [i for i in video.ids if video.areas_ti[frame, i]]
    if not seen:
        return width / 2, height / 2
    box = video.box(frame, int(rng.choice(seen)))
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _layer(
    rng: Rng, twin: Layer | None, others: Sequence[Video], length: int, size: int, habits: Habits, motion: Motion
) -> Layer:
    video, frame, object_id, outline, centre, reach = (
        (twin.video, twin.frame, twin.object_id, twin.outline, twin.centre_xy, twin.reach)
        if twin
        else _material(rng, others)
    )
    scale = float(np.exp(rng.uniform(np.log(0.1), np.log(0.42)))) * size / reach
    target = rng.uniform(0.1, 0.9, 2) * size
    flip = rng.choice([-1.0, 1.0])
    angle = float(rng.uniform(-np.pi, np.pi) if outline or rng.random() < 0.3 else rng.normal(0, 0.3))
    place_t23 = path(rng, length, size, centre, (target[0], target[1]), (flip * scale, scale), angle, motion)
    shown_t = np.ones(length, bool)
    if length > 1 and rng.random() < habits.leave:
        begin = int(rng.integers(1, length))
        shown_t[begin : begin + int(rng.integers(1, length))] = False
    bend = float(rng.choice([0.0, 0.01, 0.04])) * reach
    return Layer(
        video, frame, object_id, outline, centre, reach, inverse(place_t23), bending(rng, length, bend), shown_t,
        twin.look if twin else draw_look(rng, length, calm=True),
    )  # fmt: skip


def _material(
    rng: Rng, others: Sequence[Video]
) -> tuple[Video, int, int | None, Outline | None, tuple[float, float], float]:
    """A frame and what of it is cut out: one of its objects, or an outline anywhere."""
    video = others[int(rng.integers(len(others)))]
    frame = int(rng.integers(len(video)))
    large = [i for i in video.ids if video.areas_ti[frame, i] > SMALLEST]
    if large and rng.random() < 0.5:
        object_id = int(rng.choice(large))
        x0, y0, x1, y1 = video.box(frame, object_id)
        return video, frame, object_id, None, ((x0 + x1) / 2, (y0 + y1) / 2), max(x1 - x0, y1 - y0) / 2
    width, height = video.size_wh
    reach = float(rng.uniform(0.15, 0.5)) * min(width, height)
    centre = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
    return video, frame, None, draw_outline(rng), centre, reach


def _field(rng: Rng, length: int) -> Float32:
    """Centre (x, y) and radii (x, y) of the round picture on each frame, [T, 4], in output widths."""
    centre = 0.5 + rng.normal(0, 0.05, 2) + np.cumsum(rng.normal(0, 0.004, (length, 2)), 0)
    radii = rng.uniform(0.4, 0.62) * np.exp(rng.normal(0, 0.1, 2))
    return np.concatenate([centre, np.broadcast_to(radii, (length, 2))], 1).astype(np.float32)
