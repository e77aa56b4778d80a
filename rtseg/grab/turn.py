"""The right way up, and the right shape: a display matrix in quarter turns, and how wide a pixel is shown."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.sidedata.sidedata import Type

from ..base.types import ImageU8

WIDEST = 16  # of a pixel for its height, or its inverse; more is damage


@dataclass(frozen=True, slots=True)
class Turn:
    """A display matrix in quarter turns: swap the axes, then mirror y, mirror x."""

    swap: bool = False
    mirror_y: bool = False
    mirror_x: bool = False

    @classmethod
    def of(cls, picture: av.VideoFrame) -> Turn:
        """What the picture's display matrix says, to which FFmpeg also brings the orientation tag of EXIF."""
        # Not for every picture: PyAV's side_data and its picture hold each other, so that only the garbage
        # collector frees them, and hundreds of megabytes wait for it.
        try:
            data = picture.side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]  # PyAV's stub knows one name only
        except KeyError:
            return cls()
        # Shown x = a*x + c*y, shown y = b*x + d*y.
        a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(data), np.int32)[:5])
        swap = abs(b) > abs(a)
        return cls(swap, (b if swap else d) < 0, (c if swap else a) < 0)

    @property
    def text(self) -> str:
        """In words, "" for none."""
        turned = {(0, 0, 0): "", (1, 0, 1): "90 degrees clockwise", (1, 1, 0): "90 degrees counter-clockwise",
                  (0, 1, 1): "180 degrees", (0, 0, 1): "mirrored left to right", (0, 1, 0): "mirrored top to bottom",
                  (1, 0, 0): "mirrored at its diagonal", (1, 1, 1): "mirrored at its other diagonal"}  # fmt: skip
        return turned[self.swap, self.mirror_y, self.mirror_x]

    def size(self, picture: av.VideoFrame) -> tuple[int, int]:
        """(width, height) of a picture once upright."""
        return (picture.height, picture.width) if self.swap else (picture.width, picture.height)

    def upright(self, image_hwc: ImageU8) -> ImageU8:
        """The image as it is meant to be seen."""
        turned_hwc = image_hwc.transpose(1, 0, 2) if self.swap else image_hwc
        return np.ascontiguousarray(turned_hwc[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])

    def aspect(self, coded: Fraction | None) -> Fraction:
        """How wide a pixel of an upright picture is shown, for its height; 1 where the stream says nothing sensible."""
        coded = coded or Fraction(1)
        if not Fraction(1, WIDEST) <= coded <= WIDEST:
            return Fraction(1)
        return 1 / coded if self.swap else coded


def _named_anyway(cls: type[Type], value: object) -> Type:
    """PyAV raises ValueError on a picture with side data that is newer than its list, such as EXIF: give it a name."""
    unknown: Any = object.__new__(cls)
    unknown._name_, unknown._value_ = f"UNKNOWN_{value}", value
    return cast(Type, unknown)


if "_missing_" not in vars(Type):
    Type._missing_ = classmethod(_named_anyway)  # type: ignore[method-assign,assignment]
