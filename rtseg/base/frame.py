"""A frame: a picture with its identity.

A value is made once, by one owner, and never changed after; so threads share it without a lock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

ImageU8 = npt.NDArray[np.uint8]


@runtime_checkable
class Sampled(Protocol):
    """A picture in other memory, such as a GPU's. Making a numpy array of it copies the whole picture to the host."""

    def sampled(self, width: int, height: int) -> ImageU8:
        """The pixels, uint8 [height, width, 3], that OpenCV's INTER_NEAREST would pick; only these are copied."""

    def resized(self, width: int, height: int) -> ImageU8:
        """The picture, uint8 [height, width, 3], as OpenCV's INTER_LINEAR makes it; only this is copied."""


def now_ns() -> int:
    """The only clock of rtseg: monotonic, in nanoseconds. Every time stamp comes from here."""
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
        """Arguments are the attributes; `captured_ns` None is now."""
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
