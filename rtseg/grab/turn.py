"""The right way up: a display matrix in quarter turns."""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np

from ..types import ImageU8


@dataclass(frozen=True, slots=True)
class Turn:
    """A display matrix in quarter turns: swap the axes, then mirror y, mirror x."""

    swap: bool = False
    mirror_y: bool = False
    mirror_x: bool = False

    @classmethod
    def of(cls, picture: av.VideoFrame) -> Turn:
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

    def size(self, picture: av.VideoFrame) -> tuple[int, int]:
        """(width, height) of a picture once upright."""
        return (picture.height, picture.width) if self.swap else (picture.width, picture.height)

    def upright(self, image_hwc: ImageU8) -> ImageU8:
        """The image as it is meant to be seen."""
        turned_hwc = image_hwc.transpose(1, 0, 2) if self.swap else image_hwc
        return np.ascontiguousarray(turned_hwc[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])
