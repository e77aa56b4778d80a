"""Draws masks on a frame, and never as newer than they are.

A mask within its age budget (fresh) is drawn as a tint, a contour and a label; up to twice the budget (stale) as a
contour and a label; after that (expired) not at all. A picture without masks could be taken for one without objects, so
a text in the corner says why there are none, or anything else that a viewer has to know. Only pixels of masks, labels
and that text are changed, and each contour lies inside its mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import cv2
import numpy as np

from ..base.colors import Rgb
from ..base.defaults import MASK_BUDGET_MS, OPACITY
from ..base.errors import OutputError
from ..base.types import BoolMask, Frame, ImageU8, Masks
from .label import blend_label, place_label, render_label
from .looks import PLAIN, Looks
from .mask_state import Box, ObjectSummary, ShownState, State, mask_state, measure, next_shown_state

_DARK: Rgb = (0, 0, 0)
_GREY: Rgb = (150, 150, 150)  # for a text that belongs to no object
_RECOVERING = "restoring objects"
_TOO_OLD = "masks too old"
_OUT_OF_VIEW = "out of view: objects lost"
_EDGE = np.ones((3, 3), np.uint8)


MeasuredMasks = Sequence[tuple[BoolMask, ObjectSummary]]
DrawMasks = Callable[[Frame, Masks | None, MeasuredMasks, float], ImageU8]
"""Returns a new picture with the tint (of an opacity; 0: none) and the contour of each object."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A frame's picture with its masks drawn on it.

    `image_hwc`: uint8 RGB [H, W, 3], a new array. `age_ms`: the age of the masks on this frame, None if there are none.
    `objects`: those that were drawn; `label_boxes`: (x0, y0, x1, y1) of their labels, and then of the text in the
    corner, if there is one. `carried`: the masks were moved along with the picture, which makes them no newer. `lost`:
    the objects that are out of view. `shown_state`: for the drawing of the next frame.
    """

    image_hwc: ImageU8
    state: State
    age_ms: float | None
    mask_seq: int | None
    objects: tuple[ObjectSummary, ...] = ()
    label_boxes: tuple[Box, ...] = ()
    carried: bool = False
    lost: tuple[int, ...] = ()
    shown_state: ShownState | None = field(default=None, repr=False)


@lru_cache(maxsize=64)
def _blend_table(color: Rgb, opacity: float) -> ImageU8:
    """The lookup table [1, 256, 3] that blends a pixel's value with `color`."""
    value_c = np.arange(256)[None, :, None]
    return np.asarray(np.rint(value_c + (np.array(color) - value_c) * opacity), np.uint8)


def _fill(image_hwc: ImageU8, mask_hw: ImageU8, color: Rgb, opacity: float) -> None:
    """Blend a colour into the picture, in place, where the mask is not 0."""
    cv2.copyTo(cv2.LUT(image_hwc, _blend_table(color, opacity)), mask_hw, image_hwc)


def _fill_line(image_hwc: ImageU8, line_hw: ImageU8, color: Rgb, opacity: float) -> None:
    """Like `_fill`, but faster for the few pixels of a line."""
    xy = cv2.findNonZero(line_hw)
    if xy is not None:
        at = tuple(np.reshape(xy, (-1, 2)).T[::-1])  # OpenCV 4 returns [N, 1, 2], OpenCV 5 [N, 2]
        image_hwc[at] = cv2.LUT(image_hwc[at][None], _blend_table(color, opacity))[0]


def _draw_tint(image_hwc: ImageU8, mask_hw: BoolMask, summary: ObjectSummary, opacity: float) -> None:
    x0, y0, x1, y1 = summary.box
    _fill(image_hwc[y0:y1, x0:x1], mask_hw[y0:y1, x0:x1].astype(np.uint8), summary.color, opacity)


