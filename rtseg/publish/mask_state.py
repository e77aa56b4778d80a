"""The state of masks on a frame by their age (fresh, stale, expired), and the area and box of each object."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from ..base.colors import Rgb
from ..base.types import BoolMask, Float32, FrameId, Masks
from .looks import PLAIN, Looks

State = Literal["fresh", "stale", "expired", "none", "recovering"]
Box = tuple[int, int, int, int]

_AGES: tuple[State, ...] = ("fresh", "stale", "expired")  # the older, the less is drawn
_WELL_WITHIN = 7 / 8  # share of a limit; the rest is more than the jitter of a feed, and less than a frame at 60 fps
_UPGRADE_AFTER_NS = 500_000_000


@dataclass(frozen=True, slots=True)
class ObjectSummary:
    """An object on a frame, as the wire format describes it.

    `area` in pixels; `box` x0, y0, x1, y1, the end excluded; `color` in which it is drawn; `hidden`: it is not drawn.
    """

    id: int
    label: str
    score: float
    area: int
    box: Box
    color: Rgb
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class ShownState:
    """The state in which masks are drawn. `since_ns`: the capture time since which it is worse than their age asks."""

    state: State
    since_ns: int | None = None


def mask_state(frame: FrameId, masks: Masks | None, budget_ms: float) -> tuple[State, float | None]:
    """State and age in ms of `masks` on `frame`. The age is the time between the captures of the two frames.

    fresh: within the budget; stale: within twice the budget; expired: beyond that, or of another session or size; none:
    there are no masks. Masks of a later frame have a negative age. They are misplaced just as old masks are, so the
    budget applies to both.
    """
    if masks is None or not masks.ids:
        return "none", None
    age_ms = (frame.captured_ns - masks.captured_ns) / 1e6
    if (masks.session, masks.height, masks.width) != (frame.session, frame.height, frame.width):
        return "expired", age_ms
    if abs(age_ms) <= budget_ms:
        return "fresh", age_ms
    return ("stale" if abs(age_ms) <= 2 * budget_ms else "expired"), age_ms


def next_shown_state(
    before: ShownState | None, state: State, age_ms: float | None, budget_ms: float, captured_ns: int
) -> ShownState:
    """The state to draw masks in, with hysteresis. `state`: by their age; `before`: of the previous drawing.

    Without hysteresis, masks whose age is close to the budget would be filled on one frame and not on the next. So
    masks that were drawn as an outline, or not at all, get a fuller drawing only when their age is well within the
    limit, or has been within it for half a second. The result is never fresher than `state`.
    """
    if before is None or age_ms is None or state not in _AGES or before.state not in _AGES:
        return ShownState(state)
    now, was = _AGES.index(state), _AGES.index(before.state)
    if now >= was:
        return ShownState(state)
    since_ns = captured_ns if before.since_ns is None else before.since_ns
    if captured_ns - since_ns >= _UPGRADE_AFTER_NS:
        return ShownState(state)
    for level in range(now, was):
        if abs(age_ms) <= _WELL_WITHIN * (level + 1) * budget_ms:
            return ShownState(_AGES[level], None if level == now else since_ns)
    return ShownState(before.state, since_ns)


_scratch = threading.local()


def _mask(masks: Masks, object_id: int) -> BoolMask:
    """`masks.mask`, with a reused buffer: allocating memory for each mask takes much longer than filling it."""
    size_hw = (masks.height, masks.width)
    logits_hw: Float32 | None = getattr(_scratch, "logits_hw", None)
    if logits_hw is None or logits_hw.shape != size_hw:
        logits_hw = _scratch.logits_hw = np.empty(size_hw, np.float32)
    full_hw = cv2.resize(masks.fine_logits(object_id), size_hw[::-1], dst=logits_hw, interpolation=cv2.INTER_LINEAR)
    return np.asarray(full_hw) > 0


def measure(masks: Masks, object_id: int, looks: Looks = PLAIN) -> tuple[BoolMask, ObjectSummary]:
    """The mask of one object, bool [H, W], and its summary. The box of an empty mask is all zeros."""
    mask_hw = _mask(masks, object_id)
    x, y, width, height = cv2.boundingRect(mask_hw.view(np.uint8))
    summary = ObjectSummary(
        id=object_id,
        label=masks.label(object_id),
        score=masks.score(object_id),
        area=cv2.countNonZero(mask_hw.view(np.uint8)),
        box=(x, y, x + width, y + height),
        color=looks.color(object_id),
        hidden=object_id in looks.hidden,
    )
    return mask_hw, summary
