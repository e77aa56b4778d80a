"""What a person may say about an object: the one schema of a prompt, whichever way it comes in.

The public API, a prompt file, a profile and the control socket all give a `Table` here. What comes out is checked,
of one type, and a copy: nothing that a caller does later changes it. What is ambiguous is refused, with what was found
and how to say it clearly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import PromptError, RtsegError
from .tables import Table, listed, short

MAX_ID = 255  # of an object: ids are pixel values in palette images, where 0 is the background
MAX_INT = (1 << 63) - 1  # of the number of a frame: what travels in eight bytes
MAX_SIDE = 16384  # of a picture
MAX_POINTS, MAX_LABEL = 64, 64  # of a prompt; of a label, in characters
PROMPT_KEYS = ("id", "label", "points", "box", "mask")
POINTS = "points like [[x, y, 1 or 0], ...]"
BOX = "a box like [x0, y0, x1, y1] with x0 < x1 and y0 < y1"
MASK = "bool, 0/1 or 0/255"
KINDS = "points, a box, points with a box, or a mask alone"

Mask = npt.NDArray[np.bool_]
Advice = Callable[[npt.NDArray[Any]], str]


def as_id(value: object, where: str, error: type[RtsegError] = PromptError) -> int:
    """An object's id, 1 to 255: `int(value)` where it is a whole number, else `error`."""
    return Table({"id": value}, where, ("id",), error).integer("id", None, 1, MAX_ID)


def as_ids(values: object, where: str) -> list[int]:
    """Several ids; `PromptError` if they are none."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise PromptError(f"{where}: ids = {short(values)}; expected a list of object ids")
    return [as_id(value, where) for value in values]


def as_label(table: Table) -> str:
    """What an object is called: one line that can be shown."""
    label = table.text("label")
    if len(label) > MAX_LABEL or not label.isprintable() or not label.strip():
        raise table.bad("label", f"one line of 1 to {MAX_LABEL} characters")
    return label


def prompt_fields(table: Table, mask: Callable[[Table], Mask]) -> dict[str, Any]:
    """The fields of a `Prompt` out of a table with the keys `PROMPT_KEYS`; `mask` reads that key."""
    found = [key for key in ("points", "box", "mask") if key in table]
    if not found or ("mask" in found and len(found) > 1):
        said = " and ".join(found) or "neither points, box nor mask"
        raise table.error(f"{table.where}: found {said}; expected {KINDS}")
    return {
        "id": table.integer("id", None, 1, MAX_ID),
        "label": as_label(table) if "label" in table else None,
        "points": _points(table) if "points" in table else (),
        "box": _box(table) if "box" in table else None,
        "mask": mask(table) if "mask" in table else None,
    }


def mask_of(table: Table) -> Mask:
    """The key `mask` where it is an array."""
    return as_mask(table.values["mask"], f"{table.where}: mask", table.error)


def as_mask(value: object, said: str, error: type[RtsegError], advice: Advice | None = None) -> Mask:
    """A mask as bool [H, W]: a copy that nobody can write to. `said` names it in the line of an `error`.

    Taken are arrays, tensors, pictures and lists, [H, W], [1, H, W] or [H, W, 1]; of bool, or of 0 and 1, or of 0 and
    255 (in 16 bits 0 and 65535), whatever the type. A mask of nothing or of everything says nothing, and is refused.
    """
    values_hw = _plane(value, said, error)
    if values_hw.dtype == np.bool_:
        mask_hw = values_hw
    else:
        mask_hw = values_hw != 0
        tops = (1, 255, 65535) if values_hw.dtype == np.uint16 else (1, 255)
        if not any(bool(((values_hw == top) == mask_hw).all()) for top in tops):
            found = f"{values_hw.dtype} {_span(values_hw)}"
            raise error(f"{said} is {found}; expected {MASK}{(advice or _advice)(values_hw)}")
    if not mask_hw.any():
        raise error(f"{said} is empty; expected at least one pixel of the object")
    if mask_hw.all():
        size = "x".join(map(str, mask_hw.shape[::-1]))
        raise error(
            f"{said} covers all of its {size} pixels; expected background too; an object that fills the frame: a box"
        )
    owner: object = mask_hw.base
    if isinstance(owner, bytes):
        return mask_hw  # ours already
    return np.ndarray(mask_hw.shape, np.bool_, mask_hw.tobytes())


def _plane(value: Any, said: str, error: type[RtsegError]) -> npt.NDArray[Any]:
    """Any kind of array as numpy's [H, W]."""
    expected = f"expected an array [H, W] of {MASK}"
    if type(value).__name__ == "MaskedArray":
        raise error(f"{said} is a masked array; {expected}: mask.filled(0)")
    try:
        if hasattr(value, "detach"):  # a tensor, wherever it lies
            value = value.detach().cpu()
            value = value.float() if "bfloat16" in str(value.dtype) else value
        values = np.asarray(value)
    except Exception as e:  # a ragged list, a tensor that is sparse, somebody's own class
        raise error(f"{said} = {short(value)} is no array ({' '.join(str(e).split())[:80]}); {expected}") from e
    if values.dtype.kind not in "buif" or isinstance(value, str | bytes):
        found = f"a {type(value).__name__}" if values.ndim == 0 else f"an array of {values.dtype}"
        raise error(f"{said} is {found}; {expected}")
    shape = values.shape
    while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or not all(0 < side <= MAX_SIDE for side in values.shape):
        raise error(f"{said} has the shape {list(shape)}; expected [H, W], 1 to {MAX_SIDE} a side")
    return values


