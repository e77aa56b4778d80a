"""The values that travel between the rooms: `Frame`, `Prompt`, `Masks`. They know numpy and OpenCV, and no room.

A value is made once, by one owner, and never changed after; so threads share it without a lock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import cv2
import numpy as np
import numpy.typing as npt

from .errors import PromptError

MAX_ID = 255  # of an object: ids are pixel values in palette images, where 0 is the background

ImageU8 = npt.NDArray[np.uint8]
BoolMask = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]


def now_ns() -> int:
    """The one clock: monotonic, nanoseconds. Every stamp in rtseg comes from here."""
    return time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class Color:
    """How the source coded its colours, in FFmpeg's names; the picture itself is already full-range RGB."""

    matrix: str = "rgb"
    range: str = "full"
    primaries: str = "unknown"
    transfer: str = "unknown"


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture and its identity.

    `image_hwc` is uint8 [H, W, 3], full-range RGB. `seq` counts the source's frames from 0, also those that are
    dropped later. `pts * time_base` is the source's own time in seconds. `captured_ns` is `now_ns()` at the
    moment the picture left the decoder. `name` is what the source calls it, as an image's file without its suffix;
    `sample_aspect` how wide a pixel is shown, for its height. `truth_hw` (synthetic source only) is uint8 [H, W]: the
    id of the object that is visible at each pixel, 0 for none.
    """

    image_hwc: ImageU8
    seq: int
    session: str = ""
    pts: int = 0
    time_base: Fraction = Fraction(1, 25)
    captured_ns: int = field(default_factory=now_ns)
    pixfmt: str = "rgb24"
    color: Color = Color()
    interlaced: bool = False
    truth_hw: ImageU8 | None = None
    name: str = ""
    sample_aspect: Fraction = Fraction(1)

    @property
    def height(self) -> int:
        return int(self.image_hwc.shape[0])

    @property
    def width(self) -> int:
        return int(self.image_hwc.shape[1])

    @property
    def seconds(self) -> float:
        """The source's own time of this frame."""
        return float(self.pts * self.time_base)


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What a person says about one object on one frame, in pixels of that frame.

    Exactly one of: `points` (x, y, 1 for object or 0 for background), with or without `box` (x0, y0, x1, y1);
    or `mask`, bool [H, W].
    """

    id: int
    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: BoolMask | None = None
    label: str | None = None

    def check(self, height: int, width: int, *, first: bool) -> None:
        """Raise `PromptError` unless the prompt makes sense on a frame of this size.

        The first prompt of an object has to point at it; a correction may also be a click on the background alone.
        """
        who, size = f"prompt for object {self.id}", f"{width}x{height}"
        if self.mask is None and not self.points and self.box is None:
            raise PromptError(f"{who}: it is empty; expected points, a box or a mask")
        if self.mask is not None:
            if self.points or self.box is not None:
                raise PromptError(f"{who}: a mask stands alone; give points and box in a prompt of their own")
            if self.mask.shape != (height, width):
                shape = "x".join(map(str, self.mask.shape[::-1]))
                raise PromptError(f"{who}: the mask is {shape}, the frame is {size}; expected the same size")
            if not self.mask.any():
                raise PromptError(f"{who}: the mask is empty; expected at least one pixel of the object")
        for x, y, kind in self.points:
            if not (0 <= x < width and 0 <= y < height):
                raise PromptError(f"{who}: point ({x:g}, {y:g}) lies outside the {size} frame")
            if kind not in (0, 1):
                raise PromptError(f"{who}: point label {kind}; expected 1 (object) or 0 (background)")
        if first and self.mask is None and self.box is None and not any(kind for _, _, kind in self.points):
            raise PromptError(f"first {who}: only background points; expected a point with label 1, a box or a mask")
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
                raise PromptError(f"{who}: box {self.box}; expected x0 < x1 and y0 < y1 inside the {size} frame")


@dataclass(frozen=True)
class Masks:
    """What the tracker says about one frame: for each object a mask, a label, and two confidences.

    `mask_logits_bhw` is float32 [B, h, w], at the network's resolution; `logits` and `mask` bring one object to
    frame size, once, when asked. A logit above 0 is the object.
    """

    seq: int
    session: str
    captured_ns: int
    done_ns: int
    height: int
    width: int
    ids: tuple[int, ...]
    labels: tuple[str, ...]
    scores: tuple[float, ...]
    ious: tuple[float, ...]
    mask_logits_bhw: Float32 = field(repr=False)
    _full: dict[int, Float32] = field(default_factory=dict, init=False, repr=False, compare=False)

    def _index(self, object_id: int) -> int:
        try:
            return self.ids.index(object_id)
        except ValueError:
            known = ", ".join(map(str, self.ids)) or "none"
            raise KeyError(f"no object {object_id} on frame {self.seq}; there are: {known}") from None

    def logits(self, object_id: int) -> Float32:
        """Mask logits of one object, float32 [H, W] at frame size (bilinear, half-pixel centres)."""
        full_hw = self._full.get(object_id)
        if full_hw is None:  # two threads may both do this; the result is the same
            small = self.mask_logits_bhw[self._index(object_id)]
            full = cv2.resize(small, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
            full_hw = self._full[object_id] = np.asarray(full, np.float32)
        return full_hw

    def mask(self, object_id: int) -> BoolMask:
        """Mask of one object, bool [H, W] at frame size."""
        return self.logits(object_id) > 0

    def score(self, object_id: int) -> float:
        """Probability that the object is visible on this frame."""
        return self.scores[self._index(object_id)]

    def iou(self, object_id: int) -> float:
        """The network's own estimate of the mask's IoU."""
        return self.ious[self._index(object_id)]

    def label(self, object_id: int) -> str:
        return self.labels[self._index(object_id)]

    def id_map(self) -> ImageU8:
        """uint8 [H, W]: the id of the object with the highest logit at each pixel, 0 where none is above 0."""
        ids_hw = np.zeros((self.height, self.width), np.uint8)
        best_hw = np.zeros((self.height, self.width), np.float32)
        for object_id in self.ids:
            logits_hw = self.logits(object_id)
            wins_hw = logits_hw > best_hw
            ids_hw[wins_hw] = object_id
            best_hw[wins_hw] = logits_hw[wins_hw]
        return ids_hw


def as_points(points: Sequence[Sequence[float]]) -> tuple[tuple[float, float, int], ...]:
    """Points as a user writes them, `[[x, y, label], ...]`, as a value; `PromptError` if they are not triples."""
    try:
        return tuple((float(x), float(y), int(kind)) for x, y, kind in points)
    except (TypeError, ValueError) as e:
        raise PromptError(f"points {points!r}: expected [[x, y, 1 or 0], ...]") from e
