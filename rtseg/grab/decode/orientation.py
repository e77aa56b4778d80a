"""Orientation of a picture, from its display matrix, and the aspect ratio of its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.sidedata.sidedata import Type

from ...base.types import ImageU8

WIDEST = 16  # largest aspect ratio of a pixel, or its inverse; beyond, the number is damaged


@dataclass(frozen=True, slots=True)
class Orientation:
    """A display matrix of quarter turns: swap the axes, then mirror y, then mirror x."""

    swap: bool = False
    mirror_y: bool = False
    mirror_x: bool = False

    @classmethod
    def from_picture(cls, picture: av.VideoFrame) -> Orientation:
        """From a picture's display matrix; FFmpeg also makes one of the EXIF orientation tag."""
        # Not called for every picture: PyAV's side_data and its picture refer to each other, so only the garbage
        # collector frees them, and hundreds of megabytes pile up until it runs.
        try:
            data = picture.side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]  # PyAV's stub knows one name only
        except KeyError:
            return cls()
        # Displayed x = a*x + c*y, displayed y = b*x + d*y.
        a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(data), np.int32)[:5])
        swap = abs(b) > abs(a)
        return cls(swap, (b if swap else d) < 0, (c if swap else a) < 0)

    @property
    def text(self) -> str:
        """The rotation or mirroring in words, "" for none."""
        turned = {(0, 0, 0): "", (1, 0, 1): "90 degrees clockwise", (1, 1, 0): "90 degrees counter-clockwise",
                  (0, 1, 1): "180 degrees", (0, 0, 1): "mirrored left to right", (0, 1, 0): "mirrored top to bottom",
                  (1, 0, 0): "mirrored at its diagonal", (1, 1, 1): "mirrored at its other diagonal"}  # fmt: skip
        return turned[self.swap, self.mirror_y, self.mirror_x]

    def size(self, picture: av.VideoFrame) -> tuple[int, int]:
        """(width, height) of the upright picture."""
        return (picture.height, picture.width) if self.swap else (picture.width, picture.height)

    def upright(self, image_hwc: ImageU8) -> ImageU8:
        """The image, rotated and mirrored as it is meant to be displayed."""
        turned_hwc = image_hwc.transpose(1, 0, 2) if self.swap else image_hwc
        return np.ascontiguousarray(turned_hwc[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])

    def aspect(self, coded: Fraction | None) -> Fraction:
        """The aspect ratio (width / height) of a pixel of the upright picture; 1 if no sensible one is stated."""
        coded = coded or Fraction(1)
        if not Fraction(1, WIDEST) <= coded <= WIDEST:
            return Fraction(1)
        return 1 / coded if self.swap else coded


def _named_anyway(cls: type[Type], value: object) -> Type:
    """Name unknown side data: PyAV raises ValueError for a picture with side data that it does not know."""
    unknown: Any = object.__new__(cls)
    unknown._name_, unknown._value_ = f"UNKNOWN_{value}", value
    return cast(Type, unknown)


if "_missing_" not in vars(Type):
    Type._missing_ = classmethod(_named_anyway)  # type: ignore[method-assign,assignment]
