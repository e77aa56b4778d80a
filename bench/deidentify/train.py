"""Trains the classifier: boosted trees, by gradient boosting with the logistic loss. Deterministic."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rtseg.base.types import Float32
from rtseg.offline.deidentify.classifier import DEPTH, UNLIKE, Classifier
from rtseg.offline.deidentify.features import looks

from .pictures import Example
from .variants import vary, withdrawn

ROUNDS, RATE, BINS, RIDGE = 150, 0.12, 32, 4.0
FOLDS = 5
MISSED = 0.005  # the share of out-of-body pictures that may pass in cross-validation, withdrawals apart
VARIANTS = {"stills": 4, "endovis": 4, "clip": 2, "synthetic": 2, "davis": 3, "bsds": 2, "room": 12}
WITHDRAWN = 500
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """The numbers of pictures [B, N], whether each is out-of-body [B], and the video of each."""

    numbers_bn: Float32
    out_b: Array
    videos: tuple[str, ...]
    kinds: tuple[str, ...]

    def where(self, chosen_b: Array) -> Table:
        index = np.flatnonzero(chosen_b)
        videos, kinds = (tuple(of[i] for i in index) for of in (self.videos, self.kinds))
        return Table(self.numbers_bn[index], self.out_b[index], videos, kinds)


def table(found: Sequence[Example], varied: bool = True) -> Table:
    """The numbers of all pictures that can be judged, and with `varied` of variants, and of withdrawals."""
    rows: list[tuple[Float32, bool, str, str]] = []

    def add(image_hwc: Any, out: bool, video: str, kind: str) -> None:
        seen = looks(image_hwc)
        if not seen.why:
            rows.append((seen.numbers_n, out, video, kind))

    for n, example in enumerate(found):
        add(example.image_hwc, example.out, example.video, example.kind)
        for v in range(VARIANTS.get(example.kind, 2) if varied else 0):
            add(vary(example, 100 * n + v), example.out, example.video, example.kind)
    inside, outside = [e for e in found if not e.out], [e for e in found if e.out]
    rng = np.random.default_rng(11)
    for n in range(WITHDRAWN if varied and inside and outside else 0):
        a, b = inside[int(rng.integers(len(inside)))], outside[int(rng.integers(len(outside)))]
        add(withdrawn(a.image_hwc, b.image_hwc, n), True, b.video, "withdrawn")
    numbers, out, videos, kinds = zip(*rows, strict=True)
    return Table(np.stack(numbers), np.array(out), videos, kinds)


def fit(t: Table) -> Classifier:
    """The classifier of a table, without thresholds. Both classes weigh the same, and in each every kind of picture."""
    numbers_bn, out_b = t.numbers_bn, t.out_b.astype(np.float64)
    weight_b = _weights(t)
    edges_nk = np.quantile(numbers_bn, np.linspace(0, 1, BINS + 1)[1:-1], axis=0).T
    bins_bn = np.stack([np.searchsorted(e, numbers_bn[:, n], "left") for n, e in enumerate(edges_nk)], 1)
    odds_b = np.zeros(len(out_b))
    trees = []
    for _ in range(ROUNDS):
        p_b = 1 / (1 + np.exp(-odds_b))
        slope_b, curve_b = weight_b * (out_b - p_b), weight_b * p_b * (1 - p_b)
        leaf_b, asked, threshold = np.zeros(len(out_b), np.int64), [], []
        for d in range(DEPTH):
            n, k = _question(bins_bn, leaf_b, slope_b, curve_b, 1 << d)
            leaf_b += (bins_bn[:, n] > k).astype(np.int64) << d
            asked.append(n)
            threshold.append(float(edges_nk[n, k]))
        slope_l, curve_l = (np.bincount(leaf_b, of_b, 1 << DEPTH) for of_b in (slope_b, curve_b))
        adds_l = RATE * slope_l / (curve_l + RIDGE)
        odds_b += adds_l[leaf_b]
        trees.append((asked, threshold, adds_l))
    asked_td, threshold_td, leaf_tl = (np.array(part) for part in zip(*trees, strict=True))
    inside_bn = numbers_bn[~t.out_b]
    low, high = np.quantile(inside_bn, 0.002, axis=0), np.quantile(inside_bn, 0.998, axis=0)
    room = 0.1 * (high - low) + 1e-3
    floats = (threshold_td, leaf_tl, low - room, high + room)
    return Classifier(asked_td, *(of.astype(np.float32) for of in floats), 0.5, 0.5)


def _question(bins_bn: Array, leaf_b: Array, slope_b: Array, curve_b: Array, leaves: int) -> tuple[int, int]:
    """The number and the bin after which to divide every leaf, so that the loss falls most."""
    gains = []
    for n in range(bins_bn.shape[1]):
        cell_b = leaf_b * BINS + bins_bn[:, n]
        slope_lk, curve_lk = (
            np.cumsum(np.bincount(cell_b, of_b, leaves * BINS).reshape(leaves, BINS), 1) for of_b in (slope_b, curve_b)
        )
        above_lk, rest_lk = slope_lk[:, -1:] - slope_lk, curve_lk[:, -1:] - curve_lk
        gain_lk = slope_lk**2 / (curve_lk + RIDGE) + above_lk**2 / (rest_lk + RIDGE)
        gains.append(gain_lk.sum(0)[:-1])
    n, k = np.unravel_index(int(np.argmax(gains)), np.shape(gains))
    return int(n), int(k)


def _weights(t: Table) -> Array:
    """What each picture weighs; the mean is 1."""
    weight_b = np.zeros(len(t.kinds))
    keys = np.array([f"{kind} {out}" for kind, out in zip(t.kinds, t.out_b, strict=True)])
    for out in (False, True):
        of = [key for key in np.unique(keys) if key.endswith(str(out))]
        for key in of:
            weight_b[keys == key] = 1 / len(of) / (keys == key).sum()
    return weight_b * len(weight_b) / 2


def scored(classifier: Classifier, t: Table) -> Float32:
    """The probability of each row, 1 for those that are like none."""
    unlike_b = classifier.beyond(t.numbers_bn) >= UNLIKE
    return np.asarray(np.where(unlike_b, 1.0, classifier.out(t.numbers_bn)), np.float32)


def train(t: Table) -> tuple[Classifier, Float32]:
    """The classifier with thresholds from cross-validation by video, and the probabilities of that validation."""
    fold_b = np.array([zlib.crc32(video.encode()) % FOLDS for video in t.videos])
    held_b = np.zeros(len(fold_b), np.float32)
    for fold in range(FOLDS):
        held_b[fold_b == fold] = scored(fit(t.where(fold_b != fold)), t.where(fold_b == fold))
    enter = float(np.clip(np.quantile(held_b[t.out_b & (np.array(t.kinds) != "withdrawn")], MISSED), 0.02, 0.5))
    return replace(fit(t), enter=round(enter, 4), leave=round(0.6 * enter, 4)), held_b