def _span(values_hw: npt.NDArray[Any]) -> str:
    """The values of a mask in words: all of them where they are few, else the range."""
    bad = int((~np.isfinite(values_hw)).sum()) if values_hw.dtype.kind == "f" else 0
    if bad and np.isnan(values_hw).any():
        return f"with {bad} values that are no numbers"
    few = np.unique(values_hw.ravel()[:: max(1, values_hw.size // 4096)])
    few = np.unique(values_hw) if len(few) <= 6 else few
    if len(few) <= 6 and values_hw.dtype.kind in "ui":
        return "with " + ", ".join(str(value) for value in few)
    form = "d" if values_hw.dtype.kind in "ui" else ".4g"
    return f"from {values_hw.min():{form}} to {values_hw.max():{form}}"


def _advice(values_hw: npt.NDArray[Any]) -> str:
    """How to make a mask of what is none."""
    if values_hw.dtype.kind != "f" and values_hw.min() < 0:
        return ""
    if values_hw.dtype.kind != "f":
        one = values_hw[values_hw != 0][0]
        return f"; for one object of an id map: mask=(ids == {one})"
    if np.isnan(values_hw).any():
        return "; for logits: mask=(logits > 0), which takes NaN for background"
    if values_hw.min() < 0:
        return "; for logits: mask=(logits > 0)"
    return "; for probabilities: mask=(probabilities > 0.5)" if values_hw.max() <= 1 else ""


def _points(table: Table) -> tuple[tuple[float, float, int], ...]:
    count = len(listed(table.values["points"]) or ())
    if count > MAX_POINTS:
        raise table.error(f"{table.where}: {count} points; expected at most {MAX_POINTS}")
    points = table.rows("points", 3, POINTS)
    if any(kind not in (0, 1) for _, _, kind in points):
        raise table.bad("points", POINTS)
    _check_pixels(table, [side for x, y, _ in points for side in (x, y)])
    return tuple((x, y, int(kind)) for x, y, kind in points)


def _box(table: Table) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = table.numbers("box", 4, BOX)
    if not (x0 < x1 and y0 < y1):
        raise table.bad("box", BOX)
    _check_pixels(table, (x0, y0, x1, y1))
    if x1 - x0 < 1 and y1 - y0 < 1:
        raise table.bad("box", "pixels, not fractions of the frame: this is less than one")
    return x0, y0, x1, y1


def _check_pixels(table: Table, coordinates: Any) -> None:
    for value in coordinates:
        if not 0 <= value <= MAX_SIDE:
            raise table.error(f"{table.where}: coordinate {value:g}; expected pixels, 0 to {MAX_SIDE}")
