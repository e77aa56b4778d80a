"""Motion compensation of masks ("carry"): optical flow moves masks from their own frame to a later one.

A carried mask lies where its object moved to. That makes it no newer: `seq` and timestamps stay those of its own
frame. The flow is computed once between consecutive frames, at low resolution, and chained from the newest frame back.
Over several frames this is more accurate than one flow across the whole gap, at the same cost.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

import cv2
import numpy as np

from ..base.defaults import MASK_BUDGET_MS
from ..base.types import BoolMask, Float32, Frame, ImageU8, Masks

_LONG_SIDE = 256  # pixels of the downscaled pictures; 320 is better by about 0.01 of IoU, and takes 1.5 times as long
_SHORTEST = 32  # pixels; OpenCV's flow fails for smaller pictures, which have no pyramid
_MAX_FRAMES = 16  # frames: twice the default budget at 60 fps
# Share of a change that motion may leave unexplained: above it, moved masks are no better, above 1 worse (bench.carry).
_UNEXPLAINED = 0.9
# Share of a picture's standard deviation: after motion, consecutive frames differ by less than 0.2, scenes by 0.7.
_SCENE_CHANGE = 0.6

Values = TypeVar("Values", Float32, ImageU8)


@dataclass(slots=True, eq=False)
class _PastFrame:
    """A past frame: its downscaled picture, uint8 [h, w]; and, once computed, the flow from it back to the previous
    frame, float32 [h, w, 2], and whether both show the same scene.
    """

    grey_hw: ImageU8
    back_hw2: Float32 | None = None
    same_scene: bool = True


@lru_cache(maxsize=8)
def _pixel_grid(height: int, width: int) -> Float32:
    """The x, y of each pixel, float32 [h, w, 2]."""
    y_hw, x_hw = np.mgrid[:height, :width]
    return np.stack([x_hw, y_hw], axis=-1).astype(np.float32)


def _sampled(values: Values, at_hw2: Float32) -> Values:
    """Bilinear sampling, with the nearest value beyond the edge: an instrument at the edge continues outside."""
    found: Values = cv2.remap(  # type: ignore[call-overload]
        values, at_hw2, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return found


def _small_grey(image_hwc: ImageU8) -> ImageU8:
    height, width = image_hwc.shape[:2]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey_hw = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY)  # before the resize: three channels would take twice as long
    return np.asarray(cv2.resize(grey_hw, size, interpolation=cv2.INTER_AREA), np.uint8)


class Carrier:
    """Keeps the last frames of one feed, and moves masks along their motion. Bounded memory; not thread-safe."""

    def __init__(self) -> None:
        self._frames: OrderedDict[int, _PastFrame] = OrderedDict()
        self._feed: tuple[str, int, int] | None = None  # session, height and width of the frames kept
        self._flow = _flow()

    def add(self, frame: Frame) -> None:
        """Add a frame. Call it for each frame, in order, before `carry`."""
        feed = (frame.session, frame.height, frame.width)
        if feed != self._feed or (self._frames and frame.seq < next(reversed(self._frames))):
            self._feed = feed
            self._frames.clear()
            self._flow = _flow()
        if frame.seq in self._frames:
            return
        self._frames[frame.seq] = _PastFrame(_small_grey(frame.image_hwc))
        if len(self._frames) > _MAX_FRAMES:
            self._frames.popitem(last=False)

    def carry(self, masks: Masks, frame: Frame, budget_ms: float = MASK_BUDGET_MS) -> Masks:
        """The masks moved to where their objects are on `frame`, which was added before. `seq` and timestamps stay.

        Returns `masks` itself if they cannot be moved: there are none; they are of another session or size, of a frame
        that is not kept or is later than `frame`; they are older than twice the budget, and so not drawn; or the scene
        changed. An object stays where it was if its motion does not explain how the picture changed.
        """
        age_ms = (frame.captured_ns - masks.captured_ns) / 1e6
        feed = (masks.session, masks.height, masks.width)
        known = masks.seq in self._frames and frame.seq in self._frames and masks.seq < frame.seq
        if not masks.ids or not known or not 0 <= age_ms <= 2 * budget_ms or feed != self._feed:
            return masks
        old, new = self._frames[masks.seq], self._frames[frame.seq]
        if frame.session != masks.session or min(new.grey_hw.shape) < _SHORTEST:
            return masks
        flow_hw2 = self._motion(masks.seq, frame.seq)
        if flow_hw2 is None:
            return masks
        moved_bhw, still_bhw = _warp(masks.fine_logits_bhw, flow_hw2)
        was_hw = _sampled(old.grey_hw, _pixel_grid(*flow_hw2.shape[:2]) + flow_hw2)
        still_hw, moving_hw = (np.asarray(cv2.absdiff(new.grey_hw, hw), np.uint8) for hw in (old.grey_hw, was_hw))
        explained = [
            self._is_explained(a > 0, b > 0, still_hw, moving_hw) for a, b in zip(still_bhw, moved_bhw, strict=True)
        ]
        if not any(explained):
            return masks
        pick_b11 = np.array(explained)[:, None, None]
        return replace(masks, mask_logits_bhw=np.where(pick_b11, moved_bhw, still_bhw), guide=None)

    def _motion(self, old_seq: int, new_seq: int) -> Float32 | None:
        """The offset from each pixel of the new frame to its position on the old one, float32 [h, w, 2].

        In pixels of the downscaled pictures. None if the scene changed between them.
        """
        steps = [self._step(a, b) for a, b in pairwise(seq for seq in self._frames if old_seq <= seq <= new_seq)]
        flow_hw2: Float32 | None = None
        for step_hw2 in reversed(steps):
            if step_hw2 is None:
                return None
            if flow_hw2 is None:
                flow_hw2 = step_hw2
            else:
                flow_hw2 = flow_hw2 + _sampled(step_hw2, _pixel_grid(*step_hw2.shape[:2]) + flow_hw2)
        return flow_hw2

    def _step(self, before: int, after: int) -> Float32 | None:
        current, old_hw = self._frames[after], self._frames[before].grey_hw
        if current.back_hw2 is None:
            flow_hw2 = self._flow.calc(current.grey_hw, old_hw, None)  # type: ignore[call-overload]
            current.back_hw2 = np.asarray(flow_hw2, np.float32)
            was_hw = _sampled(old_hw, _pixel_grid(*old_hw.shape) + current.back_hw2)
            _, deviation = cv2.meanStdDev(current.grey_hw)
            current.same_scene = cv2.mean(cv2.absdiff(current.grey_hw, was_hw))[0] <= _SCENE_CHANGE * float(
                np.ravel(deviation)[0]
            )
        return current.back_hw2 if current.same_scene else None

    @staticmethod
    def _is_explained(still_mask_hw: BoolMask, moved_mask_hw: BoolMask, still_hw: ImageU8, moving_hw: ImageU8) -> bool:
        """Whether the motion explains how the picture changed where the object was and is now.

        `still_hw` and `moving_hw`: the difference between the new picture and the old one, unmoved and moved.
        """
        size = (still_hw.shape[1], still_hw.shape[0])
        where_hw = cv2.resize((still_mask_hw | moved_mask_hw).view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        return cv2.mean(moving_hw, where_hw)[0] < _UNEXPLAINED * cv2.mean(still_hw, where_hw)[0]


def _flow() -> cv2.DISOpticalFlow:
    """The optical flow. Each feed gets a new one, and no call gives it an initial guess.

    With OpenCV 5.0 an initial guess leaks into later calls, and crashes them if the size has changed. The finest scale
    adds more accuracy than a larger picture would in the same time; OpenCV's variational refinement lowers it.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow.setFinestScale(1)
    return flow


def _warp(logits_bhw: Float32, flow_hw2: Float32) -> tuple[Float32, Float32]:
    """Logits moved, and not moved, at the finer of their own resolution and the flow's: float32 [B, h, w] each."""
    (rows, columns), (height, width) = logits_bhw.shape[1:], flow_hw2.shape[:2]
    tall, wide = max(rows, height), max(columns, width)
    if (tall, wide) != (height, width):
        flow_hw2 = np.asarray(cv2.resize(flow_hw2, (wide, tall)), np.float32)
        flow_hw2 = flow_hw2 * np.array([wide / width, tall / height], np.float32)
    scale_2 = np.array([columns / wide, rows / tall], np.float32)
    stay_hw2 = (_pixel_grid(tall, wide) + np.float32(0.5)) * scale_2 - np.float32(0.5)  # half-pixel centres
    move_hw2 = stay_hw2 + flow_hw2 * scale_2
    moved, still = ([_sampled(logits_hw, at) for logits_hw in logits_bhw] for at in (move_hw2, stay_hw2))
    return np.stack(moved).astype(np.float32), np.stack(still).astype(np.float32)