def _draw_contour(image_hwc: ImageU8, mask_hw: BoolMask, summary: ObjectSummary) -> None:
    """Draw a bright contour and a dark one inside it: one of the two contrasts with any tissue and any instrument."""
    x0, y0, x1, y1 = summary.box
    inner_hw: ImageU8 = mask_hw[y0:y1, x0:x1].astype(np.uint8)
    width = max(1, round(image_hwc.shape[0] / 270))
    for color, opacity, steps in ((summary.color, 0.95, width), (_DARK, 0.45, max(1, width // 2))):
        core_hw = cv2.erode(inner_hw, _EDGE, iterations=steps, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
        _fill_line(image_hwc[y0:y1, x0:x1], np.asarray(cv2.subtract(inner_hw, core_hw), np.uint8), color, opacity)
        inner_hw = np.asarray(core_hw, np.uint8)


def _label(text: str, color: Rgb, image_hwc: ImageU8) -> ImageU8:
    return render_label(text, color, max(16, round(image_hwc.shape[0] / 30)))


def _label_objects(
    image_hwc: ImageU8, found: list[tuple[BoolMask, ObjectSummary]], age_ms: float, kept: tuple[Box, ...]
) -> tuple[Box, ...]:
    """Draw one label for each object where there is space, away from the boxes in `kept`; returns their boxes."""
    taken = [*kept]
    all_masks = [mask_hw for mask_hw, _ in found]
    for mask_hw, summary in found:
        label_hwc = _label(f"{summary.id} {summary.label or 'object'} {age_ms:.0f} ms", summary.color, image_hwc)
        taken.append(place_label(mask_hw, summary.box, (label_hwc.shape[1], label_hwc.shape[0]), taken, all_masks))
        blend_label(image_hwc, label_hwc, taken[-1])
    return tuple(taken[len(kept) :])


def _notice_box(image_hwc: ImageU8, text: str) -> tuple[Box, ...]:
    """The box of the text in the lower left corner, cut at the picture's edge; none without a text."""
    if not text:
        return ()
    height, width = _label(text, _GREY, image_hwc).shape[:2]
    rows, columns = image_hwc.shape[:2]
    x0, y1 = min(height // 2, columns - 1), max(rows - height // 2, 1)
    return ((x0, max(0, y1 - height), min(columns, x0 + width), y1),)


def _draw_notice(image_hwc: ImageU8, text: str) -> tuple[Box, ...]:
    """Draw the text in the corner of the picture, in place; returns its box."""
    boxes = _notice_box(image_hwc, text)
    for box in boxes:
        blend_label(image_hwc, _label(text, _GREY, image_hwc), box)
    return boxes


def draw_masks(frame: Frame, masks: Masks | None, found: MeasuredMasks, opacity: float) -> ImageU8:
    """Draw tints and contours on a copy of the frame's picture, on the CPU."""
    image_hwc = frame.image_hwc.copy()
    for mask_hw, summary in found if opacity else ():
        _draw_tint(image_hwc, mask_hw, summary, opacity)
    for mask_hw, summary in found:
        _draw_contour(image_hwc, mask_hw, summary)
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
    before: ShownState | None = None,
    unseen: bool = False,
    looks: Looks = PLAIN,
    draw_masks: DrawMasks = draw_masks,
) -> Drawn:
    """Draw masks on a copy of the frame's picture. The age of a mask is the time between the two frames' captures.

    `budget_ms`: up to this age masks are fresh, up to twice this age stale. `opacity` of the tint: 0 (contour and label
    only) to 1. `recovering`: objects are being restored, which is the state if there is no mask to show. `notice`: a
    text for the corner, in ASCII. `carried`: the masks were moved along with the picture. `before`: the `shown_state`
    of the previous `Drawn`, so that masks close to the budget do not flicker. `unseen`: there is no viewer, so only the
    state is computed, and the picture is the frame's own. `looks`: the colours of objects, and which are hidden.
    `draw_masks` draws tints and contours; labels are drawn here.
    """
    if not 0 <= opacity <= 1:
        raise OutputError(f"opacity {opacity:g}: expected 0 (outline only) to 1; correct it")
    by_age, age_ms = mask_state(frame, masks, budget_ms)
    shown = next_shown_state(before, by_age, age_ms, budget_ms, frame.captured_ns)
    bare = masks is None or age_ms is None or shown.state == "expired"
    state: State = "recovering" if bare and recovering else shown.state
    drawn = Drawn(frame.image_hwc, state, age_ms, masks.seq if masks else None, shown_state=shown)
    if unseen:
        return replace(drawn, carried=carried, lost=masks.lost if masks else ())
    if masks is None or bare:
        reason = _TOO_OLD if state == "expired" else ""
        image_hwc = draw_masks(frame, masks, (), 0.0)
        boxes = _draw_notice(image_hwc, _RECOVERING if recovering else notice or reason)
        return replace(drawn, image_hwc=image_hwc, label_boxes=boxes)
    drawn = replace(drawn, carried=carried, lost=masks.lost)
    return _draw_objects(frame, masks, drawn, notice, opacity if shown.state == "fresh" else 0.0, looks, draw_masks)


def _draw_objects(
    frame: Frame, masks: Masks, drawn: Drawn, notice: str, opacity: float, looks: Looks, draw_masks: DrawMasks
) -> Drawn:
    notice = notice or (_OUT_OF_VIEW if {*masks.lost} - looks.hidden else "")
    shown = [measure(masks, i, looks) for i in masks.ids if i not in looks.hidden]
    measured = [(mask_hw, summary) for mask_hw, summary in shown if summary.area]
    image_hwc = draw_masks(frame, masks, measured, opacity)
    boxes = _label_objects(image_hwc, measured, drawn.age_ms or 0.0, _notice_box(image_hwc, notice))
    boxes += _draw_notice(image_hwc, notice)
    objects = tuple(summary for _, summary in measured)
    return replace(drawn, image_hwc=image_hwc, objects=objects, label_boxes=boxes)
