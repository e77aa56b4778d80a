"""What shows that an object is back after its scene was gone: the surroundings that its memories are of.

The network follows whatever resembles an object best, and is as sure of a likeness in another scene as of the object
itself: object score, predicted IoU, pointers, appearance within the mask and tracking back to the prompted frame all
agree with a mistake (`python -m bench.cuts`). What tells the two apart is the rest of the picture. A memory is a map of
all of it; so the memory that a new frame would leave is compared with those that are held, place by place, wherever
the same may lie now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..base.types import Float32
from ..engine import Array
from ..engine.arrays import on_host, to_host
from ..engine.policy import Memory

LEAST, ENOUGH = 0.77, 0.83  # cosine: of two scenes less; of two views of one at least so much is always enough
AS_LIKE = 0.9  # times how like the newest memory is the oldest: a scene that stood still has to be the same
YOUNG = 10  # steps between the two: in less, none has moved much
CELLS = 20  # a side that are compared; larger maps are averaged
BESIDE = 0.1  # of a cell may be the object where it counts as surroundings
FEWEST = 10  # cells of surroundings; where the object fills the picture, all count


class Witness:
    """The memories of one object, as evidence; taken when its scene ends, before anything else is remembered.

    Those that lie on a GPU come to the host with the next answer, and are `unread` until then.
    """

    def __init__(self, memories: Sequence[Memory]) -> None:
        """`memories`: oldest first, at least one."""
        self._long_known = memories[-1].step - memories[0].step >= YOUNG
        self.unread: list[Array] = [memory.map_chw for memory in memories]
        if all(map(on_host, self.unread)):
            self.learn([coarse(to_host(map_chw)) for map_chw in self.unread])

    def learn(self, maps: Sequence[Float32]) -> None:
        """What the memories are, `coarse`."""
        cells = [_cells(map_chw) for map_chw in maps]
        self._mean_m1 = np.mean([map_mn.mean(axis=1, keepdims=True) for map_mn in cells], axis=0)
        known = [self._directions(map_mn) for map_mn in cells]
        self._known_tm = np.concatenate(known, axis=1).T.copy()
        kept = AS_LIKE * _likeness(known[0].T, known[-1]) if self._long_known else LEAST
        self.needed = float(np.clip(kept, LEAST, ENOUGH))
        self.unread = []

    def likeness(self, map_chw: Float32, mask_hw: Float32) -> float:
        """How like the memories a new one is, [M, g, g], around its mask (logits [h, w]): mean cosine, at most 1."""
        cells_mn = _cells(map_chw)
        side = round(cells_mn.shape[1] ** 0.5)
        cover_hw = cv2.resize((mask_hw > 0).astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        beside = cover_hw.ravel() < BESIDE
        if np.count_nonzero(beside) < FEWEST:
            beside = np.ones_like(beside)
        return _likeness(self._known_tm, self._directions(cells_mn[:, beside]))

    def agrees(self, map_chw: Float32, mask_hw: Float32) -> bool:
        """Whether the object is seen again, where it was before."""
        return self.likeness(map_chw, mask_hw) >= self.needed

    def _directions(self, cells_mn: Float32) -> Float32:
        """Unit vectors from the mean of the memories: what all places have in common says nothing."""
        from_mean_mn = cells_mn - self._mean_m1
        length_1n = np.sqrt((from_mean_mn**2).sum(axis=0, keepdims=True))
        return np.asarray(from_mean_mn / np.maximum(length_1n, 1e-6), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Lost:
    """An object that is not in view since frame `since`, and what it will be known by; None: by its place."""

    since: int
    witness: Witness | None


def _likeness(known_tm: Float32, new_mn: Float32) -> float:
    """The mean over new places of the cosine with the known place that is most like it."""
    return float((known_tm @ new_mn).max(axis=0).mean())


def coarse(map_chw: Array) -> Array:
    """A map [M, g, g] of which at most `CELLS` cells a side are left, averaged."""
    channels, side = map_chw.shape[0], map_chw.shape[1]
    step = -(-side // CELLS)
    if step == 1:
        return map_chw
    left = side // step
    whole = map_chw[:, : left * step, : left * step].reshape(channels, left, step, left, step)
    return whole.mean((2, 4))


def _cells(map_chw: Float32) -> Float32:
    """A map [M, g, g] as cells [M, n], of which there are at most `CELLS` a side."""
    map_chw = coarse(map_chw)
    return np.ascontiguousarray(map_chw.reshape(len(map_chw), -1))
