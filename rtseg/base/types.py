"""The values that travel between the rooms: `Frame`, `Prompt`, `Masks`. They know numpy and OpenCV, and no room.

A value is made once, by one owner, and never changed after; so threads share it without a lock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, Protocol, Self, runtime_checkable

import cv2
import numpy as np
import numpy.typing as npt

from .edges import Guide
from .errors import PromptError, SourceError, short
from .prompt_schema import MAX_ID, Mask, PromptFields, as_id, as_mask
from .schema import convert, plain

ImageU8 = npt.NDArray[np.uint8]
BoolMask = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]


@runtime_checkable
class Sampled(Protocol):
    """A picture that lies elsewhere, as on a GPU: numpy makes an array of it by bringing all of it here."""

    def sampled(self, width: int, height: int) -> ImageU8:
        """The few pixels [height, width, 3] that OpenCV's INTER_NEAREST takes of it, without the rest."""


def now_ns() -> int:
    """The one clock: monotonic, nanoseconds. Every stamp in rtseg comes from here."""
    return time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class Color:
    """How the source coded its colours, in FFmpeg's names; the picture itself is already full-range RGB."""

    matrix: str = "rgb"
    range: str = "full"
    primaries: str = "unknown"
    transfer: str = "unknown"


_RGB = Color()


@dataclass(frozen=True, slots=True)
class FrameId:
    """The identity of a frame: all that is known of it but its pixels.

    `seq` counts the source's frames from 0, also those that are dropped later. `height` and `width` are in pixels.
    `pts * time_base` is the source's own time in seconds. `captured_ns` is `now_ns()` at the moment the picture left
    the decoder. `pixfmt`, `color` and `interlaced` describe how the source coded it. `name` is what the source calls
    it, such as an image's file name; `sample_aspect` is the width of a pixel divided by its height.
    """

    seq: int
    height: int
    width: int
    session: str = ""
    pts: int = 0
    time_base: Fraction = Fraction(1, 25)
    captured_ns: int = field(default_factory=now_ns)
    pixfmt: str = "rgb24"
    color: Color = _RGB
    interlaced: bool = False
    name: str = ""
    sample_aspect: Fraction = Fraction(1)

    @property
    def seconds(self) -> float:
        """The source's own time of this frame, in seconds."""
        return float(self.pts * self.time_base)


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Frame(FrameId):
    """A picture with its identity. Two frames are equal only if they are the same object.

    Attributes:
        image_hwc: uint8 [H, W, 3], full-range RGB.
        seq: the frame's number in its source, from 0, counting frames that are dropped later too.
        session: a random name of the source; the same session and `seq` are the same picture.
        pts: the source's own time, in units of `time_base`.
        time_base: in seconds.
        captured_ns: the monotonic clock when the picture left the decoder, in nanoseconds.
        height: in pixels.
        width: in pixels.
        pixfmt: how the source coded its pixels, in FFmpeg's words.
        color: how the source coded its colours.
        interlaced: whether the source marked the picture as interlaced.
        truth_hw: uint8 [H, W], of the synthetic source only: the id of the object that is visible at each pixel, 0 for
            none.
        name: what the source calls it, such as an image's file name.
        sample_aspect: the width of a pixel divided by its height.
    """

    height: int = field(init=False)
    width: int = field(init=False)
    image_hwc: ImageU8 = field(kw_only=True)
    truth_hw: ImageU8 | None = None

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(
        self,
        image_hwc: ImageU8,
        seq: int,
        session: str = "",
        pts: int = 0,
        time_base: Fraction = Fraction(1, 25),
        captured_ns: int | None = None,
        pixfmt: str = "rgb24",
        color: Color = _RGB,
        interlaced: bool = False,
        truth_hw: ImageU8 | None = None,
        name: str = "",
        sample_aspect: Fraction = Fraction(1),
    ) -> None:
        """`captured_ns` is now, unless it is given."""
        height, width = int(image_hwc.shape[0]), int(image_hwc.shape[1])
        captured_ns = now_ns() if captured_ns is None else captured_ns
        coding = pixfmt, color, interlaced
        FrameId.__init__(self, seq, height, width, session, pts, time_base, captured_ns, *coding, name, sample_aspect)
        object.__setattr__(self, "image_hwc", image_hwc)
        object.__setattr__(self, "truth_hw", truth_hw)

    @classmethod
    def from_id(cls, frame_id: FrameId, image_hwc: ImageU8) -> Self:
        """The frame of this identity, with its pixels."""
        return cls(image_hwc, **{name: getattr(frame_id, name) for name in _ID_FIELDS})

    @property
    def id(self) -> FrameId:
        """The identity alone, which keeps no pixels in memory."""
        return FrameId(height=self.height, width=self.width, **{name: getattr(self, name) for name in _ID_FIELDS})


_ID_FIELDS = tuple(one.name for one in fields(FrameId) if one.name not in ("height", "width"))


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
