"""How far a figure can be trusted: 95 % intervals from resampling sequences.

What is measured on one video hangs together, objects and frames alike, so videos are what is drawn again: as many as
there are, with replacement, each with all that is in it (the cluster bootstrap; Field and Welsh, J. R. Statist. Soc. B
69, 2007). Videos are few, and the plain percentile interval is too narrow then; so its ends are moved apart to where
they give Student's interval for symmetric data (expanded percentile; Hesterberg, arXiv 1411.5279). In simulations with
five videos it holds the truth in 92 % of cases (86 % where videos are skewed towards 1, as IoUs are), the plain one in
81 % (77 %), BCa in 81 % (75 %); to resample the objects of a video as well changes nothing of note. No resample leaves
the range of the videos, and the chance that n videos have the true median between them is 1 - 2 ** (1 - n): 94 % from
five on. Of fewer there is no interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from .needs import require

CONFIDENCE = 0.95
DRAWS = 5000
SEED = 0  # of the draws: the same evaluation gives the same interval
MIN_SEQUENCES = 5
METHOD = {
    "resampled": "sequences",
    "interval": "expanded percentile",
    "confidence": CONFIDENCE,
    "draws": DRAWS,
    "seed": SEED,
    "min_sequences": MIN_SEQUENCES,
}

Values = Mapping[str, Sequence[float]]  # by sequence
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, the ends of its interval (None where there is none), and how many values it is made of."""

    value: float
    low: float | None
    high: float | None
    count: int


def estimate(*groups: Values) -> Figure | None:
    """The mean of the groups' means (for one group: of its values) with its interval; None where there is no value."""
    names = _names(groups)
    if not names:
        return None
    value_r = _resampled(groups, names)
    return Figure(float(value_r[0]), *_interval(value_r[1:], len(names)), _count(groups, names))


def difference(groups: Sequence[Values], others: Sequence[Values]) -> Figure | None:
    """How much larger `estimate` is for `others` than for `groups`, paired: the same sequences are drawn for both.

    Over the sequences that have values in both; None where there is none.
    """
    names = sorted({*_names(groups)} & {*_names(others)})
    if not names:
        return None
    value_r = _resampled(others, names) - _resampled(groups, names)
    return Figure(float(value_r[0]), *_interval(value_r[1:], len(names)), _count(groups, names))


def _names(groups: Sequence[Values]) -> list[str]:
    return sorted({name for group in groups for name, values in group.items() if values})


def _count(groups: Sequence[Values], names: Sequence[str]) -> int:
    return sum(len(group.get(name, ())) for group in groups for name in names)


def _resampled(groups: Sequence[Values], names: Sequence[str]) -> Floats:
    """The mean of the groups' means over the named sequences, and then over each resample of them, float64 [R]."""
    sums_sg = np.array([[sum(group.get(name, ())) for group in groups] for name in names], np.float64)
    counts_sg = np.array([[len(group.get(name, ())) for group in groups] for name in names], np.float64)
    size = len(names)
    draws = DRAWS if size >= MIN_SEQUENCES else 0
    drawn_rs = np.random.default_rng(SEED).multinomial(size, np.full(size, 1 / size), draws)
    times_rs = np.concatenate([np.ones((1, size)), drawn_rs])
    sum_rg, count_rg = times_rs @ sums_sg, times_rs @ counts_sg
    some_rg = count_rg > 0  # a resample may have nothing of a group, but has something of one
    mean_rg = np.divide(sum_rg, count_rg, out=np.zeros_like(sum_rg), where=some_rg)
    return np.asarray(mean_rg.sum(1) / some_rg.sum(1))


def _interval(value_r: Floats, sequences: int) -> tuple[float | None, float | None]:
    if sequences < MIN_SEQUENCES:
        return None, None
    level = _level(sequences)
    low, high = np.quantile(value_r, (level, 1 - level))
    return float(low), float(high)


def _level(sequences: int) -> float:
    """The quantile of the resamples that is the lower end of the interval."""
    require()
    from scipy.special import stdtrit

    student = float(stdtrit(sequences - 1, (1 - CONFIDENCE) / 2))
    return NormalDist().cdf(student * math.sqrt(sequences / (sequences - 1)))
