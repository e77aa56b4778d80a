"""Masks drawn on a frame, never as newer than they are.

Within its budget a mask is a tint, a contour and a label; up to twice that a contour and a label; past that it is
gone. A picture that is bare for want of young masks could be taken for one without objects: a plate in the corner
says why it is bare, and anything else that a viewer has to know. No pixel outside the masks and the plates is ever
changed, and all of a contour lies inside its mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np

from ..base.colors import Rgb, color_of
from ..base.defaults import MASK_BUDGET_MS, OPACITY
from ..base.errors import OutputError
from ..base.types import BoolMask, Frame, ImageU8, Masks
from .label import place, plate, stick
from .shown import Box, Seen, State, Steady, mask_state, measure, steady

_DARK: Rgb = (0, 0, 0)
_GREY: Rgb = (150, 150, 150)  # of no object
_RECOVERING = "restoring objects"
_TOO_OLD = "masks too old"
_OUT_OF_VIEW = "out of view: objects lost"
_EDGE = np.ones((3, 3), np.uint8)


Found = Sequence[tuple[BoolMask, Seen]]
Paint = Callable[[Frame, Masks | None, Found, float], ImageU8]
"""What makes a picture of its own, with a tint of an opacity (0: none) and a line of each object that was found."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A frame's picture with its masks on it.

    `image_hwc` is uint8 RGB [H, W, 3], a picture of its own. `age_ms` is the age of the masks on that frame, None
    where there are none. `objects` are those that were drawn, `label_boxes` (x0, y0, x1, y1) their labels, and after
    them the plate in the corner, if there is one. `carried` says that the masks were moved along with the picture;
    they are no newer for that. `lost` are the objects that are out of view. `steady` is what the drawing of the next
    frame wants to know of this one.
    """

    image_hwc: ImageU8
    state: State
    age_ms: float | None
    mask_seq: int | None
    objects: tuple[Seen, ...] = ()
    label_boxes: tuple[Box, ...] = ()
    carried: bool = False
    lost: tuple[int, ...] = ()
    steady: Steady | None = field(default=None, repr=False)


@lru_cache(maxsize=64)
def _toward(color: Rgb, opacity: float) -> ImageU8:
    """The table [1, 256, 3] that takes a pixel's value part of the way to `color`."""
    value_c = np.arange(256)[None, :, None]
    return np.asarray(np.rint(value_c + (np.array(color) - value_c) * opacity), np.uint8)


def _fill(image_hwc: ImageU8, mask_hw: ImageU8, color: Rgb, opacity: float) -> None:
    """Blend a colour into the picture, in place, where the mask is not 0."""
    cv2.copyTo(cv2.LUT(image_hwc, _toward(color, opacity)), mask_hw, image_hwc)


def _trace(image_hwc: ImageU8, line_hw: ImageU8, color: Rgb, opacity: float) -> None:
    """As `_fill`, for the few pixels of a line."""
    xy = cv2.findNonZero(line_hw)
    if xy is not None:
        at = tuple(np.reshape(xy, (-1, 2)).T[::-1])  # OpenCV 4 says [N, 1, 2], OpenCV 5 [N, 2]
        image_hwc[at] = cv2.LUT(image_hwc[at][None], _toward(color, opacity))[0]


def _fill_object(image_hwc: ImageU8, mask_hw: BoolMask, seen: Seen, opacity: float) -> None:
    x0, y0, x1, y1 = seen.box
    _fill(image_hwc[y0:y1, x0:x1], mask_hw[y0:y1, x0:x1].astype(np.uint8), color_of(seen.id), opacity)


