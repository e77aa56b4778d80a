"""Where one scene ends and another begins, found from the pictures alone.

Each picture is sampled to 64 x 48 grey pixels, whatever its size, and freed of its light: every pixel is counted in
deviations from the mean around it, so that a lamp that dims, a flash or smoke changes little. If the two pictures
differ nearly everywhere, the second is compared again with the first moved along its optical flow: what a pan or an
instrument did can be explained so, another scene cannot. Areas without texture, washed out or black, have no say; a
picture that is all like this (a white flash, a black frame, static) is no scene, and is passed over.

A dissolve has no frame that differs from the one before; it is not found.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..base.types import BoolMask, Float32, ImageU8, Sampled

SIZE = (64, 48)  # of the small picture
SAMPLED = (128, 96)  # of the pixels that it is made of
CELLS = (8, 6)  # the places that are compared
AROUND = (15, 15)  # pixels of the small picture that light is averaged over
UNIT = 40.0  # grey values of a deviation
FLAT, DARK, BRIGHT = 3.0, 12.0, 243.0  # grey values: less contrast, or beyond these, and a pixel has no say
LEAST = 0.15  # of the picture has to have a say
STATIC = 1.1  # of a deviation: neighbours differ by 1.4 in white noise, and by less than 0.9 in pictures
DIFFERENT = 0.42  # deviations by which all but `ALIKE` of the cells differ
# What has to remain of that once the picture was moved along the flow: more where so little of the hues is other.
REMAINS = ((0.15, 0.55), (0.3, 0.38), (1.0, 0.32))
GREY, GREY_REMAINS = 0.9, 0.38  # of a picture is of one hue: its hues say nothing
SURELY_ALIKE = 0.25  # on average, in deviations: so little leaves no room for `DIFFERENT`
ALIKE = 0.35  # of the cells may be the same: a frame around the picture, a menu on it
STANDS_OUT = 1.2  # times the usual difference: where all is in motion, a cut is more than that
WASHED, PATIENCE = 0.3, 3  # of what had a say has none for want of light: a flash; wait, for so many frames


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One picture: `small_hwc`, and without its light `shape_hw`, both uint8; `counts_hw`: 1 where it has a say."""

    small_hwc: ImageU8
    shape_hw: ImageU8
    counts_hw: Float32
    washed_hw: BoolMask

    @property
    def says(self) -> float:
        """How much of it has a say."""
        return cv2.mean(self.counts_hw)[0]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What has been seen so far: a value, so that a step which fails has not looked.

    `view` is the latest picture that showed a scene, None before the first; `usual` how far pictures in a row differ.
    """

    view: View | None = None
    usual: float = 0.0
    waited: int = 0

    def see(self, image_hwc: ImageU8 | Sampled) -> tuple[Scene, bool]:
        """The scene with one picture more, uint8 [H, W, 3] RGB, and whether another one begins with it."""
        view, old = _view(image_hwc), self.view
        if view.says < LEAST:
            return self, False
        if old is None:
            return (self if _is_static(view) else Scene(view)), False
        both_hw = view.counts_hw * old.counts_hw
        mean = cv2.mean(cv2.absdiff(view.shape_hw, old.shape_hw))[0] / UNIT
        if mean < SURELY_ALIKE and cv2.mean(both_hw)[0] > SURELY_ALIKE:  # most pictures are like the one before
            return Scene(view, 0.7 * self.usual + 0.3 * mean), False
        washed = float((old.counts_hw * view.washed_hw).mean())
        if washed > WASHED * old.says and self.waited < PATIENCE:
            return Scene(old, self.usual, self.waited + 1), False
        if _is_static(view):
            return self, False
        if cv2.mean(both_hw)[0] < LEAST:  # nothing to compare: what had a say before has none now
            return Scene(view, self.usual), False
        change = _difference(view.shape_hw, old.shape_hw, both_hw)
        cut = change > max(DIFFERENT, STANDS_OUT * self.usual) and _unexplained(view, old, both_hw)
        usual = self.usual if cut else 0.7 * self.usual + 0.3 * change
        return Scene(view, usual), cut


def _view(image_hwc: ImageU8 | Sampled) -> View:
    """A picture as it is compared."""
    if isinstance(image_hwc, np.ndarray):
        picked_hwc = cv2.resize(image_hwc, SAMPLED, interpolation=cv2.INTER_NEAREST)  # reads no more than these pixels
    else:
        picked_hwc = image_hwc.sampled(*SAMPLED)
    small_hwc = cv2.resize(picked_hwc, SIZE, interpolation=cv2.INTER_AREA)
    grey_hw = cv2.cvtColor(small_hwc, cv2.COLOR_RGB2GRAY).astype(np.float32)
    mean_hw = cv2.blur(grey_hw, AROUND, borderType=cv2.BORDER_REFLECT)
    square_hw = cv2.blur(grey_hw * grey_hw, AROUND, borderType=cv2.BORDER_REFLECT)
    spread_hw = np.sqrt(np.maximum(square_hw - mean_hw * mean_hw, 0))
    shape_hw = np.clip(128 + UNIT * (grey_hw - mean_hw) / (spread_hw + 4), 0, 255).astype(np.uint8)
    washed_hw = (mean_hw <= DARK) | (mean_hw >= BRIGHT)
    counts_hw = ((spread_hw > FLAT) & ~washed_hw).astype(np.float32)
    return View(np.asarray(small_hwc, np.uint8), shape_hw, counts_hw, washed_hw)


def _hues(view: View) -> Float32:
    """How much of a picture is of which hue; the sum is 1."""
    hues_hwc = cv2.cvtColor(view.small_hwc, cv2.COLOR_RGB2YCrCb)
    hues = cv2.calcHist([hues_hwc], [1, 2], None, [16, 16], [64, 192, 64, 192]).ravel()
    return np.asarray(hues / max(float(hues.sum()), 1), np.float32)


def _is_static(view: View) -> bool:
    """Whether neighbours have nothing to do with one another."""
    shape_hw = view.shape_hw
    spread = cv2.mean(cv2.absdiff(shape_hw, np.full_like(shape_hw, 128)))[0]
    return cv2.mean(cv2.absdiff(shape_hw[:, 1:], shape_hw[:, :-1]))[0] > STATIC * max(spread, 1.0)


def _difference(one_hw: ImageU8, other_hw: ImageU8, counts_hw: Float32) -> float:
    """By how many deviations two pictures differ at least, in all but `ALIKE` of the cells that have a say."""
    differ_hw = cv2.absdiff(one_hw, other_hw).astype(np.float32) * counts_hw
    weight = cv2.resize(counts_hw, CELLS, interpolation=cv2.INTER_AREA).ravel()
    total = cv2.resize(differ_hw, CELLS, interpolation=cv2.INTER_AREA).ravel()
    valid = weight > 0.3
    if not valid.any():
        return 0.0
    cells = np.sort(total[valid] / weight[valid])
    return float(cells[int(ALIKE * len(cells))]) / UNIT


def _unexplained(new: View, old: View, counts_hw: Float32) -> bool:
    """Whether the new picture is another one, and not the old one in motion."""
    flow_hw2 = _FLOW.calc(new.shape_hw, old.shape_hw, None)  # type: ignore[call-overload]
    moved_hw = cv2.remap(  # type: ignore[call-overload]
        old.shape_hw, _PLACES_HW2 + flow_hw2, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    remains = _difference(new.shape_hw, moved_hw, counts_hw)
    hues = _hues(new), _hues(old)
    if min(hues[0].max(), hues[1].max()) > GREY:
        return remains > GREY_REMAINS
    other_hues = 1 - float(np.minimum(*hues).sum())
    return remains > next(needed for most, needed in REMAINS if other_hues <= most or most == 1.0)


def motion(old: View, new: View, without: tuple[float, float, float, float]) -> tuple[float, float]:
    """By how many cells of the small picture, x and y, most of what is beside a box has moved from one to the next."""
    flow_hw2 = _FLOW.calc(old.shape_hw, new.shape_hw, None)  # type: ignore[call-overload]
    beside_hw = old.counts_hw > 0
    x0, y0, x1, y1 = (max(0, round(v)) for v in without)
    if np.count_nonzero(beside_hw) - np.count_nonzero(beside_hw[y0:y1, x0:x1]) > LEAST * beside_hw.size:
        beside_hw[y0:y1, x0:x1] = False
    if not beside_hw.any():
        return 0.0, 0.0
    dx, dy = np.median(flow_hw2[beside_hw], axis=0)
    return float(dx), float(dy)


def _flow() -> cv2.DISOpticalFlow:
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow.setFinestScale(1)  # the finest of all takes four times as long, and finds no more
    return flow


_FLOW = _flow()
_PLACES_HW2 = np.stack(np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1])), axis=-1).astype(np.float32)
