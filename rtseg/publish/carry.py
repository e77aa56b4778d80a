"""Masks moved along with the picture: from the frame they were made of to a later one, by optical flow.

A carried mask lies where its object went; it is no newer for that: `seq` and the times stay those of its own frame.
The flow is taken between consecutive frames, at low resolution, once each, and chained from the newest one back:
over several frames that is more accurate than one flow across the whole gap, and it costs the same.
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

_LONG_SIDE = 256  # of the small pictures: 320 is more accurate by about 0.01 of IoU, for half as much time again
_SHORTEST = 32  # OpenCV's flow has no pyramid for less, and fails
_KEPT = 16  # frames: twice the default budget at 60 fps
_UNEXPLAINED = 0.9  # of the change: above, masks gain nothing by being moved, and above 1 they lose (`bench.carry`)
_CUT = 0.6  # of a picture's deviation: once moved, frames in a row differ by less than 0.2, two scenes by over 0.7

Values = TypeVar("Values", Float32, ImageU8)


@dataclass(slots=True, eq=False)
class _Seen:
    """One frame: its small picture, uint8 [h, w]; and, once asked for, the flow from it back to the one before, float32
    [h, w, 2], and whether the two show the same scene.
    """

    grey_hw: ImageU8
    back_hw2: Float32 | None = None
    same: bool = True


@lru_cache(maxsize=8)
def _places(height: int, width: int) -> Float32:
    """The x, y of each pixel, float32 [h, w, 2]."""
    y_hw, x_hw = np.mgrid[:height, :width]
    return np.stack([x_hw, y_hw], axis=-1).astype(np.float32)


def _sampled(values: Values, at_hw2: Float32) -> Values:
    """Bilinear; beyond the edge the nearest value: an instrument that reaches the edge goes on behind it."""
    found: Values = cv2.remap(  # type: ignore[call-overload]
        values, at_hw2, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return found


def _shrunk(image_hwc: ImageU8) -> ImageU8:
    height, width = image_hwc.shape[:2]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    grey_hw = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY)  # first: shrinking three channels takes twice as long
    return np.asarray(cv2.resize(grey_hw, size, interpolation=cv2.INTER_AREA), np.uint8)


class Carrier:
    """Remembers the motion of the last frames of one feed, and moves masks along it. Bounded; not thread-safe."""

    def __init__(self) -> None:
        self._seen: OrderedDict[int, _Seen] = OrderedDict()
        self._feed: tuple[str, int, int] | None = None  # session, height and width of all that is kept
        self._flow = _flow()

    def see(self, frame: Frame) -> None:
        """Take note of a frame; call it for each one, in order, before `carry` is asked for it."""
        feed = (frame.session, frame.height, frame.width)
        if feed != self._feed or (self._seen and frame.seq < next(reversed(self._seen))):
            self._feed = feed
            self._seen.clear()
            self._flow = _flow()
        if frame.seq in self._seen:
            return
        self._seen[frame.seq] = _Seen(_shrunk(frame.image_hwc))
        if len(self._seen) > _KEPT:
            self._seen.popitem(last=False)

    def carry(self, masks: Masks, frame: Frame, budget_ms: float = MASK_BUDGET_MS) -> Masks:
        """The masks where their objects are on `frame`, which has been seen: a new value, of the same `seq` and times.

        They are `masks` itself where nothing can be said: none, or of another session or size; of a frame that is not
        kept, or later than `frame`; or older than twice the budget, which are not drawn. An object whose motion does
        not explain the picture stays where it was, and all do where the scene changes in between.
        """
        age_ms = (frame.captured_ns - masks.captured_ns) / 1e6
        feed = (masks.session, masks.height, masks.width)
        kept = masks.seq in self._seen and frame.seq in self._seen and masks.seq < frame.seq
        if not masks.ids or not kept or not 0 <= age_ms <= 2 * budget_ms or feed != self._feed:
            return masks
        old, new = self._seen[masks.seq], self._seen[frame.seq]
        if frame.session != masks.session or min(new.grey_hw.shape) < _SHORTEST:
            return masks
        flow_hw2 = self._motion(masks.seq, frame.seq)
        if flow_hw2 is None:
            return masks
        moved_bhw, held_bhw = _moved(masks.mask_logits_bhw, flow_hw2)
        was_hw = _sampled(old.grey_hw, _places(*flow_hw2.shape[:2]) + flow_hw2)
        still_hw, moving_hw = (np.asarray(cv2.absdiff(new.grey_hw, hw), np.uint8) for hw in (old.grey_hw, was_hw))
        sound = [self._sound(a > 0, b > 0, still_hw, moving_hw) for a, b in zip(held_bhw, moved_bhw, strict=True)]
        if not any(sound):
            return masks
        pick_b11 = np.array(sound)[:, None, None]
        return replace(masks, mask_logits_bhw=np.where(pick_b11, moved_bhw, held_bhw), guide=None)

    def _motion(self, old_seq: int, new_seq: int) -> Float32 | None:
        """Where each pixel of the new frame was on the old one, float32 [h, w, 2], in small pixels, to be added.

        None if the scene changed in between.
        """
        steps = [self._step(a, b) for a, b in pairwise(seq for seq in self._seen if old_seq <= seq <= new_seq)]
        flow_hw2: Float32 | None = None
        for step_hw2 in reversed(steps):
            if step_hw2 is None:
                return None
            if flow_hw2 is None:
                flow_hw2 = step_hw2
            else:
                flow_hw2 = flow_hw2 + _sampled(step_hw2, _places(*step_hw2.shape[:2]) + flow_hw2)
        return flow_hw2

    def _step(self, before: int, after: int) -> Float32 | None:
        seen, old_hw = self._seen[after], self._seen[before].grey_hw
        if seen.back_hw2 is None:
            flow_hw2 = self._flow.calc(seen.grey_hw, old_hw, None)  # type: ignore[call-overload]
            seen.back_hw2 = np.asarray(flow_hw2, np.float32)
            was_hw = _sampled(old_hw, _places(*old_hw.shape) + seen.back_hw2)
            _, deviation = cv2.meanStdDev(seen.grey_hw)
            seen.same = cv2.mean(cv2.absdiff(seen.grey_hw, was_hw))[0] <= _CUT * float(np.ravel(deviation)[0])
        return seen.back_hw2 if seen.same else None

    @staticmethod
    def _sound(held_hw: BoolMask, moved_hw: BoolMask, still_hw: ImageU8, moving_hw: ImageU8) -> bool:
        """Whether the motion explains the picture where the object was and is now, and so may be believed of its mask.

        `still_hw` and `moving_hw` are how far the new picture is from the old one as it was, and as it was moved.
        """
        size = (still_hw.shape[1], still_hw.shape[0])
        where_hw = cv2.resize((held_hw | moved_hw).view(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        return cv2.mean(moving_hw, where_hw)[0] < _UNEXPLAINED * cv2.mean(still_hw, where_hw)[0]


def _flow() -> cv2.DISOpticalFlow:
    """A new one for each feed, which is never given a first guess (the flow of the last frame, or of the chain).

    With OpenCV 5.0 a guess leaks into later calls without one, and crashes them if the size has changed. The finest
    scale gains more accuracy than a larger picture would for the same time; OpenCV's variational refinement loses.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow.setFinestScale(1)
    return flow


def _moved(logits_bhw: Float32, flow_hw2: Float32) -> tuple[Float32, Float32]:
    """Logits moved, and as they were, at the finer of their own resolution and the flow's: float32 [B, h, w] each."""
    (rows, columns), (height, width) = logits_bhw.shape[1:], flow_hw2.shape[:2]
    tall, wide = max(rows, height), max(columns, width)
    if (tall, wide) != (height, width):
        flow_hw2 = np.asarray(cv2.resize(flow_hw2, (wide, tall)), np.float32)
        flow_hw2 = flow_hw2 * np.array([wide / width, tall / height], np.float32)
    scale_2 = np.array([columns / wide, rows / tall], np.float32)
    stay_hw2 = (_places(tall, wide) + np.float32(0.5)) * scale_2 - np.float32(0.5)  # half-pixel centres
    move_hw2 = stay_hw2 + flow_hw2 * scale_2
    moved, held = ([_sampled(logits_hw, at) for logits_hw in logits_bhw] for at in (move_hw2, stay_hw2))
    return np.stack(moved).astype(np.float32), np.stack(held).astype(np.float32)
