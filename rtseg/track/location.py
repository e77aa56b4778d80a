"""Where an object is, moved along with the camera. This tells it from a twin when the camera turns away.

When the camera turns away from an object, the network follows whatever looks most like it, with the same confidence.
But while the location of the object is out of view, nothing in view is the object, unless it has moved there itself. So
each object has a location: the box of those components of its mask that continue the mask of the step before. While
the location is out of view, a mask without such a component is not the object's.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..base.types import Float32
from .cut_detector import SIZE, SmallPicture, motion

NEAR = 3.0  # cells (pixels of the 64 x 48 picture): the largest distance of a component that continues a location
DRIFT = 0.25  # cells a step that an object out of sight may have moved by itself
IN_VIEW = 0.75  # the share of the location's area: with less in view, the location is out of view
FOUND_AREA = 0.5  # a lost object is found when this share of the mask's area is at its location

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in cells, x1 and y1 not included
Component = tuple[Box, int]  # a connected component of a mask, and its area in cells


@dataclass(frozen=True, slots=True)
class Location:
    """`box`: where the object was last seen, moved along with the camera; `unseen`: steps since then."""

    box: Box
    unseen: int = 0

    @property
    def out_of_view(self) -> bool:
        """Whether the camera has turned away from this location."""
        x0, y0, x1, y1 = self.box
        width, height = (
            max(0.0, min(hi, size) - max(lo, 0)) for lo, hi, size in ((x0, x1, SIZE[0]), (y0, y1, SIZE[1]))
        )
        return width * height < IN_VIEW * (x1 - x0) * (y1 - y0)

    def moved(self, old: SmallPicture | None, new: SmallPicture | None) -> Location:
        """The location on the next picture, if the object is not seen there."""
        x0, y0, x1, y1 = self.box
        dx, dy = motion(old, new, self.box) if old and new and old is not new else (0.0, 0.0)
        return Location((x0 + dx, y0 + dy, x1 + dx, y1 + dy), self.unseen + 1)


def components(logits_hw: Float32) -> list[Component]:
    """The connected components of a mask, given as logits [h, w]."""
    covered_hw = cv2.resize((logits_hw > 0).astype(np.float32), SIZE, interpolation=cv2.INTER_AREA)
    _, _, stats, _ = cv2.connectedComponentsWithStats((covered_hw > 0).astype(np.uint8))
    return [((float(x), float(y), float(x + w), float(y + h)), int(area)) for x, y, w, h, area in stats[1:]]


def follow(
    location: Location | None, logits_hw: Float32 | None, old: SmallPicture | None, new: SmallPicture | None,
    lost: bool,
) -> tuple[Location | None, bool]:  # fmt: skip
    """The location of an object on the next picture, and whether the object is lost there.

    `logits_hw` is its mask, None where it is not visible; `old` and `new` are the pictures; `lost`: whether the object
    was lost before.
    """
    drawn = [] if logits_hw is None else components(logits_hw)
    if location is None:
        return _around(drawn), False
    near = _near(location, drawn)
    if drawn and not location.unseen and len(near) == len(drawn):
        return _around(near), False  # the usual case: the motion of the camera need not be known
    moved = location.moved(old, new)
    continued = _near(moved, drawn) or ([] if location.unseen else near)
    if lost and sum(area for _, area in continued) < FOUND_AREA * sum(area for _, area in drawn):
        continued = []
    if not continued and not lost and not moved.out_of_view:
        continued = drawn
    return (_around(continued), False) if continued else (moved, lost or bool(drawn))


def _near(location: Location, drawn: list[Component]) -> list[Component]:
    """The components that continue what was at a location."""
    near = NEAR + DRIFT * max(0, location.unseen - 1)
    return [component for component in drawn if _distance(component[0], location.box) <= near]


def _around(drawn: list[Component]) -> Location | None:
    """The location of these components; None if there are none."""
    if not drawn:
        return None
    x0, y0, x1, y1 = zip(*(box for box, _ in drawn), strict=True)
    return Location((min(x0), min(y0), max(x1), max(y1)))


def _distance(one: Box, other: Box) -> float:
    dx = max(0.0, one[0] - other[2], other[0] - one[2])
    dy = max(0.0, one[1] - other[3], other[1] - one[3])
    return float(np.hypot(dx, dy))
