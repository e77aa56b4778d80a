"""A prompt as a value: where an object is on one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from .errors import PromptError, short
from .prompt_schema import MAX_ID, Mask, PromptFields, as_mask
from .schema import convert, plain


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Prompt:
    """Where an object is on one frame, in pixels of that frame: points, a box, both, or a mask.

    A prompt is checked and copied when it is made, so a `Prompt` that exists is valid.

    Attributes:
        id: the object's id, 1 to 255.
        points: (x, y, 1) on the object, (x, y, 0) not on it.
        box: (x0, y0, x1, y1) around the object.
        mask: bool [H, W], of the frame's size.
        label: the object's name.
    """

    id: int
    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: Mask | None = None
    label: str | None = None

    def __init__(
        self,
        id: int,
        points: Sequence[Sequence[float]] = (),
        box: Sequence[float] | None = None,
        mask: Any = None,
        label: str | None = None,
    ) -> None:
        """Check and copy a prompt.

        Arguments:
            id: the object's id, 1 to 255.
            points: (x, y, 1 for object or 0 for background); alone or with a box.
            box: (x0, y0, x1, y1).
            mask: bool [H, W], or 0/1, or 0/255, of any dtype and library; instead of points and box.
            label: the object's name.

        Raises:
            PromptError: the prompt is malformed or empty.
        """
        points = plain(points)
        given = {"points": None if points == [] else points, "box": box, "mask": mask, "label": label}
        values = {"id": id, **{key: value for key, value in given.items() if value is not None}}
        number = plain(id)
        where = f"prompt for object {number}" if type(number) is int and 1 <= number <= MAX_ID else "prompt"
        fields = convert(values, PromptFields, where, PromptError)
        self._fill(fields, None if mask is None else as_mask(mask, f"{where}: mask", PromptError))

    @classmethod
    def from_fields(cls, fields: PromptFields, mask_hw: Mask | None) -> Self:
        """The prompt of a file or a request, from its checked fields and its mask, bool [H, W], as read from there."""
        prompt = cls.__new__(cls)
        prompt._fill(fields, mask_hw)
        return prompt

    def _fill(self, fields: PromptFields, mask_hw: Mask | None) -> None:
        for name, value in {**fields.given(), "mask": mask_hw}.items():
            object.__setattr__(self, name, value)

    def check(self, height: int, width: int, *, first: bool) -> None:
        """Check that the prompt fits a frame.

        Arguments:
            height: the frame's height in pixels.
            width: the frame's width in pixels.
            first: whether it is the object's first prompt, which has to point at the object. A correction may be a
                click on the background alone.

        Raises:
            PromptError: it does not fit.
        """
        who, size = f"prompt for object {self.id}", f"{width}x{height}"
        if self.mask is not None and self.mask.shape != (height, width):
            shape = "x".join(map(str, self.mask.shape[::-1]))
            raise PromptError(f"{who}: the mask is {shape}, the frame is {size}; expected the same size")
        for x, y, _ in self.points:
            if not (x < width and y < height):
                raise PromptError(f"{who}: point ({x:g}, {y:g}) lies outside the {size} frame")
        if first and self.mask is None and self.box is None and not any(kind for _, _, kind in self.points):
            raise PromptError(f"first {who}: only background points; expected a point with label 1, a box or a mask")
        if self.box is not None and not (self.box[2] <= width and self.box[3] <= height):
            raise PromptError(f"{who}: box {self.box}; expected x0 < x1 and y0 < y1 inside the {size} frame")


def as_prompt(value: object) -> Prompt:
    """The value, if it is a `Prompt`; otherwise `PromptError`."""
    if not isinstance(value, Prompt):
        raise PromptError(f"prompt = {short(value)}; expected a Prompt: rtseg.Prompt(1, points=[(x, y, 1)])")
    return value
