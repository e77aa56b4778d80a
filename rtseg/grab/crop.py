"""Crops frames to the endoscope's field of view: the black surround and text such as name and clock are cut off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from ..base.errors import SourceError
from ..base.types import BoolMask, Frame, ImageU8

Box = tuple[int, int, int, int]  # x0, y0, x1, y1, the end excluded
HEIGHT = 270  # rows of the downscaled picture that is analysed
LIT, BRIGHT = 24, 44  # levels of the brightest channel: above noisy black; certainly lit
BLACK = 12  # highest median level of the surround; a dimly lit cavity wall is above it
GLYPH = 0.055  # of the height: anything thinner is text
AGREE = 0.03  # of the side: a sharp edge moves less than this between the two thresholds, a gradual one more
ENOUGH = 0.10  # of the picture must be certainly lit, or no box is found
DECIDE = 5  # frames that are analysed together
SIZES = 8  # picture sizes whose boxes are remembered


def parse_box(value: Any) -> Box:
    """A crop box as a user writes it, `[x0, y0, x1, y1]`, checked; `SourceError` if it is not one."""
    error = f"crop {value!r}: expected 'off', 'auto', or [x0, y0, x1, y1] with x0 < x1 and y0 < y1 in whole pixels"
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 4:
        raise SourceError(error)
    if not all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in value):
        raise SourceError(error)
    x0, y0, x1, y1 = value
    if not (x0 < x1 and y0 < y1):
        raise SourceError(error)
    if any(v % 2 for v in value):
        raise SourceError(f"crop {list(value)!r}: expected even numbers, because video codecs need even sizes")
    return x0, y0, x1, y1


def find_field(images_hwc: Sequence[ImageU8]) -> Box | None:
    """The box of the endoscope's field of view in frames of one size, uint8 [H, W, 3] each; None if they are too dark.

    Its numbers are even. A side of the box is the picture's own side unless there is a sharp edge from black: a picture
    that fills the frame is never cut.
    """
    height, width = images_hwc[0].shape[:2]
    scale = max(1, round(height / HEIGHT))
    small_hw = np.maximum.reduce([_small(image_hwc, scale) for image_hwc in images_hwc])
    sure_hw = _largest(small_hw > BRIGHT)
    if sure_hw is None or sure_hw.mean() < ENOUGH:
        return None
    field_hw = _largest(small_hw > LIT)
    assert field_hw is not None  # because `sure_hw` is part of it
    sides = _agreed(_bounds(field_hw), _bounds(sure_hw), small_hw)
    h, w = small_hw.shape
    x0, y0 = (max(0, v - 1) * scale // 2 * 2 for v in sides[:2])
    x1 = width if sides[2] >= w else min(width - width % 2, -(-(sides[2] + 1) * scale // 2) * 2)
    y1 = height if sides[3] >= h else min(height - height % 2, -(-(sides[3] + 1) * scale // 2) * 2)
    return x0, y0, x1, y1


def _small(image_hwc: ImageU8, scale: int) -> ImageU8:
    """The brightest channel (red tissue is dark in luma), averaged over squares of `scale` pixels."""
    height, width = image_hwc.shape[:2]
    size = (-(-width // scale), -(-height // scale))
    small_hwc = np.asarray(cv2.resize(image_hwc, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(small_hwc.max(2))


def _largest(lit_hw: BoolMask) -> BoolMask | None:
    """The largest lit region after everything as thin as text is removed; None if nothing is left."""
    side = max(3, round(GLYPH * lit_hw.shape[0])) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    padded_hw = cv2.copyMakeBorder(lit_hw.astype(np.uint8), side, side, side, side, cv2.BORDER_REPLICATE)
    opened_hw = cv2.morphologyEx(padded_hw, cv2.MORPH_OPEN, kernel)[side:-side, side:-side]
    count, labels_hw, stats, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(opened_hw), connectivity=4)
    if count < 2:
        return None
    return np.asarray(labels_hw == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()))


def _bounds(mask_hw: BoolMask) -> Box:
    rows, columns = np.flatnonzero(mask_hw.any(1)), np.flatnonzero(mask_hw.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _agreed(box: Box, sure: Box, small_hw: ImageU8) -> Box:
    """Each side of `box` where both boxes agree and only black would be cut off; else the picture's own side."""
    h, w = small_hw.shape
    whole = (0, 0, w, h)
    cut_off = (small_hw[:, : box[0]], small_hw[: box[1]], small_hw[:, box[2] :], small_hw[box[3] :])
    sides = []
    for side, strip_hw in enumerate(cut_off):
        clear = abs(box[side] - sure[side]) <= AGREE * (h if side % 2 else w)
        sides.append(box[side] if clear and strip_hw.size and np.median(strip_hw) <= BLACK else whole[side])
    return sides[0], sides[1], sides[2], sides[3]


