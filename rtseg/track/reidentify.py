"""Re-identification of an object after its scene was gone, by its surroundings.

The network follows whatever resembles an object most, and is as confident of a twin in another scene as of the object:
object score, predicted IoU, pointers, appearance within the mask and tracking back to the prompted frame all confirm
the mistake (`python -m bench.cuts`). Only the rest of the picture tells the two apart, and a memory is a map of the
whole picture. So the memory of the new frame is compared with the memories in the bank: each of its cells with the
most similar cell anywhere. Where a memory is a perceiver's latents, its cells are the latents of the windows.
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
    0.9  # times the similarity of the oldest and the newest memory: a scene that stood still must match better
)
LONG_KNOWN = 10  # steps between these two, at least, for that: in fewer steps little can have moved
MAX_CELLS = 20  # cells a side that are compared; larger maps are averaged
OBJECT_SHARE = 0.1  # a cell of which the object covers less counts as surroundings
MIN_SURROUNDINGS = 10  # cells: with fewer, the object fills the picture, and all cells count


class SceneMatcher:
    """Tells whether a new frame shows the scene of an object's memories, which are taken when that scene ends.

    Memories on a GPU are copied to the host with the next answer; they are `pending` until `fit` is called with them.
    """

    def __init__(self, memories: Sequence[Memory]) -> None:
        """`memories`: oldest first, at least one."""
        self._long_known = memories[-1].step - memories[0].step >= LONG_KNOWN
        self.pending: list[Array] = [memory.map_chw for memory in memories]
        if all(map(on_host, self.pending)):
            self.fit([coarse(to_host(map_chw)) for map_chw in self.pending])

    def fit(self, maps: Sequence[Float32]) -> None:
        """Take the maps of the memories, averaged by `coarse` and on the host."""
        cells = [_cells(map_chw) for map_chw in maps]
        self._mean_m1 = np.mean([map_mn.mean(axis=1, keepdims=True) for map_mn in cells], axis=0)
        known = [self._directions(map_mn) for map_mn in cells]
        self._known_tm = np.concatenate(known, axis=1).T.copy()
        own = RELATIVE_SIMILARITY * _similarity(known[0].T, known[-1]) if self._long_known else MIN_SIMILARITY
        self.threshold = float(np.clip(own, MIN_SIMILARITY, ENOUGH_SIMILARITY))
        self.pending = []

    def similarity(self, map_chw: Float32, mask_hw: Float32) -> float:
        """The mean cosine, at most 1, of a new memory around its mask (logits [h, w]) with the known ones."""
        cells_mn = _cells(map_chw)
        side = round(cells_mn.shape[1] ** 0.5)
        covered_hw = cv2.resize((mask_hw > 0).astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
        surroundings = covered_hw.ravel() < OBJECT_SHARE
        if np.count_nonzero(surroundings) < MIN_SURROUNDINGS:
            surroundings = np.ones_like(surroundings)
        return _similarity(self._known_tm, self._directions(cells_mn[:, surroundings]))

    def matches(self, map_chw: Float32, mask_hw: Float32) -> bool:
        """Whether a new memory shows the same scene; arguments as for `similarity`."""
        return self.similarity(map_chw, mask_hw) >= self.threshold

    def _directions(self, cells_mn: Float32) -> Float32:
        """Unit vectors from the mean of the memories, because what all cells have in common tells no scenes apart."""
        from_mean_mn = cells_mn - self._mean_m1
        length_1n = np.sqrt((from_mean_mn**2).sum(axis=0, keepdims=True))
        return np.asarray(from_mean_mn / np.maximum(length_1n, 1e-6), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Lost:
    """Since when an object is lost, and what recognises its scene.

    `matcher` is None while the scene is still there and only the camera has turned away: then the location decides.
    """

    since: int
    matcher: SceneMatcher | None


def _similarity(known_tm: Float32, new_mn: Float32) -> float:
    """The mean over new cells of the cosine with the most similar known cell."""
    return float((known_tm @ new_mn).max(axis=0).mean())


def coarse(map_chw: Array) -> Array:
    """The cells of a memory, [M, h, h]: a map [M, g, g] averaged to at most `MAX_CELLS` cells a side.

    Of a perceiver's latents [M, 2p, p], those of the windows: the global ones, in the first p rows, have no place.
    """
    channels, rows, side = map_chw.shape
    map_chw = map_chw[:, rows - side :]
    step = -(-side // MAX_CELLS)
    if step == 1:
        return map_chw
    left = side // step
    whole = map_chw[:, : left * step, : left * step].reshape(channels, left, step, left, step)
    return whole.mean((2, 4))


def _cells(map_chw: Float32) -> Float32:
    """A memory as cells [M, n], at most `MAX_CELLS` a side."""
    map_chw = coarse(map_chw)
    return np.ascontiguousarray(map_chw.reshape(len(map_chw), -1))
