"""The values that packages exchange: `Frame`, `Prompt` and `Masks`. They depend on numpy and OpenCV alone.

A value is made once, by one owner, and never changed after; so threads share it without a lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

from .edges import Guide
from .errors import SourceError
from .frame import Color, Frame, FrameId, ImageU8, Sampled, now_ns
from .prompt import Prompt, as_prompt
from .prompt_schema import MAX_ID, as_id

__all__ = [
    "MAX_ID", "BoolMask", "Color", "Float32", "Frame", "FrameId", "ImageU8", "Masks", "Prompt", "Sampled", "as_prompt",
    "now_ns",
]  # fmt: skip

BoolMask = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Masks:
    """The tracker's answer for one frame: for each object a mask, a label, and two confidences.

    On the frame of a mask prompt the mask is the prompt's, with score and IoU 1, as in SAM 2: the network does not
    judge it. For a small or thin mask it does; score and IoU are then those of what it finds on the same picture.

    Attributes:
        seq: the frame's number.
        session: the frame's session.
        captured_ns: when the frame was captured, in nanoseconds of the monotonic clock.
        done_ns: when the masks were finished, on the same clock.
        height: of the frame, in pixels.
        width: of the frame, in pixels.
        ids: the ids of the B objects, in ascending order.
        labels: the label of each object.
        scores: for each object, the probability that it is visible on this frame.
        ious: for each object, the network's own estimate of its mask's IoU.
        mask_logits_bhw: float32 [B, h, w], at the network's resolution. Above 0 is the object. `logits` and `mask` give
            one object at frame size.
        guide: the picture, by which the edges of masks are moved to those of the picture; None leaves them as they are.
        warnings: lines about prompts on this frame whose objects are too small to be tracked well.
        cut: whether another scene begins with this frame.
        lost: the ids of objects that are out of view, after a cut or because the camera turned away. Their masks are
            empty, and their scores 0, until they are found again.
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
    warnings: tuple[str, ...] = ()
    cut: bool = False
    lost: tuple[int, ...] = ()
    guide: Guide | None = field(default=None, repr=False, compare=False)
    _fine: dict[int, Float32] = field(default_factory=dict, init=False, repr=False, compare=False)
    _full: dict[int, Float32] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        logits_bhw = self.mask_logits_bhw.view()
        logits_bhw.flags.writeable = False
        object.__setattr__(self, "mask_logits_bhw", logits_bhw)

    def _index(self, object_id: int) -> int:
        object_id = as_id(object_id, "masks")
        try:
            return self.ids.index(object_id)
        except ValueError:
            known = ", ".join(map(str, self.ids)) or "none"
            raise KeyError(f"no object {object_id} on frame {self.seq}; there are: {known}") from None

    def on(self, frame: Frame) -> Masks:
        """The same masks with their edges where this picture has them; a tracker's masks have that already.

        Arguments:
            frame: the frame that the masks belong to.

        Returns:
            Masks with a `guide`; without one if the network's cells are about as small as pixels.

        Raises:
            SourceError: the frame has another size.
        """
        if (frame.height, frame.width) != (self.height, self.width):
            found = f"frame {frame.seq} is {frame.width}x{frame.height}"
            raise SourceError(f"{found}; expected the one that the masks are of, {self.width}x{self.height}")
        return replace(self, guide=Guide.of(frame, *self.mask_logits_bhw.shape[1:]))

    def fine_logits(self, object_id: int) -> Float32:
        """The mask logits of one object before they are resized to frame size.

        Arguments:
            object_id: one of `ids`; `KeyError` for another.

        Returns:
            float32, read-only: [4 h, 4 w] with edges as the picture has them, or [h, w] without a `guide`.
        """
        object_id = as_id(object_id, "masks")
        small_hw: Float32 = self.mask_logits_bhw[self._index(object_id)]
        if self.guide is None:
            return small_hw
        fine_hw = self._fine.get(object_id)
        if fine_hw is None:  # two threads may both do this; the result is the same
            fine_hw = self.guide.fit(small_hw)
            fine_hw.flags.writeable = False
            self._fine[object_id] = fine_hw
        return fine_hw

    @property
    def fine_logits_bhw(self) -> Float32:
        """`fine_logits` of all objects, float32 [B, h, w] or [B, 4 h, 4 w]."""
        if self.guide is None or not self.ids:
            return self.mask_logits_bhw
        return np.stack([self.fine_logits(i) for i in self.ids])

    def logits(self, object_id: int) -> Float32:
        """The mask logits of one object at frame size.

        Arguments:
            object_id: one of `ids`; `KeyError` for another.

        Returns:
            float32 [H, W], read-only: `fine_logits`, resized bilinearly with half-pixel centres, as in SAM 2.
        """
        object_id = as_id(object_id, "masks")
        full_hw = self._full.get(object_id)
        if full_hw is None:
            size = self.width, self.height
            full = cv2.resize(self.fine_logits(object_id), size, interpolation=cv2.INTER_LINEAR)
            full_hw = np.asarray(full, np.float32)
            full_hw.flags.writeable = False  # `mask` and `id_map` are made of it
            self._full[object_id] = full_hw
        return full_hw

    def mask(self, object_id: int) -> BoolMask:
        """The mask of one object, bool [H, W] at frame size; `KeyError` for an unknown id."""
        return self.logits(object_id) > 0

    def score(self, object_id: int) -> float:
        """The probability that the object is visible on this frame, 0 to 1; `KeyError` for an unknown id."""
        return self.scores[self._index(object_id)]

    def iou(self, object_id: int) -> float:
        """The network's own estimate of the mask's IoU, 0 to 1; `KeyError` for an unknown id."""
        return self.ious[self._index(object_id)]

    def label(self, object_id: int) -> str:
        """The object's label; `KeyError` for an unknown id."""
        return self.labels[self._index(object_id)]

    def id_map(self) -> ImageU8:
        """All masks as one picture: the id of the object with the highest logit at each pixel, 0 where none is above 0.

        Returns:
            uint8 [H, W], at frame size.
        """
        ids_hw = np.zeros((self.height, self.width), np.uint8)
        best_hw = np.zeros((self.height, self.width), np.float32)
        for object_id in self.ids:
            logits_hw = self.logits(object_id)
            wins_hw = logits_hw > best_hw
            ids_hw[wins_hw] = object_id
            best_hw[wins_hw] = logits_hw[wins_hw]
        return ids_hw
