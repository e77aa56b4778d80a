"""What may be said of a mask on a frame: how old it is there, what state that puts it in, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from ..types import BoolMask, Frame, Masks

State = Literal["fresh", "stale", "expired", "none"]
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Seen:
    """One object on one frame. `area` is in pixels; `box` is x0, y0, x1, y1 with the end excluded."""

    id: int
    label: str
    score: float
    area: int
    box: Box


def mask_state(frame: Frame, masks: Masks | None, budget_ms: float) -> tuple[State, float | None]:
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


def measure(masks: Masks, object_id: int) -> tuple[BoolMask, Seen]:
    """Mask of one object, bool [H, W], and what the wire says of it; the box of an empty mask is all zeros."""
    mask_hw = masks.mask(object_id)
    x, y, width, height = cv2.boundingRect(mask_hw.view(np.uint8))
    seen = Seen(
        id=object_id,
        label=masks.label(object_id),
        score=masks.score(object_id),
        area=cv2.countNonZero(mask_hw.view(np.uint8)),
        box=(x, y, x + width, y + height),
    )
    return mask_hw, seen
