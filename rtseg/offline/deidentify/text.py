"""Burned-in text: where a picture has letters that a recorder, and not a camera, wrote. A heuristic that masks too
much.

Three signs, each in cells of a picture of at most 640 x 360 pixels:

- **beside the picture**: everything outside the lit part of an endoscope's picture is masked, whatever it is;
- **in the border** (8% of each side): thin strokes of high contrast;
- **over the picture**: such strokes, side by side, that stay at the same pixels. Where the picture moves, nothing else
  does; where it does not, some of its own lines are taken for text.

A cell that was found is masked for `HOLD` frames more, and for the frames before it that are read ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ...base.types import BoolMask, Float32, ImageU8
from .features import DARK
from .judge import Arrays

SIDE = (640, 360)  # pixels, at most, of the picture that is searched
CELL = 8  # its pixels, to a side of a cell
STROKE = (7, 30.0)  # pixels: wider than any stroke of a letter; grey levels by which it stands out
DENSE = 0.05  # the share of a cell that is stroke
STAYS, RATE = 0.75, 0.15  # how much of the latest frames a pixel of a stroke has to be one; the weight of the newest
BORDER = 0.08
HOLD = 12  # frames


@dataclass(frozen=True, slots=True, eq=False)
class TextFinder:
    """The state after some frames: a value.

    `stays_hw` is how much of the latest frames each pixel was stroke; `held_hw` for how many frames each cell stays
    masked.
    """

    stays_hw: Float32 | None = None
    held_hw: np.ndarray[Any, np.dtype[np.int16]] | None = None

    def after(self, image_hwc: ImageU8) -> TextFinder:
        """The state after one more picture, uint8 RGB [H, W, 3]; its `cells_hw` are what to mask there."""
        picture_hwc = _scaled(image_hwc)
        grey_hw = np.asarray(cv2.cvtColor(picture_hwc, cv2.COLOR_RGB2GRAY), np.uint8)
        strokes_hw = _strokes(grey_hw)
        rows, columns = -(-grey_hw.shape[0] // CELL), -(-grey_hw.shape[1] // CELL)
        before = self if self.stays_hw is not None and self.stays_hw.shape == grey_hw.shape else TextFinder()
        stays_hw = strokes_hw.astype(np.float32)
        if before.stays_hw is not None:
            stays_hw = before.stays_hw + np.float32(RATE) * (stays_hw - before.stays_hw)
        found_hw = _lines(_by_cell(stays_hw > STAYS, rows, columns) > DENSE)
        found_hw |= _border(rows, columns) & _lines(_by_cell(strokes_hw, rows, columns) > DENSE)
        found_hw |= _beside(picture_hwc, rows, columns)
        held_hw = np.zeros((rows, columns), np.int16) if before.held_hw is None else np.maximum(before.held_hw - 1, 0)
        held_hw = np.where(found_hw, np.int16(HOLD), held_hw).astype(np.int16)
        return TextFinder(stays_hw, held_hw)

    @property
    def cells_hw(self) -> BoolMask:
        """The cells to mask, [rows, columns] over the whole picture."""
        return np.zeros((1, 1), np.bool_) if self.held_hw is None else np.asarray(self.held_hw > 0)

    def arrays(self) -> Arrays:
        """The state as arrays."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}

    @classmethod
    def of(cls, arrays: Arrays) -> TextFinder:
        """The state that `arrays` gave."""
        return cls(**{name: arrays[name] for name in cls.__slots__ if name in arrays})


def _scaled(image_hwc: ImageU8) -> ImageU8:
    height, width = image_hwc.shape[:2]
    scale = min(1.0, SIDE[0] / width, SIDE[1] / height)
    if scale == 1:
        return image_hwc
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image_hwc, size, interpolation=cv2.INTER_AREA), np.uint8)


def _strokes(grey_hw: ImageU8) -> BoolMask:
    """Pixels of lines that are thinner than a letter's strokes may be, and much brighter or darker than both sides."""
    kernel = np.ones((STROKE[0], STROKE[0]), np.uint8)
    bright_hw = cv2.morphologyEx(grey_hw, cv2.MORPH_TOPHAT, kernel)
    dark_hw = cv2.morphologyEx(grey_hw, cv2.MORPH_BLACKHAT, kernel)
    return np.asarray(np.maximum(bright_hw, dark_hw) > STROKE[1])


def _by_cell(of_hw: BoolMask, rows: int, columns: int) -> Float32:
    """The share of each cell."""
    padded_hw = np.zeros((rows * CELL, columns * CELL), np.float32)
    padded_hw[: of_hw.shape[0], : of_hw.shape[1]] = of_hw
    return np.asarray(padded_hw.reshape(rows, CELL, columns, CELL).mean((1, 3)), np.float32)


def _lines(cells_hw: BoolMask) -> BoolMask:
    """Cells with another one beside them in their row, short gaps closed, and a margin."""
    closed_hw = cv2.morphologyEx(cells_hw.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((1, 5), np.uint8))
    pairs_hw = cv2.morphologyEx(closed_hw, cv2.MORPH_OPEN, np.ones((1, 2), np.uint8))
    return np.asarray(cv2.dilate(pairs_hw, np.ones((3, 5), np.uint8)) > 0)


def _border(rows: int, columns: int) -> BoolMask:
    border_hw = np.ones((rows, columns), np.bool_)
    y, x = max(1, round(BORDER * rows)), max(1, round(BORDER * columns))
    border_hw[y:-y, x:-x] = False
    return border_hw


def _beside(picture_hwc: ImageU8, rows: int, columns: int) -> BoolMask:
    """Cells that lie wholly outside the hull of the lit part of the picture."""
    lit_hw = (picture_hwc.max(2) > DARK).astype(np.float32)
    lit_hw = (cv2.resize(lit_hw, (columns, rows), interpolation=cv2.INTER_AREA) > 0.5).astype(np.uint8)
    lit_hw = cv2.morphologyEx(lit_hw, cv2.MORPH_OPEN, np.ones((7, 7), np.uint8))  # lines of text are thinner
    count, labels_hw, stats, _ = cv2.connectedComponentsWithStats(lit_hw, connectivity=4)
    if count < 2:
        return np.ones((rows, columns), np.bool_)
    largest_hw = (labels_hw == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    hull = cv2.convexHull(cv2.findNonZero(largest_hw))
    inside_hw = cv2.fillConvexPoly(np.zeros((rows, columns), np.uint8), hull, 1)
    return np.asarray(cv2.dilate(inside_hw, np.ones((3, 3), np.uint8)) == 0)
