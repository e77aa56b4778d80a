"""How far a figure can be trusted: 95 % intervals from resampling videos.

Values measured on one video are correlated, those of its objects as well as those of its frames. So are the clips of
one video and the cuts through one patient: such sequences form a `group`. Therefore groups, here called videos, are
resampled as a whole: as many as there are, with replacement (the cluster bootstrap; Field and Welsh, J. R. Statist.
Soc. B 69, 2007). Resampling clips instead would treat the clips of one video as independent.

Videos are few, and then the plain percentile interval is too narrow. So its ends are moved to the quantiles that give
Student's interval for symmetric data (expanded percentile; Hesterberg, arXiv 1411.5279). In simulations with five
videos, it contains the truth in 92 % of cases (86 % if videos are skewed towards 1, as IoUs are). The plain interval
does in 81 % (77 %), BCa in 81 % (75 %). Resampling the objects within a video, too, changes little.

No resample leaves the range of the videos. The probability that n videos have the true median between them is 1 - 2 **
(1 - n), which is 94 % for five. With fewer than five videos, only the interval of `blocks`, within these videos, is
given.
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
MIN_GROUPS = 5
OVER = "over videos"
INDEPENDENT = "independent videos"  # clips of one operation, or scans of one patient, count as one
METHOD = {
    "resampled": "groups",
    "interval": "expanded percentile",
    "confidence": CONFIDENCE,
    "draws": DRAWS,
    "seed": SEED,
    "min_groups": MIN_GROUPS,
}

Values = Mapping[str, Sequence[float]]  # by group of sequences
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, the ends of its interval (None without one), and the number of its values.

    `scope`: whether the interval is `OVER` videos or `blocks.WITHIN` these; "" without an interval.
    """

    value: float
    low: float | None
    high: float | None
    count: int
    scope: str = ""


def few(within: bool) -> str:
    """The note for results of too few videos for intervals over them."""
    here = "intervals are within these videos and do not extend to others" if within else "no intervals"
    return f"{here}: those over videos take {MIN_GROUPS} {INDEPENDENT} or more"


def estimate(*parts: Values) -> Figure | None:
    """The mean of the parts' means (for one part: of its values) with its interval; None without a value."""
    names = _names(parts)
    if not names:
        return None
    return _figure(_resampled(parts, names), names, _count(parts, names))


def difference(parts: Sequence[Values], others: Sequence[Values]) -> Figure | None:
    """How much larger `estimate` is for `others` than for `parts`, paired: the same groups are drawn for both.

    Only groups with values in both count; None without such a group.
    """
    names = sorted({*_names(parts)} & {*_names(others)})
    if not names:
        return None
    return _figure(_resampled(others, names) - _resampled(parts, names), names, _count(parts, names))


def _figure(value_r: Floats, names: Sequence[str], count: int) -> Figure:
    low, high = _interval(value_r[1:], len(names))
    return Figure(float(value_r[0]), low, high, count, "" if low is None else OVER)


def _names(parts: Sequence[Values]) -> list[str]:
    return sorted({name for part in parts for name, values in part.items() if values})


def _count(parts: Sequence[Values], names: Sequence[str]) -> int:
    return sum(len(part.get(name, ())) for part in parts for name in names)


def _resampled(parts: Sequence[Values], names: Sequence[str]) -> Floats:
    """The mean of the parts' means over the named groups, and then over each resample of them, float64 [R]."""
    sums_gp = np.array([[sum(part.get(name, ())) for part in parts] for name in names], np.float64)
    counts_gp = np.array([[len(part.get(name, ())) for part in parts] for name in names], np.float64)
    size = len(names)
    draws = DRAWS if size >= MIN_GROUPS else 0
    drawn_rg = np.random.default_rng(SEED).multinomial(size, np.full(size, 1 / size), draws)
    times_rg = np.concatenate([np.ones((1, size)), drawn_rg])
    sum_rp, count_rp = times_rg @ sums_gp, times_rg @ counts_gp
    some_rp = count_rp > 0  # a resample may lack values of one part, but not of all
    mean_rp = np.divide(sum_rp, count_rp, out=np.zeros_like(sum_rp), where=some_rp)
    return np.asarray(mean_rp.sum(1) / some_rp.sum(1))


def _interval(value_r: Floats, groups: int) -> tuple[float | None, float | None]:
    if groups < MIN_GROUPS:
        return None, None
    tail = level(groups)
    low, high = np.quantile(value_r, (tail, 1 - tail))
    return float(low), float(high)


def level(groups: float) -> float:
    """The quantile of the resamples that is the lower end of the interval."""
    require()
    from scipy.special import stdtrit

    student = float(stdtrit(groups - 1, (1 - CONFIDENCE) / 2))
    return NormalDist().cdf(student * math.sqrt(groups / (groups - 1)))
