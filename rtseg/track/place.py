"""Where an object is, carried along by the motion of the picture: what tells it from its twin when the camera turns.

Where the camera turns away from an object, the network takes up whatever looks most like it; of a twin it is as sure as
of the object. But while the place where the object was is out of view, nothing in view is the object, unless it has
moved there itself. So each object has a place: the box of those parts of its mask that continue what was its mask
before. A mask without such a part, while the place is out of view, is somebody else's.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..base.types import Float32
from .scene import SIZE, View, motion

NEAR = 3.0  # cells of the small picture (64 x 48) from the place: a part that is so near continues it
STRAYS = 0.25  # cells a step that an object out of sight may have moved by itself
INSIDE = 0.75  # of the place: less in view, and the object is leaving
MOST = 0.5  # of what is drawn has to be at the place of an object that was lost

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in cells, the last ones not included
Part = tuple[Box, int]  # a connected part of a mask, and its area


@dataclass(frozen=True, slots=True)
class Place:
    """`box`: where the object was when it was seen last, carried along; `unseen`: steps since then."""

    box: Box
    unseen: int = 0

    @property
    def out_of_view(self) -> bool:
        """Whether the picture's motion has carried it away."""
        x0, y0, x1, y1 = self.box
        width, height = (
            max(0.0, min(hi, size) - max(lo, 0)) for lo, hi, size in ((x0, x1, SIZE[0]), (y0, y1, SIZE[1]))
        )
        return width * height < INSIDE * (x1 - x0) * (y1 - y0)

    def carried(self, old: View | None, new: View | None) -> Place:
        """The place on the next picture, where the object has not been seen yet."""
        x0, y0, x1, y1 = self.box
        dx, dy = motion(old, new, self.box) if old and new and old is not new else (0.0, 0.0)
        return Place((x0 + dx, y0 + dy, x1 + dx, y1 + dy), self.unseen + 1)


def parts(logits_hw: Float32) -> list[Part]:
    """The connected parts of a mask."""
    cover_hw = cv2.resize((logits_hw > 0).astype(np.float32), SIZE, interpolation=cv2.INTER_AREA)
    _, _, stats, _ = cv2.connectedComponentsWithStats((cover_hw > 0).astype(np.uint8))
    return [((float(x), float(y), float(x + w), float(y + h)), int(area)) for x, y, w, h, area in stats[1:]]


def follow(
    place: Place | None, logits_hw: Float32 | None, old: View | None, new: View | None, lost: bool
) -> tuple[Place | None, bool]:
    """The place of an object on the next picture, and whether it is lost there, or still, if it was.

    `logits_hw`: its mask, None where nothing is shown; `old`, `new`: the pictures.
    """
    drawn = [] if logits_hw is None else parts(logits_hw)
    if place is None:
        return _around(drawn), False
    near = _near(place, drawn)
    if drawn and not place.unseen and len(near) == len(drawn):
        return _around(near), False  # as nearly always: nobody has to know how the picture moved
    carried = place.carried(old, new)
    here = _near(carried, drawn) or ([] if place.unseen else near)
    if lost and sum(area for _, area in here) < MOST * sum(area for _, area in drawn):
        here = []
    if not here and not lost and not carried.out_of_view:
        here = drawn
    return (_around(here), False) if here else (carried, lost or bool(drawn))


def _near(place: Place, drawn: list[Part]) -> list[Part]:
    """The parts that continue what was at a place."""
    near = NEAR + STRAYS * max(0, place.unseen - 1)
    return [part for part in drawn if _distance(part[0], place.box) <= near]


def _around(drawn: list[Part]) -> Place | None:
    """The place of these parts; None: there are none."""
    if not drawn:
        return None
    x0, y0, x1, y1 = zip(*(box for box, _ in drawn), strict=True)
    return Place((min(x0), min(y0), max(x1), max(y1)))


def _distance(one: Box, other: Box) -> float:
    dx = max(0.0, one[0] - other[2], other[0] - one[2])
    dy = max(0.0, one[1] - other[3], other[1] - one[3])
    return float(np.hypot(dx, dy))
