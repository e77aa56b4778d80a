"""Of two passes over a recording, which mask of an object is taken on a frame. Pure functions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .check import PromptsByFrame
from .direction_masks import LOST, StoredMask

# A pass that does not draw an object may only have slipped off it. Of 19 frames on which one of two passes drew it and
# the other did not, with a prompt on either side, the mask was right on 17 and wrong on none (`bench.directions`).
ABSENT = 0.5


def sureness(score: float, iou: float, *, drawn: bool, lost: bool) -> float:
    """How sure a pass is of what it says of an object, 0 to 1: that it is there, and where; or that it is not.

    Arguments:
        score, iou: the network's own, 0 to 1.
        drawn: whether the mask has any pixel.
        lost: the pass does not know where the object is. That is not the same as absent.
    """
    if lost:
        return 0.0
    return score * iou if drawn else ABSENT * (1 - score)


def sureness_of(mask: StoredMask) -> float:
    """How sure a pass was of a mask that is kept."""
    return sureness(mask.score, mask.iou, drawn=mask.area > 0, lost=bool(mask.flags & LOST))


@dataclass(frozen=True, slots=True)
class Prompted:
    """The frames on which each object was prompted, by id, in ascending order."""

    frames: Mapping[int, Sequence[int]]

    @staticmethod
    def of(prompts: PromptsByFrame) -> Prompted:
        """Those of these prompts."""
        found: dict[int, list[int]] = {}
        for frame, given in sorted(prompts.items()):
            for prompt in given:
                found.setdefault(prompt.id, []).append(frame)
        return Prompted(found)

    def since(self, object_id: int, frame: int) -> int | None:
        """How many frames ago an object was prompted; 0: on this frame; None: never."""
        frames = self.frames.get(object_id, ())
        place = bisect_right(frames, frame)
        return frame - frames[place - 1] if place else None

    def until(self, object_id: int, frame: int) -> int | None:
        """In how many frames an object will be prompted; 0: on this frame; None: never."""
        frames = self.frames.get(object_id, ())
        place = bisect_left(frames, frame)
        return frames[place] - frame if place < len(frames) else None


def takes_backward(forward: float, backward: float, since: int, until: int) -> bool:
    """Whether an object's mask of the backward pass is taken instead of that of the forward pass.

    Each pass counts by how sure it is, times how near its prompt is: the share of the way between the two prompts that
    lies on the other side. On a prompted frame, and where both count the same, it is the forward pass.

    Arguments:
        forward, backward: how sure the two passes are.
        since: frames since the object's latest prompt.
        until: frames until its next one.
    """
    if not (since and until):
        return False
    return backward * since > forward * until
