"""Re-identification of an object after its scene was gone: the surroundings decide.

The network follows whatever resembles an object best, and is as sure of a similar object in another scene as of the
object itself: object score, predicted IoU, pointers, appearance within the mask and tracking back to the prompted frame
all agree with a mistake (`python -m bench.cuts`). What tells the two apart is the rest of the picture. A memory is a
map of all of it. So the memory that a new frame would leave is compared with the memories in the bank, cell by cell,
wherever the same surroundings may lie now.
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

# Cosines: two scenes stay below the first; two views of one scene that reach the second are always taken for the same.
MIN_SIMILARITY, ENOUGH_SIMILARITY = 0.77, 0.83
RELATIVE_SIMILARITY = (
    0.9  # of that between the oldest and the newest memory: a scene that stood still must match better
)
LONG_KNOWN = 10  # steps between these two: in fewer steps little can have moved
MAX_CELLS = 20  # cells a side that are compared; larger maps are averaged
OBJECT_SHARE = 0.1  # of a cell that the object may cover where the cell counts as surroundings
MIN_SURROUNDINGS = 10  # cells; where the object fills the picture, all cells count


class SceneMatcher:
    """Tells whether a new frame shows the scene of an object's memories, taken when that scene ended.

    Memories on a GPU come to the host with the next answer, and are `pending` until `fit` is called with them.
    """

    def __init__(self, memories: Sequence[Memory]) -> None:
        """`memories`: oldest first, at least one."""
        self._long_known = memories[-1].step - memories[0].step >= LONG_KNOWN
        self.pending: list[Array] = [memory.map_chw for memory in memories]
        if all(map(on_host, self.pending)):
            self.fit([coarse(to_host(map_chw)) for map_chw in self.pending])

    def fit(self, maps: Sequence[Float32]) -> None:
        """Take the maps of the memories, `coarse`, on the host."""
        cells = [_cells(map_chw) for map_chw in maps]
        self._mean_m1 = np.mean([map_mn.mean(axis=1, keepdims=True) for map_mn in cells], axis=0)
        known = [self._directions(map_mn) for map_mn in cells]
        self._known_tm = np.concatenate(known, axis=1).T.copy()
        own = RELATIVE_SIMILARITY * _similarity(known[0].T, known[-1]) if self._long_known else MIN_SIMILARITY
        self.threshold = float(np.clip(own, MIN_SIMILARITY, ENOUGH_SIMILARITY))
        self.pending = []

    def similarity(self, map_chw: Float32, mask_hw: Float32) -> float:
        """How similar a new memory [M, g, g] is around its mask (logits [h, w]): mean cosine, at most 1."""
        cells_mn = _cells(map_chw)
        side = round(cells_mn.shape[1] ** 0.5)
        covered_hw = cv2.resize((mask_hw > 0).astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        surroundings = covered_hw.ravel() < OBJECT_SHARE
        if np.count_nonzero(surroundings) < MIN_SURROUNDINGS:
            surroundings = np.ones_like(surroundings)
        return _similarity(self._known_tm, self._directions(cells_mn[:, surroundings]))

    def matches(self, map_chw: Float32, mask_hw: Float32) -> bool:
        """Whether a new memory is of the same scene."""
        return self.similarity(map_chw, mask_hw) >= self.threshold

    def _directions(self, cells_mn: Float32) -> Float32:
        """Unit vectors from the mean of the memories: what all cells have in common tells nothing apart."""
        from_mean_mn = cells_mn - self._mean_m1
        length_1n = np.sqrt((from_mean_mn**2).sum(axis=0, keepdims=True))
        return np.asarray(from_mean_mn / np.maximum(length_1n, 1e-6), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Lost:
    """An object that is lost since frame `since`; `matcher` finds its scene again.

    None: the scene is still there, but the camera has turned away from the object, and its location finds it again.
    """

    since: int
    matcher: SceneMatcher | None


def _similarity(known_tm: Float32, new_mn: Float32) -> float:
    """The mean over new cells of the cosine with the most similar known cell."""
    return float((known_tm @ new_mn).max(axis=0).mean())


def coarse(map_chw: Array) -> Array:
    """A map [M, g, g] averaged to at most `MAX_CELLS` cells a side."""
    channels, side = map_chw.shape[0], map_chw.shape[1]
    step = -(-side // MAX_CELLS)
    if step == 1:
        return map_chw
    left = side // step
    whole = map_chw[:, : left * step, : left * step].reshape(channels, left, step, left, step)
    return whole.mean((2, 4))


def _cells(map_chw: Float32) -> Float32:
    """A map [M, g, g] as cells [M, n], at most `MAX_CELLS` a side."""
    map_chw = coarse(map_chw)
    return np.ascontiguousarray(map_chw.reshape(len(map_chw), -1))
