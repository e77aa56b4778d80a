"""The network's answer on its way to people and to memory: either all of it is sound, or none of it counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..config import Recipe
from ..engine import ABSENT_LOGIT, Array, Decoded, Remembered
from ..engine.arrays import namespace, sigmoid, to_host
from ..errors import AnswerError
from ..types import Float32


@dataclass(slots=True, eq=False)
class Answer:
    """What people see of b objects, on the host: float32 `logits_bhw`, `scores_b` in 0..1, predicted `ious_b`."""

    logits_bhw: Float32
    scores_b: Float32
    ious_b: Float32

    @staticmethod
    def none(side: int) -> Answer:
        """Of no object."""
        return Answer(*(np.zeros(shape, np.float32) for shape in ((0, side, side), 0, 0)))

    def shows(self, row: int) -> bool:
        """Whether an object is drawn."""
        return bool(self.scores_b[row] > 0.5 and (self.logits_bhw[row] > 0).any())

    def withhold(self, row: int) -> None:
        """Say that an object is not there."""
        self.logits_bhw[row], self.scores_b[row], self.ious_b[row] = ABSENT_LOGIT, 0, 0


def read(decoded: Decoded, written: Sequence[Remembered], frame: int, side: int, recipe: Recipe) -> Answer:
    """Bring an answer of masks [side, side] to the host; `AnswerError` if any part of it is not what it has to be.

    Of pointers and memories only sums come over, which are no numbers where a part is none. The keys that an engine
    makes of its memories are not looked at.
    """
    _check_shapes(decoded, written, frame, side)
    score_b, objects = decoded.score_b, len(decoded.score_b)
    # All that a person sees comes over in one copy: on a GPU, the one place where the host waits for the frame.
    columns = [sigmoid(score_b)[:, None], decoded.iou_b[:, None], score_b[:, None]]
    columns.append(decoded.logits_b1hw.reshape(-1, side**2))
    remembered_bn = _sums(decoded.pointer_bc, written)
    beside = _place(remembered_bn) == _place(score_b)
    columns += [remembered_bn] if beside else []
    answer_bn = to_host(namespace(score_b).concat(columns, axis=1))
    if not np.isfinite(answer_bn).all() or not (beside or np.isfinite(to_host(remembered_bn)).all()):
        _refuse(answer_bn, to_host(remembered_bn), frame, side, recipe)
    logits_bhw = answer_bn[:, 3 : 3 + side**2].reshape(objects, side, side)
    return Answer(logits_bhw, answer_bn[:, 0], answer_bn[:, 1])


def _sums(pointer_bc: Array, written: Sequence[Remembered]) -> Array:
    """Of each object the sums of its pointer and of its memory, [b, 2], in fp32: half precision would overflow."""
    library = namespace(pointer_bc)
    pointers_b = pointer_bc.sum(1, dtype=library.float32)
    maps_b = library.stack([one.map_chw.sum(dtype=library.float32) for one in written])
    return library.stack([pointers_b, maps_b], 1)


def _place(x: Array) -> str:
    """Where an array is: engines may have brought a part of their answer to the host already."""
    return str(getattr(x, "device", "cpu"))


def _check_shapes(decoded: Decoded, written: Sequence[Remembered], frame: int, side: int) -> None:
    objects, g = len(written), side // 4
    parts = {"masks": decoded.logits_b1hw, "object scores": decoded.score_b, "predicted IoUs": decoded.iou_b}
    found = [(name, tuple(x.shape)) for name, x in parts.items()]
    found += [
        ("pointers", (len(decoded.pointer_bc),)),
        *(("memories", tuple(one.map_chw.shape[1:])) for one in written),
    ]
    wanted = {"masks": (objects, 1, side, side), "memories": (g, g)}
    for name, shape in found:
        expected = wanted.get(name, (objects,))
        if shape != expected:
            text = f"the network's {name} have the shape {shape}; expected {expected}"
            raise AnswerError(f"frame {frame}: {text}; was the engine built for another network or size?")


def _refuse(answer_bn: Float32, remembered_bn: Float32, frame: int, side: int, recipe: Recipe) -> None:
    parts = {
        "object scores": answer_bn[:, [0, 2]], "predicted IoUs": answer_bn[:, 1],
        "masks": answer_bn[:, 3 : 3 + side**2], "pointers": remembered_bn[:, 0], "memories": remembered_bn[:, 1],
    }  # fmt: skip
    broken = ", ".join(name for name, values in parts.items() if not np.isfinite(values).all())
    what = f"frame {frame}: the network's {broken} are not numbers; nothing of this frame is remembered"
    if recipe.precision == "fp32":
        raise AnswerError(f"{what}; give the next one; if it happens again, are these weights sound: {recipe.weights}?")
    raise AnswerError(
        f'{what}; give the next one; if it happens again, use precision = "fp32" (it is "{recipe.precision}")'
    )
