"""The schema of a prompt, for the public API, prompt files, stream profiles and the control socket.

All of them give a table of `PromptFields`; only the form of a mask differs. The result is checked, and a copy that the
caller cannot change. An ambiguous prompt is refused with what was found and how to write it clearly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import UNSET, Meta, Struct, UnsetType

from .errors import PromptError, RtsegError, short
from .schema import Finite, Text, convert_value, mistake

MAX_ID = 255  # of an object: ids are pixel values in palette images, where 0 is the background
MAX_INT = (1 << 63) - 1  # of a frame number, which is sent in eight bytes
MAX_SIDE = 16384  # of a picture
MAX_POINTS, MAX_LABEL = 64, 64  # of a prompt; of a label, in characters
POINTS = "points like [[x, y, 1 or 0], ...]"
BOX = "a box like [x0, y0, x1, y1] with x0 < x1 and y0 < y1"
MASK = "bool, 0/1 or 0/255"
KINDS = "points, a box, points with a box, or a mask alone"

ObjectId = Annotated[int, Meta(ge=1, le=MAX_ID)]
FrameNumber = Annotated[int, Meta(ge=0, le=MAX_INT)]
Point = tuple[Finite, Finite, Literal[0, 1]]
Mask = npt.NDArray[np.bool_]
Advice = Callable[[npt.NDArray[Any]], str]


class PromptFields(Struct, frozen=True, kw_only=True):
    """The keys of a prompt. Coordinates are pixels of the frame, 0 to `MAX_SIDE`."""

    id: ObjectId
    label: Text | UnsetType = UNSET
    points: Annotated[tuple[Point, ...], Meta(min_length=1, description=POINTS)] | UnsetType = UNSET
    box: Annotated[tuple[Finite, Finite, Finite, Finite], Meta(description=BOX)] | UnsetType = UNSET
    mask: Any = UNSET

    def __post_init__(self) -> None:
        found = [key for key in ("points", "box", "mask") if getattr(self, key) is not UNSET]
        if not found or ("mask" in found and len(found) > 1):
            raise ValueError(f"found {' and '.join(found) or 'neither points, box nor mask'}; expected {KINDS}")
        if self.label is not UNSET:
            _check_label(self.label)
        if self.points is not UNSET:
            _check_points(self.points)
        if self.box is not UNSET:
            _check_box(self.box)

    def given(self) -> dict[str, Any]:
        """All fields except the mask, with the defaults of a `Prompt`."""
        defaults: dict[str, Any] = {"points": (), "box": None, "label": None}
        found = {key: getattr(self, key) for key in defaults}
        return {"id": self.id} | {key: defaults[key] if value is UNSET else value for key, value in found.items()}


def as_id(value: object, where: str, error: type[RtsegError] = PromptError) -> int:
    """An object's id, 1 to 255: `int(value)` where it is a whole number, else `error`."""
    return int(convert_value(value, ObjectId, f"{where}: id", error))


def as_ids(values: object, where: str) -> list[int]:
    """A list of object ids; `PromptError` for anything else."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise PromptError(f"{where}: ids = {short(values)}; expected a list of object ids")
    return [as_id(value, where) for value in values]


def as_label(value: object, where: str, error: type[RtsegError] = PromptError) -> str:
    """An object's label: one printable line of at most `MAX_LABEL` characters, else `error`."""
    label = str(convert_value(value, Text, f"{where}: label", error))
    try:
        _check_label(label)
    except ValueError as e:
        raise error(f"{where}: {e}") from None
    return label


def as_mask(value: object, name: str, error: type[RtsegError], advice: Advice | None = None) -> Mask:
    """A mask as bool [H, W]: a read-only copy.

    Arguments:
        value: an array, tensor, picture or list, [H, W], [1, H, W] or [H, W, 1]; of bool, of 0 and 1, or of 0 and 255
            (in 16 bits 0 and 65535), whatever the type. A mask of nothing or of everything is refused.
        name: names it in the error line.
        error: the class of the error.
        advice: the end of the error line for an array [H, W] that is not a mask; None for that of the public API.
    """
    values_hw = _plane(value, name, error)
    if values_hw.dtype == np.bool_:
        mask_hw = values_hw
    else:
        mask_hw = values_hw != 0
        tops = (1, 255, 65535) if values_hw.dtype == np.uint16 else (1, 255)
        if not any(bool(((values_hw == top) == mask_hw).all()) for top in tops):
            found = f"{values_hw.dtype} {_span(values_hw)}"
            raise error(f"{name} is {found}; expected {MASK}{(advice or _advice)(values_hw)}")
    if not mask_hw.any():
        raise error(f"{name} is empty; expected at least one pixel of the object")
    if mask_hw.all():
        size = "x".join(map(str, mask_hw.shape[::-1]))
        raise error(
            f"{name} covers all of its {size} pixels; expected background too; an object that fills the frame: a box"
        )
    owner: object = mask_hw.base
    if isinstance(owner, bytes):
        return mask_hw  # a read-only copy that an earlier call made
    return np.ndarray(mask_hw.shape, np.bool_, mask_hw.tobytes())


def _plane(value: Any, name: str, error: type[RtsegError]) -> npt.NDArray[Any]:
    """Any kind of array as a numpy array [H, W]."""
    expected = f"expected an array [H, W] of {MASK}"
    if type(value).__name__ == "MaskedArray":
        raise error(f"{name} is a masked array; {expected}: mask.filled(0)")
    try:
        if hasattr(value, "detach"):  # a tensor, on any device
            value = value.detach().cpu()
            value = value.float() if "bfloat16" in str(value.dtype) else value
        values = np.asarray(value)
    except Exception as e:  # a ragged list, a sparse tensor, a class of another library
        raise error(f"{name} = {short(value)} is no array ({' '.join(str(e).split())[:80]}); {expected}") from e
    if values.dtype.kind not in "buif" or isinstance(value, str | bytes):
        found = f"a {type(value).__name__}" if values.ndim == 0 else f"an array of {values.dtype}"
        raise error(f"{name} is {found}; {expected}")
    shape = values.shape
    while values.ndim > 2 and 1 in (values.shape[0], values.shape[-1]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2 or not all(0 < side <= MAX_SIDE for side in values.shape):
        raise error(f"{name} has the shape {list(shape)}; expected [H, W], 1 to {MAX_SIDE} a side")
    return values


def _span(values_hw: npt.NDArray[Any]) -> str:
    """The values of a mask in words: each value if there are few, else the range."""
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
    """How to turn an array that is not a mask into one."""
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


def _check_label(label: str) -> None:
    if len(label) > MAX_LABEL or not label.isprintable() or not label.strip():
        raise mistake("label", label, f"one line of 1 to {MAX_LABEL} characters")


def _check_points(points: tuple[Point, ...]) -> None:
    if len(points) > MAX_POINTS:
        raise ValueError(f"{len(points)} points; expected at most {MAX_POINTS}")
    _check_pixels(side for x, y, _ in points for side in (x, y))


def _check_box(box: tuple[float, float, float, float]) -> None:
    x0, y0, x1, y1 = box
    if not (x0 < x1 and y0 < y1):
        raise mistake("box", list(box), BOX)
    _check_pixels(box)
    if x1 - x0 < 1 and y1 - y0 < 1:
        raise mistake("box", list(box), "pixels, not fractions of the frame: this is less than one")


def _check_pixels(coordinates: Iterable[float]) -> None:
    for value in coordinates:
        if not 0 <= value <= MAX_SIDE:
            raise ValueError(f"coordinate {value:g}; expected pixels, 0 to {MAX_SIDE}")