def _line_object(image_hwc: ImageU8, mask_hw: BoolMask, seen: Seen) -> None:
    """A bright line and a dark one inside it: one of the two stands out on any tissue and on any instrument."""
    x0, y0, x1, y1 = seen.box
    inner_hw: ImageU8 = mask_hw[y0:y1, x0:x1].astype(np.uint8)
    width = max(1, round(image_hwc.shape[0] / 270))
    for color, opacity, steps in ((color_of(seen.id), 0.95, width), (_DARK, 0.45, max(1, width // 2))):
        core_hw = cv2.erode(inner_hw, _EDGE, iterations=steps, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
        _trace(image_hwc[y0:y1, x0:x1], np.asarray(cv2.subtract(inner_hw, core_hw), np.uint8), color, opacity)
        inner_hw = np.asarray(core_hw, np.uint8)


def _plate(text: str, color: Rgb, image_hwc: ImageU8) -> ImageU8:
    return plate(text, color, max(16, round(image_hwc.shape[0] / 30)))


def _label_objects(
    image_hwc: ImageU8, found: list[tuple[BoolMask, Seen]], age_ms: float, kept: tuple[Box, ...]
) -> tuple[Box, ...]:
    """One label an object, off the boxes that are `kept` for something else, wherever there is room."""
    taken = [*kept]
    all_masks = [mask_hw for mask_hw, _ in found]
    for mask_hw, seen in found:
        plate_hwc = _plate(f"{seen.id} {seen.label or 'object'} {age_ms:.0f} ms", color_of(seen.id), image_hwc)
        taken.append(place(mask_hw, seen.box, (plate_hwc.shape[1], plate_hwc.shape[0]), taken, all_masks))
        stick(image_hwc, plate_hwc, taken[-1])
    return tuple(taken[len(kept) :])


def _corner(image_hwc: ImageU8, text: str) -> tuple[Box, ...]:
    """Where `_say` puts its plate: in the lower left corner, cut where the picture ends; nowhere without a text."""
    if not text:
        return ()
    height, width = _plate(text, _GREY, image_hwc).shape[:2]
    rows, columns = image_hwc.shape[:2]
    x0, y1 = min(height // 2, columns - 1), max(rows - height // 2, 1)
    return ((x0, max(0, y1 - height), min(columns, x0 + width), y1),)


def _say(image_hwc: ImageU8, text: str) -> tuple[Box, ...]:
    """Put a plate with the text on the picture, in place; where it is."""
    boxes = _corner(image_hwc, text)
    for box in boxes:
        stick(image_hwc, _plate(text, _GREY, image_hwc), box)
    return boxes


def paint(frame: Frame, masks: Masks | None, found: Found, opacity: float) -> ImageU8:
    """`Paint`, on the CPU."""
    image_hwc = frame.image_hwc.copy()
    for mask_hw, seen in found if opacity else ():
        _fill_object(image_hwc, mask_hw, seen, opacity)
    for mask_hw, seen in found:
        _line_object(image_hwc, mask_hw, seen)
    return image_hwc


def draw_overlay(
    frame: Frame,
    masks: Masks | None,
    *,
    budget_ms: float = MASK_BUDGET_MS,
    opacity: float = OPACITY,
    recovering: bool = False,
    notice: str = "",
    carried: bool = False,
    before: Steady | None = None,
    unseen: bool = False,
    paint: Paint = paint,
) -> Drawn:
    """Draw the masks on a copy of the frame's picture; the frame is left as it was.

    The age that counts, and that each label states, is the time between the capture of `frame` and that of the frame
    the masks came from, `carried` or not. An object with no pixel is not drawn. `opacity` is that of the tint, 0 to 1:
    0 leaves contour and label. `recovering` says that objects are being restored, which is then the state where there
    is no mask to show. `notice` is for the corner, in ASCII, whatever the masks are; only that objects are being
    restored goes before it. `before` is `Drawn.steady` of the frame before: with it masks near the budget do not
    flicker. `unseen`: nobody looks, so that the state is all that is found out, and the picture is the frame's own.
    `paint` makes the picture with its tints and lines, and may do so in place; plates are put on it here.
    """
    if not 0 <= opacity <= 1:
        raise OutputError(f"opacity {opacity:g}: expected 0 (outline only) to 1; correct it")
    by_age, age_ms = mask_state(frame, masks, budget_ms)
    now = steady(before, by_age, age_ms, budget_ms, frame.captured_ns)
    gone = masks is None or age_ms is None or now.state == "expired"
    state: State = "recovering" if gone and recovering else now.state
    if unseen:
        seq, lost = (masks.seq, masks.lost) if masks else (None, ())
        return Drawn(frame.image_hwc, state, age_ms, seq, carried=carried, lost=lost, steady=now)
    if masks is None or age_ms is None or gone:
        image_hwc = paint(frame, masks, (), 0.0)
        why_bare = _TOO_OLD if state == "expired" else ""
        boxes = _say(image_hwc, _RECOVERING if recovering else notice or why_bare)
        return Drawn(image_hwc, state, age_ms, masks.seq if masks else None, label_boxes=boxes, steady=now)
    notice = notice or (_OUT_OF_VIEW if masks.lost else "")
    found = [(mask_hw, seen) for mask_hw, seen in (measure(masks, i) for i in masks.ids) if seen.area]
    image_hwc = paint(frame, masks, found, opacity if now.state == "fresh" else 0.0)
    boxes = _label_objects(image_hwc, found, age_ms, _corner(image_hwc, notice)) + _say(image_hwc, notice)
    objects = tuple(seen for _, seen in found)
    return Drawn(image_hwc, state, age_ms, masks.seq, objects, boxes, carried, masks.lost, now)
