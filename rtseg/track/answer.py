"""The network's answer for one frame, copied to the host and checked. One number that is not finite rejects it all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..base.errors import AnswerError
from ..base.types import Float32
from ..engine import ABSENT_LOGIT, Array, Decoded, Remembered
from ..engine.arrays import copy_to_host, namespace, on_host, sigmoid, to_host
from ..engine.recipe import Recipe


@dataclass(slots=True, eq=False)
class Answer:
    """The answer for b objects, float32 on the host: mask logits, scores from 0 to 1, predicted IoUs."""

    logits_bhw: Float32
    scores_b: Float32
    ious_b: Float32

    @staticmethod
    def none(side: int) -> Answer:
        """The answer for no object, with masks of `side` x `side` pixels."""
        return Answer(*(np.zeros(shape, np.float32) for shape in ((0, side, side), 0, 0)))

    def is_visible(self, row: int) -> bool:
        """Whether the object in this row has a score above 0.5 and a mask that is not empty."""
        return bool(self.scores_b[row] > 0.5 and (self.logits_bhw[row] > 0).any())

    def set_absent(self, row: int) -> None:
        """Make the object in this row absent: an empty mask, and scores of 0."""
        self.logits_bhw[row], self.scores_b[row], self.ious_b[row] = ABSENT_LOGIT, 0, 0


def read_answer(
    decoded: Decoded, written: Sequence[Remembered], frame: int, recipe: Recipe, extra: Sequence[Array] = ()
) -> tuple[Answer, list[Float32]]:
    """Copy an answer to the host, and the `extra` arrays with it. Call `check_shapes` first.

    Raises `AnswerError` if any part is not finite; `frame` and `recipe` are for its text. Of each memory only the sum
    is copied: one number that is not finite makes it so, too. Keys that an engine projects are not checked.
    """
    score_b = decoded.score_b
    parts = [decoded.logits_b1hw, score_b, decoded.iou_b, decoded.pointer_bc, _sums(written)]
    # All arrays come in one copy: on a GPU this is the one place where the host waits for the frame.
    logits_b1hw, scores_b, ious_b, pointer_bc, sums_b, *others = copy_to_host([*parts, *extra])
    named = {
        "object scores": scores_b, "predicted IoUs": ious_b, "masks": logits_b1hw, "pointers": pointer_bc,
        "memories": sums_b,
    }  # fmt: skip
    broken = [name for name, values in named.items() if not np.isfinite(values).all()]
    if broken:
        _raise_not_finite(broken, frame, recipe)
    probabilities_b = to_host(sigmoid(score_b)) if on_host(score_b) else sigmoid(scores_b)
    return Answer(logits_b1hw[:, 0], probabilities_b, ious_b), others


def _sums(written: Sequence[Remembered]) -> Array:
    """The sum of each object's memory, [b], in fp32: half precision would overflow."""
    library = namespace(written[0].map_chw)
    if on_host(written[0].map_chw):
        return library.stack([one.map_chw.sum(dtype=library.float32) for one in written])
    return library.stack([one.map_chw for one in written]).sum((1, 2, 3), dtype=library.float32)


def check_shapes(
    decoded: Decoded, written: Sequence[Remembered], objects: int, frame: int, side: int, memory: tuple[int, int]
) -> None:
    """Raise `AnswerError` unless the answer fits this many objects, with masks of `side` x `side` pixels.

    `memory`: the rows and columns of a memory.
    """
    parts = {"masks": decoded.logits_b1hw, "object scores": decoded.score_b, "predicted IoUs": decoded.iou_b}
    found = [(name, tuple(x.shape)) for name, x in parts.items()]
    found += [
        ("pointers", (len(decoded.pointer_bc),)),
        ("number of memories", (len(written),)),
        *(("memories", tuple(one.map_chw.shape[1:])) for one in written),
    ]
    wanted = {"masks": (objects, 1, side, side), "memories": memory}
    for name, shape in found:
        expected = wanted.get(name, (objects,))
        if shape != expected:
            text = f"the network's {name} have the shape {shape}; expected {expected}"
            raise AnswerError(f"frame {frame}: {text}; was the engine built for another network or size?")


def _raise_not_finite(broken: Sequence[str], frame: int, recipe: Recipe) -> None:
    what = f"frame {frame}: the network's {', '.join(broken)} are not finite; nothing of this frame is remembered"
    if recipe.precision == "fp32":
        raise AnswerError(f"{what}; give the next one; if it happens again, are these weights sound: {recipe.weights}?")
    raise AnswerError(
        f'{what}; give the next one; if it happens again, use precision = "fp32" (it is "{recipe.precision}")'
    )
