"""A small classifier: is a picture from inside a body? Boosted trees on the numbers of `features`.

`weights.json` holds it. A tree asks `DEPTH` questions (is this number above this threshold?), the same whatever the
answers were, and adds the value that it has for these answers. The sum is the log-odds that the picture is out-of-body.
`lowest` and `highest` bound what each number was inside bodies in training; a picture that leaves these bounds in
several numbers is like none of them, whatever the trees say. `python -m bench.deidentify --train` makes the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import ConfigError
from ...base.types import Float32, ImageU8
from .features import NAMES, looks

WEIGHTS = Path(__file__).with_name("weights.json")
DEPTH = 3
UNLIKE = 3  # numbers beyond their bounds, at least, of a picture that is like none


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one picture is taken for.

    `out` is the probability that it is out-of-body. `why` says why it cannot be judged ("" if it can): `dark`, `grey`,
    `unlike` (like no picture inside a body) or `error`; then `out` is 1.
    """

    out: float
    why: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """T trees: the numbers they ask, `asked_td`, the thresholds, `threshold_td`, and what they add, `leaf_tl`; answer d
    is bit d of l. `enter` and `leave` are the probabilities from which a picture is out-of-body, and below which it is
    surely not.
    """

    asked_td: np.ndarray[Any, np.dtype[np.int64]]
    threshold_td: Float32
    leaf_tl: Float32
    lowest_n: Float32
    highest_n: Float32
    enter: float
    leave: float

    def out(self, numbers_bn: Float32) -> Float32:
        """The probability of each picture that it is out-of-body; `numbers_bn` as `looks` gives them."""
        answers_btd = numbers_bn[:, self.asked_td] > self.threshold_td
        leaves_bt = (answers_btd << np.arange(self.asked_td.shape[1])).sum(2)
        odds_b = self.leaf_tl[np.arange(len(self.leaf_tl)), leaves_bt].sum(1)
        return np.asarray(1 / (1 + np.exp(-np.clip(odds_b, -30, 30))), np.float32)

    def beyond(self, numbers_bn: Float32) -> np.ndarray[Any, np.dtype[np.int64]]:
        """How many numbers of each picture lie beyond what they were inside bodies."""
        return np.asarray(((numbers_bn < self.lowest_n) | (numbers_bn > self.highest_n)).sum(1), np.int64)

    def judge(self, image_hwc: ImageU8) -> Verdict:
        """The verdict on a picture, uint8 RGB [H, W, 3]. Whatever goes wrong, there is one: out-of-body."""
        try:
            seen = looks(image_hwc)
            if seen.why:
                return Verdict(1.0, seen.why)
            if not np.isfinite(seen.numbers_n).all():
                return Verdict(1.0, "error")
            if int(self.beyond(seen.numbers_n[None])[0]) >= UNLIKE:
                return Verdict(1.0, "unlike")
            return Verdict(float(self.out(seen.numbers_n[None])[0]))
        except Exception:
            return Verdict(1.0, "error")

    def document(self) -> dict[str, Any]:
        """What `weights.json` holds."""
        return {
            "numbers": list(NAMES),
            "enter": self.enter,
            "leave": self.leave,
            "asked_td": self.asked_td.tolist(),
            **{name: np.round(getattr(self, name).astype(np.float64), 5).tolist() for name in _FLOATS},
        }


_FLOATS = ("threshold_td", "leaf_tl", "lowest_n", "highest_n")


def from_document(document: dict[str, Any]) -> Classifier:
    """The classifier of a document. Raises `ConfigError` if its numbers are not those of this version."""
    if document.get("numbers") != list(NAMES):
        raise ConfigError(f"{WEIGHTS.name}: other numbers than features.py measures; train again: bench/deidentify.py")
    arrays = {name: np.asarray(document[name], np.float32) for name in _FLOATS}
    asked_td = np.asarray(document["asked_td"], np.int64)
    return Classifier(asked_td, **arrays, enter=float(document["enter"]), leave=float(document["leave"]))


@cache
def shipped() -> Classifier:
    """The classifier of this version of rtseg."""
    return from_document(json.loads(WEIGHTS.read_text("utf-8")))
