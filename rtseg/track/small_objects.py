"""Objects that are too small for the network: their masks are dilated, and the user is warned.

The network sees a picture resized to S x S pixels, decodes its masks in cells of 4 x 4 of these pixels, and remembers
them in cells of 16 x 16. A mask less than a cell wide would be averaged to nothing, neither remembered nor tracked.
Such a mask is dilated by one to three network pixels before the network gets it.

Measured with nano and micro on pasted objects, tools and drawn threads (docs/small.md): of masks with the area of a
square of `SMALLEST` network pixels a side more than half are tracked, and fewer of smaller ones. Boxes have to be a
little larger. A prompt for something smaller gives a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from ..base.types import BoolMask, Float32, Frame, Masks, Prompt
from ..engine import Array, Decoded, Engine, Features, PromptBatch, Recall, Remembered
from ..engine.arrays import namespace

SMALLEST = 9.0  # network pixels: the side of a square of the mask's area
SMALLEST_BOX = 12.0  # the same for a box around the object
TINY = 6.0  # a mask smaller than this is dilated by two network pixels, one smaller than SMALLEST by one
THIN, THINNEST = 2.3, 1.1  # distance of the innermost pixel from the edge, in masks up to 4 and up to 2 pixels wide
NOT_FOUND = 0.2  # IoU with what the network finds again on the same picture: below it, none of 29 were tracked
CERTAIN = 10.0  # the score logit that SAM 2 reports for a mask prompt
_CELL = 4  # network pixels along a cell of the network's masks


def mask_input(mask_hw: BoolMask, side: int) -> Float32:
    """A mask prompt at the network's size, [1, 1, S, S] of 0 and 1, dilated if it is small or thin everywhere.

    Any other mask is only averaged to that size.
    """
    inside_hw = _resized(mask_hw, side)
    radius = _dilation(inside_hw)
    if radius:
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        inside_hw = np.asarray(cv2.dilate(inside_hw, disk), np.uint8)
    return inside_hw.astype(np.float32)[None, None]


def is_doubtful(prompt: Prompt | None, side: int) -> bool:
    """Whether a prompt is a mask so small that the network may not be able to track it."""
    return prompt is not None and prompt.mask is not None and _dilation(_resized(prompt.mask, side)) > 0


def warnings(prompts: Iterable[Prompt], frame: Frame, masks: Masks, side: int) -> tuple[str, ...]:
    """One line for each prompt whose object is too small for the network; `masks` are the answers to the prompts."""
    pixel = frame.height * frame.width / side**2  # pixels of the picture in one network pixel
    lines = []
    for prompt in prompts:
        what, area, smallest = _extent(prompt, masks, pixel)
        lost = prompt.mask is not None and (masks.score(prompt.id) < 0.5 or masks.iou(prompt.id) < NOT_FOUND)
        if area < smallest**2 * pixel or lost:
            least = int(np.ceil(smallest * pixel**0.5))
            lines.append(
                f"object {prompt.id}: {what} {area:.0f} pixels"
                f"{', and is not found again even on the same picture' if lost else ''}; smaller than {least}x{least} "
                f"or thinner than {int(np.ceil(_CELL * pixel**0.5))} of {frame.width}x{frame.height} pixels is often "
                f"lost at image_size {side}; crop the picture to where the object is, or raise image_size"
            )
    return tuple(lines)


def _extent(prompt: Prompt, masks: Masks, pixel: float) -> tuple[str, float, float]:
    """The first words of the warning, the object's area in pixels of the picture, and the smallest side that is
    tracked, in network pixels.

    For points alone the area is that of the network's mask; for points on the background alone it is infinite.
    """
    if prompt.mask is not None:
        return "the mask covers", float(np.count_nonzero(prompt.mask)), SMALLEST
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        return "the box covers", (x1 - x0) * (y1 - y0), SMALLEST_BOX
    if not any(label for _, _, label in prompt.points):
        return "", np.inf, SMALLEST
    cells = np.count_nonzero(masks.mask_logits_bhw[masks.ids.index(prompt.id)] > 0)
    return "the network found", float(cells) * _CELL**2 * pixel, SMALLEST


def read_back(
    engine: Engine, features: Features, decoded: Decoded, written: Sequence[Remembered], doubtful: Sequence[bool]
) -> Decoded:
    """The same answers, but doubtful masks have the score and IoU with which the network finds them again.

    SAM 2 reports a mask prompt with a score and an IoU of 1, without asking the network. Here the network decodes the
    same picture with the memory of that mask alone: an object that it misses there it will also miss on the next
    frame. The masks are not changed.
    """
    rows = [i for i, doubt in enumerate(doubtful) if doubt]
    if not rows:
        return decoded
    slot, library = engine.preset.num_maskmem - 1, namespace(decoded.score_b)
    recalls = [Recall([written[i]], (slot,), decoded.pointer_bc[i : i + 1], (1,)) for i in rows]
    again = engine.decode(engine.attend(features, recalls), features, PromptBatch.none(len(rows)))
    # On the device of the answers: the host does not wait for a GPU here.
    found_bhw, given_bhw = again.logits_b1hw[:, 0] > 0, rows_of(decoded.logits_b1hw, rows)[:, 0] > 0
    both_b, either_b = (part_bhw.sum((1, 2)) for part_bhw in (found_bhw & given_bhw, found_bhw | given_bhw))
    ious_b = library.asarray(both_b / library.clip(either_b, 1, None), dtype=library.float32)
    scores_b = library.clip(again.score_b, None, CERTAIN)
    return replace(
        decoded, score_b=_replaced(decoded.score_b, scores_b, rows), iou_b=_replaced(decoded.iou_b, ious_b, rows)
    )


def rows_of(x: Array, rows: Sequence[int]) -> Array:
    """Some rows of an array, by slices: an index array would have to be copied to a GPU first."""
    return x if len(rows) == len(x) else namespace(x).concat([x[i : i + 1] for i in rows])


def _replaced(values_b: Array, others: Array, rows: Sequence[int]) -> Array:
    """`values_b`, with these rows replaced by `others`."""
    parts = [values_b[i : i + 1] for i in range(len(values_b))]
    for k, i in enumerate(rows):
        parts[i] = others[k : k + 1]
    return namespace(values_b).concat(parts)


def _resized(mask_hw: BoolMask, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """A mask averaged to the network's size, uint8 [S, S] of 0 and 1; a thin mask does not vanish."""
    covered_hw = cv2.resize(mask_hw.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    inside_hw = covered_hw >= 0.5
    if not inside_hw.any():
        inside_hw = covered_hw > 0
    return inside_hw.astype(np.uint8)


def _dilation(inside_hw: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> int:
    """How many network pixels a mask has to be dilated by for the network to see it; 0 if it is large enough."""
    area = cv2.countNonZero(inside_hw)
    x, y, width, height = cv2.boundingRect(inside_hw)
    padded_hw = cv2.copyMakeBorder(inside_hw[y : y + height, x : x + width], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    deepest = float(cv2.distanceTransform(padded_hw, cv2.DIST_L2, 5).max())
    if area < 9:
        return 3
    if deepest <= THINNEST or area < TINY**2:
        return 2
    return int(deepest <= THIN or area < SMALLEST**2)
