"""Figures of raw times: percentiles, jitter, the cost of one more object, and ratios with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

PERCENTS = (50, 90, 95, 99)


def summary(samples_ms: Sequence[float]) -> dict[str, float]:
    """The percentiles of raw samples in ms (numpy's, linear between samples), with mean, max and count."""
    values = {f"p{p}": round(float(v), 4) for p, v in zip(PERCENTS, np.percentile(samples_ms, PERCENTS), strict=True)}
    mean, longest = float(np.mean(samples_ms)), float(np.max(samples_ms))
    return {**values, "max": round(longest, 4), "mean": round(mean, 4), "count": len(samples_ms)}


def thin(count: int) -> list[str]:
    """The percentiles that this many samples cannot give, because they are between the two largest."""
    return [f"p{percent}" for percent in PERCENTS if count * (100 - percent) < 100]


def jitter(blocks_ms: Sequence[Sequence[float]]) -> float | None:
    """The mean difference in ms between consecutive frames of a block."""
    steps = [np.abs(np.diff(block)) for block in blocks_ms if len(block) > 1]
    return round(float(np.mean(np.concatenate(steps))), 4) if steps else None


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, least and largest of values, one for each block."""
    return {"median": round(float(np.median(values)), 4), "min": round(min(values), 4), "max": round(max(values), 4)}


def medians(blocks_ms: Sequence[Sequence[float]]) -> list[float]:
    """The median of each block."""
    return [float(np.median(block)) for block in blocks_ms]


def ratios(baseline: Sequence[float], other: Sequence[float]) -> list[float]:
    """`baseline` / `other`, paired in order."""
    return [b / o for b, o in zip(baseline, other, strict=False)]


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The interval that contains the true median with a confidence of 95% or more; None for fewer than six values.

    It is that of the sign test, which assumes no distribution, and which a few outliers do not change.
    """
    n, drop = len(values), 0
    while 2 * sum(math.comb(n, k) for k in range(drop + 1)) <= 0.05 * 2**n:
        drop += 1
    ordered = sorted(values)
    return (ordered[drop - 1], ordered[n - drop]) if drop else None


def speedup(baseline_ms: Sequence[Sequence[float]], other_ms: Sequence[Sequence[float]]) -> dict[str, Any]:
    """How many times faster `other_ms` is: the spread of the ratios of medians of neighbouring blocks.

    Above 1 the other is faster. Blocks are paired in order, so a machine that slows down slows both of a pair. `low`
    and `high` are the 95% interval of the median ratio; None for fewer than six rounds.
    """
    found = ratios(medians(baseline_ms), medians(other_ms))
    low, high = median_interval(found) or (None, None)
    return {**spread(found), "low": low and round(low, 4), "high": high and round(high, 4), "rounds": len(found)}


def fit(objects: Sequence[int], ms: Sequence[float]) -> dict[str, float | None] | None:
    """The least-squares fit of ms = E + M * objects: `e_ms`, `m_ms`, their ratio, and the residual's root mean square.

    None for fewer than two numbers of objects. With two the residual is always 0.
    """
    if len(set(objects)) < 2:
        return None
    columns = np.stack([np.ones(len(objects)), np.asarray(objects, float)], axis=1)
    (e, m), *_ = np.linalg.lstsq(columns, np.asarray(ms, float), rcond=None)
    residual = float(np.sqrt(np.mean((columns @ (e, m) - ms) ** 2)))
    share = round(float(m / e), 4) if e > 0 else None  # noise can make E negative
    return {"e_ms": round(float(e), 4), "m_ms": round(float(m), 4), "m_over_e": share, "rms_ms": round(residual, 4)}


def fit_blocks(objects: Sequence[int], blocks_ms: Sequence[Sequence[Sequence[float]]]) -> dict[str, Any] | None:
    """`fit` to the medians of all samples, and the spread of M/E over separate fits to each round.

    `blocks_ms[i]` are the blocks with `objects[i]` objects; the last round may be incomplete.
    """
    whole = fit(objects, [float(np.median(np.concatenate(list(blocks)))) for blocks in blocks_ms])
    if whole is None:
        return None
    rounds = [
        fit(objects, [float(np.median(block)) for block in of_round]) for of_round in zip(*blocks_ms, strict=False)
    ]
    shares = [f["m_over_e"] for f in rounds if f and f["m_over_e"] is not None]
    return {**whole, "m_over_e_rounds": spread(shares) if shares else None}
