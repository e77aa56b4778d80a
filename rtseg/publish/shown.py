"""What may be said of a mask on a frame: how old it is there, what state that puts it in, and where it lies."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from ..base.types import BoolMask, Float32, FrameId, Masks

State = Literal["fresh", "stale", "expired", "none", "recovering"]
Box = tuple[int, int, int, int]

_AGES: tuple[State, ...] = ("fresh", "stale", "expired")  # each is drawn as less than the one before
_WELL_WITHIN = 7 / 8  # of a limit: more than the jitter of a feed, less than a frame of one at 60 fps
_LONG_NS = 500_000_000


@dataclass(frozen=True, slots=True)
class Seen:
    """One object on one frame. `area` is in pixels; `box` is x0, y0, x1, y1 with the end excluded."""

    id: int
    label: str
    score: float
    area: int
    box: Box


@dataclass(frozen=True, slots=True)
class Steady:
    """A state that does not flicker, and, if it is worse than the age alone asks for, since which capture it is so."""

    state: State
    since_ns: int | None = None


def mask_state(frame: FrameId, masks: Masks | None, budget_ms: float) -> tuple[State, float | None]:
    """State and age in ms of `masks` on `frame`: the time between the two captures.

    fresh: within the budget; stale: within twice the budget; expired: beyond that, or of another session or size,
    whose masks say nothing about this picture; none: there are no masks. A mask of a later frame has a negative
    age, and is as misplaced as an old one: the budget holds for both.
    """
    if masks is None or not masks.ids:
        return "none", None
    age_ms = (frame.captured_ns - masks.captured_ns) / 1e6
    if (masks.session, masks.height, masks.width) != (frame.session, frame.height, frame.width):
        return "expired", age_ms
    if abs(age_ms) <= budget_ms:
        return "fresh", age_ms
    return ("stale" if abs(age_ms) <= 2 * budget_ms else "expired"), age_ms


def steady(before: Steady | None, state: State, age_ms: float | None, budget_ms: float, captured_ns: int) -> Steady:
    """What to show, after `before`, of masks that are in `state` by their age on the frame of `captured_ns`.

    A mask whose age is about the budget would be filled on one frame and not on the next. So what has become an
    outline, or nothing, is shown as more again only once its age is well within the limit, or has been within it for
    half a second. What is shown is never fresher than `state`.
    """
    if before is None or age_ms is None or state not in _AGES or before.state not in _AGES:
        return Steady(state)
    now, was = _AGES.index(state), _AGES.index(before.state)
    if now >= was:
        return Steady(state)
    since_ns = captured_ns if before.since_ns is None else before.since_ns
    if captured_ns - since_ns >= _LONG_NS:
        return Steady(state)
    for level in range(now, was):
        if abs(age_ms) <= _WELL_WITHIN * (level + 1) * budget_ms:
            return Steady(_AGES[level], None if level == now else since_ns)
    return Steady(before.state, since_ns)


_scratch = threading.local()


def _mask(masks: Masks, object_id: int) -> BoolMask:
    """`masks.mask`, through one buffer for all: to get fresh memory for each takes much longer than to fill it."""
    if masks.guide:
        return masks.mask(object_id)
    size_hw = (masks.height, masks.width)
    logits_hw: Float32 | None = getattr(_scratch, "logits_hw", None)
    if logits_hw is None or logits_hw.shape != size_hw:
        logits_hw = _scratch.logits_hw = np.empty(size_hw, np.float32)
    small_hw = masks.mask_logits_bhw[masks.ids.index(object_id)]
    full_hw = cv2.resize(small_hw, size_hw[::-1], dst=logits_hw, interpolation=cv2.INTER_LINEAR)
    return np.asarray(full_hw) > 0


def measure(masks: Masks, object_id: int) -> tuple[BoolMask, Seen]:
    """Mask of one object, bool [H, W], and what the wire says of it; the box of an empty mask is all zeros."""
    mask_hw = _mask(masks, object_id)
    x, y, width, height = cv2.boundingRect(mask_hw.view(np.uint8))
    seen = Seen(
        id=object_id,
        label=masks.label(object_id),
        score=masks.score(object_id),
        area=cv2.countNonZero(mask_hw.view(np.uint8)),
        box=(x, y, x + width, y + height),
    )
    return mask_hw, seen
