"""The values that travel between the rooms: `Frame`, `Prompt`, `Masks`. They know numpy and OpenCV, and no room.

A value is made once, by one owner, and never changed after; so threads share it without a lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt

from .edges import Guide
from .errors import PromptError, SourceError, short
from .frame import Color, Frame, FrameId, ImageU8, Sampled, now_ns
from .prompt_schema import MAX_ID, Mask, PromptFields, as_id, as_mask
from .schema import convert, plain

__all__ = [
    "MAX_ID", "BoolMask", "Color", "Float32", "Frame", "FrameId", "ImageU8", "Masks", "Prompt", "Sampled", "as_prompt",
    "now_ns",
]  # fmt: skip

BoolMask = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Prompt:
    """Where an object is on one frame, in pixels of that frame: points, a box, both, or a mask.

    A prompt is checked and copied when it is made, so a `Prompt` that exists is valid.

    Attributes:
        id: the object's, 1 to 255.
        points: (x, y, 1) on the object, (x, y, 0) not on it.
        box: (x0, y0, x1, y1) around the object.
        mask: bool [H, W], of the frame's size.
        label: the object's name.
    """

    id: int
    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: BoolMask | None = None
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
            id: the object's, 1 to 255.
            points: (x, y, 1 for object or 0 for background); alone or with a box.
            box: (x0, y0, x1, y1).
            mask: bool [H, W], or 0/1, or 0/255, of any dtype and library; instead of points and box.
            label: the object's name.

        Raises:
            PromptError: the prompt is malformed, or says nothing.
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
        """The prompt that a file or a request holds: checked fields, and the mask that the reader made of theirs."""
        prompt = cls.__new__(cls)
        prompt._fill(fields, mask_hw)
        return prompt

    def _fill(self, fields: PromptFields, mask_hw: Mask | None) -> None:
        for name, value in {**fields.given(), "mask": mask_hw}.items():
            object.__setattr__(self, name, value)

    def check(self, height: int, width: int, *, first: bool) -> None:
        """Check that the prompt fits a frame.

        Arguments:
            height: of the frame, in pixels.
            width: of the frame, in pixels.
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
    """A value of the public API that has to be a `Prompt`."""
    if not isinstance(value, Prompt):
        raise PromptError(f"prompt = {short(value)}; expected a Prompt: rtseg.Prompt(1, points=[(x, y, 1)])")
    return value


@dataclass(frozen=True)
class Masks:
    """The tracker's answer for one frame: for each object a mask, a label, and two confidences.

    On the frame of a mask prompt the mask is the prompt's, with a score and an IoU of 1, as in SAM 2: the network was
    not asked. For a small or thin one it is asked; score and IoU are then those of what it finds on the same picture.

    Attributes:
        seq: the frame's number.
        session: the frame's session.
        captured_ns: when the frame was captured, in nanoseconds of the monotonic clock.
        done_ns: when the masks were done, on the same clock.
        height: of the frame, in pixels.
        width: of the frame, in pixels.
        ids: the B objects, in ascending order.
        labels: of each object.
        scores: of each object, the probability that it is visible on this frame.
        ious: of each object, the network's own estimate of its mask's IoU.
        mask_logits_bhw: float32 [B, h, w], at the network's resolution. Above 0 is the object. `logits` and `mask` give
            one object at frame size.
        warnings: lines about prompts on this frame whose objects are too small to be followed well.
        cut: whether another scene begins with this frame.
        lost: the ids of objects that are out of view, after a cut or because the camera turned away. Their masks are
            empty, and their scores 0, until they are found again.
    """

    seq: int
    session: str
    captured_ns: int
    done_ns: int
    height: int
    width: int
    ids: tuple[int, ...]
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    ious: tuple[float, ...]
    mask_logits_bhw: Float32 = field(repr=False)
    warnings: tuple[str, ...] = ()
    cut: bool = False
    lost: tuple[int, ...] = ()
    guide: Guide | None = field(default=None, repr=False, compare=False)
    _full: dict[int, Float32] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        logits_bhw = self.mask_logits_bhw.view()
        logits_bhw.flags.writeable = False
        object.__setattr__(self, "mask_logits_bhw", logits_bhw)

    def _index(self, object_id: int) -> int:
        object_id = as_id(object_id, "masks")
        try:
            return self.ids.index(object_id)
        except ValueError:
            known = ", ".join(map(str, self.ids)) or "none"
            raise KeyError(f"no object {object_id} on frame {self.seq}; there are: {known}") from None

    def on(self, frame: Frame) -> Masks:
        """The same masks with their edges at the picture's resolution.

        Near an edge a pixel goes with those around it that look like it. The picture is referred to, not copied.

        Arguments:
            frame: the one that the masks are of.

        Returns:
            Masks whose `logits`, `mask` and `id_map` are refined. It takes up to several ms an object.

        Raises:
            SourceError: the frame has another size.
        """
        if (frame.height, frame.width) != (self.height, self.width):
            found = f"frame {frame.seq} is {frame.width}x{frame.height}"
            raise SourceError(f"{found}; expected the one that the masks are of, {self.width}x{self.height}")
        return replace(self, guide=Guide(frame.image_hwc, *self.mask_logits_bhw.shape[1:]))

    def logits(self, object_id: int) -> Float32:
        """The mask logits of one object at frame size.

        Arguments:
            object_id: one of `ids`; `KeyError` for another.

        Returns:
            float32 [H, W], read-only. Resized bilinearly with half-pixel centres, as SAM 2 does, or as `on` says.
        """
        object_id = as_id(object_id, "masks")
        full_hw = self._full.get(object_id)
        if full_hw is None:  # two threads may both do this; the result is the same
            small = self.mask_logits_bhw[self._index(object_id)]
            size = self.width, self.height
            full = self.guide.fit(small) if self.guide else cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
            full_hw = np.asarray(full, np.float32)
            full_hw.flags.writeable = False  # `mask` and `id_map` are made of it
            self._full[object_id] = full_hw
        return full_hw

    def mask(self, object_id: int) -> BoolMask:
        """The mask of one object, bool [H, W] at frame size; `KeyError` for an unknown id."""
        return self.logits(object_id) > 0

    def score(self, object_id: int) -> float:
        """The probability that the object is visible on this frame, 0 to 1; `KeyError` for an unknown id."""
        return self.scores[self._index(object_id)]

    def iou(self, object_id: int) -> float:
        """The network's own estimate of the mask's IoU, 0 to 1; `KeyError` for an unknown id."""
        return self.ious[self._index(object_id)]

    def label(self, object_id: int) -> str:
        """The object's label; `KeyError` for an unknown id."""
        return self.labels[self._index(object_id)]

    def id_map(self) -> ImageU8:
        """All masks as one picture: the id of the object with the highest logit at each pixel, 0 where none is above 0.

        Returns:
            uint8 [H, W], at frame size.
        """
        ids_hw = np.zeros((self.height, self.width), np.uint8)
        best_hw = np.zeros((self.height, self.width), np.float32)
        for object_id in self.ids:
            logits_hw = self.logits(object_id)
            wins_hw = logits_hw > best_hw
            ids_hw[wins_hw] = object_id
            best_hw[wins_hw] = logits_hw[wins_hw]
        return ids_hw