def cropped(frame: Frame, box: Box) -> Frame | None:
    """The frame with only the pixels inside the box; None if the box does not lie inside the frame."""
    x0, y0, x1, y1 = box
    if x1 > frame.width or y1 > frame.height:
        return None
    if (x0, y0, x1, y1) == (0, 0, frame.width, frame.height):
        return frame
    truth_hw = None if frame.truth_hw is None else np.ascontiguousarray(frame.truth_hw[y0:y1, x0:x1])
    return replace(frame, image_hwc=np.ascontiguousarray(frame.image_hwc[y0:y1, x0:x1]), truth_hw=truth_hw)


class Cropper:
    """Crops frames: `off`, a box, or `auto`, which finds the field of view in the first frames of each picture size.

    Those frames are held back until it is found. A box that was found stays, also when the feed is lost and reconnects.
    While the picture is too dark to find it, frames are passed on uncropped.
    """

    def __init__(self, crop: Any, on_misfit: Callable[[], None]) -> None:
        self.auto, self._on_misfit = crop == "auto", on_misfit
        self.box: Box | None = None if crop in ("off", "auto") else parse_box(crop)
        self._boxes: dict[tuple[int, int], Box] = {}
        self._size = (0, 0)
        self._seen: list[Frame] = []  # frames held back since the last analysis
        self._dark = False  # the last analysis found it too dark: frames are no longer held back

    def __call__(self, frame: Frame) -> list[Frame]:
        """The frames to pass on, cropped: none while frames are held back, then several."""
        if not self.auto:
            return [self._cut(frame, self.box)]
        size, flushed = (frame.width, frame.height), []
        if size != self._size:
            flushed, self._size, self._dark = self.flush(), size, False
        if size in self._boxes:
            return [*flushed, self._cut(frame, self._boxes[size])]
        return flushed + self._analyse(frame, size)

    @property
    def current_box(self) -> Box | None:
        """The box that frames are cropped to now; None: they are not cropped."""
        return self._boxes.get(self._size) if self.auto else self.box

    def _analyse(self, frame: Frame, size: tuple[int, int]) -> list[Frame]:
        self._seen.append(frame)
        ready = [frame] if self._dark else self._seen
        if len(self._seen) < DECIDE:
            return ready if self._dark else []
        box = find_field([each.image_hwc for each in self._seen])
        self._seen, self._dark = [], box is None
        if box:
            if len(self._boxes) >= SIZES:
                self._boxes.clear()
            self._boxes[size] = box
        return [self._cut(each, box) for each in ready]

    def _cut(self, frame: Frame, box: Box | None) -> Frame:
        cut = cropped(frame, box) if box else frame
        if cut is None:  # a feed that changed its size is better shown uncropped than not at all
            self._on_misfit()
        return cut or frame

    def flush(self) -> list[Frame]:
        """The frames still held back when the feed ends, uncropped."""
        flushed, self._seen = [] if self._dark else self._seen, []
        return flushed
