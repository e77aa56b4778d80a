"""Scene cuts, detected from the pictures alone.

Each picture is reduced to 64 x 48 grey pixels. Lighting is removed: each pixel is expressed in standard deviations from
the mean around it, so that a lamp that dims, a flash or smoke changes little. If two consecutive pictures differ nearly
everywhere, the first is warped along the optical flow and compared with the second again. Warping explains what a pan
or an instrument changed; it does not explain another scene. Pixels without texture, overexposed or black, are not valid
and do not count. A picture with hardly any valid pixels (a white flash, a black frame) or of static noise shows no
scene, and is skipped.

A dissolve is not detected: none of its frames differs much from the one before.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..base.types import BoolMask, Float32, ImageU8, Sampled

SIZE = (64, 48)  # width and height of the small picture
SAMPLED = (128, 96)  # width and height of the picture, sampled, from which it is averaged
CELLS = (8, 6)  # columns and rows of cells that are compared
NEIGHBOURHOOD = (15, 15)  # pixels of the small picture over which lighting is averaged
UNIT = 40.0  # grey values that stand for one standard deviation
FLAT, DARK, BRIGHT = 3.0, 12.0, 243.0  # grey values: a pixel with less contrast, or beyond these, is not valid
MIN_VALID = 0.15  # the share of the picture that has to be valid
STATIC = 1.1  # standard deviations: neighbours differ by 1.4 in white noise, and by less than 0.9 in pictures
DIFFERENT = 0.42  # standard deviations by which all but the share `SAME` of the cells differ at a cut
# (share of the hues that changed, residual after warping that makes a cut): fewer changed hues need a larger residual.
RESIDUALS = ((0.15, 0.55), (0.3, 0.38), (1.0, 0.32))
GREY, GREY_RESIDUAL = 0.9, 0.38  # with a larger share of one hue, hues tell nothing: this residual makes a cut
SURELY_SAME = 0.25  # standard deviations on average: a difference this small excludes `DIFFERENT`
SAME = 0.35  # the share of cells that may stay the same at a cut: a border around the picture, a menu on it
STANDS_OUT = 1.2  # times the usual difference: where everything moves, a cut has to differ more than that
# If this share of the valid pixels turned overexposed or black, it is a flash: wait for its end, this many frames.
FLASHED, PATIENCE = 0.3, 3


@dataclass(frozen=True, slots=True, eq=False)
class SmallPicture:
    """One picture as it is compared: `small_hwc` in colour, `shape_hw` without lighting, `valid_hw` 1 where valid."""

    small_hwc: ImageU8
    shape_hw: ImageU8
    valid_hw: Float32
    extreme_hw: BoolMask  # overexposed or black

    @property
    def valid(self) -> float:
        """The share of valid pixels."""
        return cv2.mean(self.valid_hw)[0]


@dataclass(frozen=True, slots=True, eq=False)
class CutDetector:
    """The state of cut detection: a value, so that a step that fails leaves it unchanged.

    `picture` is the latest picture that showed a scene, None before the first; `usual` is the average difference of
    consecutive pictures; `waited` counts the frames of a flash so far.
    """

    picture: SmallPicture | None = None
    usual: float = 0.0
    waited: int = 0

    def update(self, image_hwc: ImageU8 | Sampled) -> tuple[CutDetector, bool]:
        """The state after one more picture, uint8 [H, W, 3] RGB, and whether a new scene begins with it."""
        new, old = _small_picture(image_hwc), self.picture
        if new.valid < MIN_VALID:
            return self, False
        if old is None:
            return (self if _is_static(new) else CutDetector(new)), False
        both_hw = new.valid_hw * old.valid_hw
        mean = cv2.mean(cv2.absdiff(new.shape_hw, old.shape_hw))[0] / UNIT
        if mean < SURELY_SAME and cv2.mean(both_hw)[0] > SURELY_SAME:  # most pictures are like the one before
            return CutDetector(new, 0.7 * self.usual + 0.3 * mean), False
        flashed = float((old.valid_hw * new.extreme_hw).mean())
        if flashed > FLASHED * old.valid and self.waited < PATIENCE:
            return CutDetector(old, self.usual, self.waited + 1), False
        if _is_static(new):
            return self, False
        if cv2.mean(both_hw)[0] < MIN_VALID:  # nothing to compare: no pixel is valid in both
            return CutDetector(new, self.usual), False
        change = _difference(new.shape_hw, old.shape_hw, both_hw)
        cut = change > max(DIFFERENT, STANDS_OUT * self.usual) and _is_unexplained(new, old, both_hw)
        usual = self.usual if cut else 0.7 * self.usual + 0.3 * change
        return CutDetector(new, usual), cut


def _small_picture(image_hwc: ImageU8 | Sampled) -> SmallPicture:
    """The small picture that is compared."""
    if isinstance(image_hwc, np.ndarray):
        # INTER_NEAREST reads only these pixels.
        sampled_hwc = cv2.resize(image_hwc, SAMPLED, interpolation=cv2.INTER_NEAREST)
    else:
        sampled_hwc = image_hwc.sampled(*SAMPLED)
    small_hwc = cv2.resize(sampled_hwc, SIZE, interpolation=cv2.INTER_AREA)
    grey_hw = cv2.cvtColor(small_hwc, cv2.COLOR_RGB2GRAY).astype(np.float32)
    mean_hw = cv2.blur(grey_hw, NEIGHBOURHOOD, borderType=cv2.BORDER_REFLECT)
    square_hw = cv2.blur(grey_hw * grey_hw, NEIGHBOURHOOD, borderType=cv2.BORDER_REFLECT)
    deviation_hw = np.sqrt(np.maximum(square_hw - mean_hw * mean_hw, 0))
    shape_hw = np.clip(128 + UNIT * (grey_hw - mean_hw) / (deviation_hw + 4), 0, 255).astype(np.uint8)
    extreme_hw = (mean_hw <= DARK) | (mean_hw >= BRIGHT)
    valid_hw = ((deviation_hw > FLAT) & ~extreme_hw).astype(np.float32)
    return SmallPicture(np.asarray(small_hwc, np.uint8), shape_hw, valid_hw, extreme_hw)


def _hue_histogram(picture: SmallPicture) -> Float32:
    """The share of each hue in a picture; the sum is 1."""
    hues_hwc = cv2.cvtColor(picture.small_hwc, cv2.COLOR_RGB2YCrCb)
    counts = cv2.calcHist([hues_hwc], [1, 2], None, [16, 16], [64, 192, 64, 192]).ravel()
    return np.asarray(counts / max(float(counts.sum()), 1), np.float32)


def _is_static(picture: SmallPicture) -> bool:
    """Whether neighbouring pixels are unrelated, as in static noise."""
    shape_hw = picture.shape_hw
    spread = cv2.mean(cv2.absdiff(shape_hw, np.full_like(shape_hw, 128)))[0]
    return cv2.mean(cv2.absdiff(shape_hw[:, 1:], shape_hw[:, :-1]))[0] > STATIC * max(spread, 1.0)


def _difference(one_hw: ImageU8, other_hw: ImageU8, valid_hw: Float32) -> float:
    """The least difference, in standard deviations, of two pictures in all valid cells but the most similar `SAME`."""
    differ_hw = cv2.absdiff(one_hw, other_hw).astype(np.float32) * valid_hw
    weight = cv2.resize(valid_hw, CELLS, interpolation=cv2.INTER_AREA).ravel()
    total = cv2.resize(differ_hw, CELLS, interpolation=cv2.INTER_AREA).ravel()
    valid = weight > 0.3
    if not valid.any():
        return 0.0
    cells = np.sort(total[valid] / weight[valid])
    return float(cells[int(SAME * len(cells))]) / UNIT


def _is_unexplained(new: SmallPicture, old: SmallPicture, valid_hw: Float32) -> bool:
    """Whether motion does not explain how the new picture differs from the old one."""
    flow_hw2 = _FLOW.calc(new.shape_hw, old.shape_hw, None)  # type: ignore[call-overload]
    warped_hw = cv2.remap(  # type: ignore[call-overload]
        old.shape_hw, _GRID_HW2 + flow_hw2, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    residual = _difference(new.shape_hw, warped_hw, valid_hw)
    hues = _hue_histogram(new), _hue_histogram(old)
    if min(hues[0].max(), hues[1].max()) > GREY:
        return residual > GREY_RESIDUAL
    changed_hues = 1 - float(np.minimum(*hues).sum())
    return residual > next(needed for most, needed in RESIDUALS if changed_hues <= most or most == 1.0)


def motion(old: SmallPicture, new: SmallPicture, without: tuple[float, float, float, float]) -> tuple[float, float]:
    """The motion of the camera in pixels of the small picture, x and y: the median flow outside the box `without`."""
    flow_hw2 = _FLOW.calc(old.shape_hw, new.shape_hw, None)  # type: ignore[call-overload]
    counted_hw = old.valid_hw > 0
    x0, y0, x1, y1 = (max(0, round(v)) for v in without)
    outside = np.count_nonzero(counted_hw) - np.count_nonzero(counted_hw[y0:y1, x0:x1])
    if outside > MIN_VALID * counted_hw.size:
        counted_hw[y0:y1, x0:x1] = False
    if not counted_hw.any():
        return 0.0, 0.0
    dx, dy = np.median(flow_hw2[counted_hw], axis=0)
    return float(dx), float(dy)


def _flow() -> cv2.DISOpticalFlow:
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow.setFinestScale(1)  # the finest scale takes four times as long, and finds no more
    return flow


_FLOW = _flow()
_GRID_HW2 = np.stack(np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1])), axis=-1).astype(np.float32)
