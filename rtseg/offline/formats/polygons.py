"""Masks as polygons, for formats that have only these: one closed line for each mask, whatever its holes and pieces.

A hole, or another piece, is joined to the rest by a line that goes there and back again and so has no area. A reader
that fills the polygon leaves the hole open; one that also draws the outline draws this line, one pixel wide.

There are two conventions for the outline, and what is exact for one kind of reader is a pixel off for the other:
through the centres of the outermost pixels (readers that fill with OpenCV, outline included), or along their edges
(readers that fill by area, such as pycocotools).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ...base.types import BoolMask

Points = np.ndarray[tuple[int, int], np.dtype[np.int64]]  # [N, 2]: x, y


@dataclass(slots=True)
class Loss:
    """What polygons lose: IoU of the polygons, filled as their readers fill them, with their masks."""

    masks: int = 0
    joined: int = 0  # masks with holes or several pieces
    total: float = 0.0
    least: float = 1.0
    where: str = ""

    def add(self, mask_hw: BoolMask, filled_hw: BoolMask, rings: int, where: str) -> None:
        """Count one mask. `filled_hw`: its polygon, filled; `rings`: the closed lines it was joined of."""
        iou = float((mask_hw & filled_hw).sum() / (mask_hw | filled_hw).sum())
        self.masks += 1
        self.joined += rings > 1
        self.total += iou
        if iou < self.least:
            self.least, self.where = iou, where

    def plain(self) -> dict[str, Any]:
        """For a file: how many masks, how many of them were joined, and the IoU."""
        mean = self.total / self.masks if self.masks else 1.0
        return {
            "masks": self.masks, "joined": self.joined, "iou_mean": round(mean, 6), "iou_least": round(self.least, 6),
            "least_at": self.where,
        }  # fmt: skip

    def line(self) -> str:
        """For the user."""
        if not self.masks:
            return "no object is visible on any frame"
        mean = self.total / self.masks
        worst = f", least {self.least:.4f} ({self.where})" if self.where else ""
        holes = f"; {self.joined} have holes or several pieces, joined by a line without area" if self.joined else ""
        return f"{self.masks} masks as polygons, IoU with the masks: mean {mean:.4f}{worst}{holes}"


def center_rings(mask_hw: BoolMask) -> list[Points]:
    """The closed lines through the centres of a mask's outermost pixels, holes after the piece that has them."""
    return _rings(mask_hw)


def edge_rings(mask_hw: BoolMask) -> list[Points]:
    """The closed lines along the edges of a mask's pixels, holes after the piece that has them."""
    doubled = mask_hw.repeat(2, axis=0).repeat(2, axis=1)
    # In the doubled mask each edge of a pixel lies between 2k - 1 and 2k, and both become k. The line cuts corners
    # between two such points, so a corner becomes one point.
    return [_without_repeats((ring + 1) // 2) for ring in _rings(doubled)]


def _rings(mask_hw: BoolMask) -> list[Points]:
    found, tree = cv2.findContours(mask_hw.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = []
    outer = [i for i in range(len(found)) if tree[0, i, 3] < 0]
    for i in sorted(outer, key=lambda i: -len(found[i])):
        rings.append(found[i])
        hole = int(tree[0, i, 2])
        while hole >= 0:
            rings.append(found[hole])
            hole = int(tree[0, hole, 0])
    return [ring.reshape(-1, 2).astype(np.int64) for ring in rings]


def _without_repeats(ring: Points) -> Points:
    return ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]


def joined(rings: list[Points]) -> Points:
    """One closed line of several: each is entered from its point that is nearest to the line so far, and left there."""
    line = rings[0]
    for ring in rings[1:]:
        across, down = (
            np.subtract.outer(line[:, axis].astype(np.int32), ring[:, axis].astype(np.int32)) for axis in (0, 1)
        )
        squares = across * across + down * down
        at, start = np.unravel_index(int(squares.argmin()), squares.shape)
        turned = np.roll(ring, -int(start), axis=0)
        line = np.concatenate([line[: at + 1], turned, turned[:1], line[at:]])
    return line
