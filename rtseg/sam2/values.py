"""What the four verbs take and return: named arrays of the engine's own library, torch or numpy.

Only `PromptBatch` comes from the caller, as numpy; an engine converts it to what it needs.

Axes: n images, b objects, t memories, p points or pointers, k masks of one object, c channels, h and w cells.
g = image_size / 16; D and M are the preset's `dim` and `memory_dim`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any
"""A `torch.Tensor` or a `numpy.ndarray`, depending on the engine."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in 0..1
ABSENT_LOGIT = -1024.0  # of every pixel of an absent object
CLAMP_LOGIT = 32.0  # bounds an earlier mask that is fed back with a correction


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """One image encoding for all objects: `top` [n, D, g, g], `mid` [n, D/4, 2g, 2g], `fine` [n, D/8, 4g, 4g].

    `mid` and `fine` are 0 in a network whose decoder sees no finer maps.
    """

    top: Array
    mid: Array
    fine: Array

    def select(self, index: slice | Array) -> Features:
        """The images at `index` of a batch."""
        return Features(self.top[index], self.mid[index], self.fine[index])


@dataclass(frozen=True, slots=True, eq=False)
class Remembered:
    """One frame of one object, as `remember` wrote it: the memory `map_chw` [M, g, g].

    With a perceiver it is [M, 2p, p]: the first p rows are its global latents, the others those of p x p windows.
    `keys_lnd` [layers, n, D], for n tokens, are its keys for each attention layer, projected and rotated, if the engine
    computes them only once. `cells_cgg` [C + 1, 2g, 2g] are the embeddings and the mask of a prompted frame, if the
    network compares frames with it (`Match`). Only the engine reads them.
    """

    map_chw: Array
    keys_lnd: Array | None = None
    cells_cgg: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Recall:
    """The part of one object's memory bank that attention reads on one frame.

    `memories` are t spatial memories; `slots[t]` is the row of the temporal position table of each
    (`num_maskmem - 1` for a conditioning memory, 0 for the newest other one, 1 for the one before it, ...).
    `pointers_pc` [p, D] are object pointers, `ages[p]` how many frames ago each was made (at least 1).
    """

    memories: Sequence[Remembered]
    slots: tuple[int, ...]
    pointers_pc: Array
    ages: tuple[int, ...]

    @property
    def cells_cgg(self) -> Array | None:
        """The cells that the frame is compared with: those of the newest conditioning memory that has any."""
        return next((m.cells_cgg for m in reversed(self.memories) if m.cells_cgg is not None), None)

    @staticmethod
    def from_maps(maps_tchw: Array, slots: tuple[int, ...], pointers_pc: Array, ages: tuple[int, ...]) -> Recall:
        """A recall of spatial memories, given as maps [t, M, g, g] or latents [t, M, 2p, p]."""
        return Recall([Remembered(m) for m in maps_tchw], slots, pointers_pc, ages)


@dataclass(frozen=True, slots=True, eq=False)
class PromptBatch:
    """Prompts of b objects, all with the same number of points.

    `points_bpc` [b, p, 2] are (x, y) in pixels of the network's image, `labels_bp` [b, p]: 1 object, 0 background,
    2 and 3 the corners of a box. `mask_b1hw` [b, 1, 4g, 4g] are logits of an earlier mask to correct, or None.
    `answer_b1hw` [b, 1, S, S], 0 or 1, is a mask prompt, which is itself the answer, or None.
    """

    points_bpc: Array
    labels_bp: Array
    mask_b1hw: Array | None = None
    answer_b1hw: Array | None = None

    @property
    def multimask(self) -> bool:
        """Whether the best of three masks is chosen, as SAM 2 does for at most one point."""
        return self.points_bpc.shape[1] <= 1

    @staticmethod
    def none(objects: int) -> PromptBatch:
        """No prompt at all: a tracked frame."""
        return PromptBatch(np.zeros((objects, 0, 2), np.float32), np.zeros((objects, 0), np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """All that the decoder returns: mask 0 is the single-mask answer, 1 to 3 are the multimask answers.

    `logits_bkhw` [b, 4, 4g, 4g], `iou_bk` [b, 4] in 0..1, `tokens_bkc` [b, 4, D], `score_b` [b] (logit of presence).
    """

    logits_bkhw: Array
    iou_bk: Array
    tokens_bkc: Array
    score_b: Array


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """The mask chosen for each object: `logits_b1hw` [b, 1, 4g, 4g], `iou_b`, `score_b` [b], `pointer_bc` [b, D]."""

    logits_b1hw: Array
    iou_b: Array
    score_b: Array
    pointer_bc: Array

    def select(self, index: slice) -> Decoded:
        """The objects at `index`."""
        return Decoded(self.logits_b1hw[index], self.iou_b[index], self.score_b[index], self.pointer_bc[index])
