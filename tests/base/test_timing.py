"""Percentiles: right to 1%, in memory that does not grow."""

from __future__ import annotations

import numpy as np
import pytest

from rtseg.base.timing import Histogram, Stages


def test_percentiles_are_those_of_numpy_to_one_percent() -> None:
    rng = np.random.default_rng(0)
    durations = rng.lognormal(2.0, 1.0, 20_000)
    histogram = Histogram()
    for ms in durations:
        histogram.add(float(ms))
    for percent in (50, 95, 99):
        assert histogram.percentile(percent) == pytest.approx(np.percentile(durations, percent), rel=0.012)
    assert histogram.percentile(50) != pytest.approx(np.percentile(durations, 55), rel=0.012)
    assert histogram.summary()["max"] == pytest.approx(durations.max(), abs=1e-3)


def test_extremes_are_counted_and_memory_stays() -> None:
    histogram = Histogram()
    size = histogram.counts.nbytes
    for ms in (0.0, 1e12, 5.0):
        histogram.add(ms)
    assert histogram.summary()["count"] == 3
    assert histogram.counts.nbytes == size
    assert Histogram().percentile(99) == 0.0


def test_a_stage_that_raises_is_not_counted() -> None:
    stages = Stages()
    with stages.time("good"):
        pass
    with pytest.raises(ValueError, match="x"), stages.time("bad"):
        raise ValueError("x")
    assert list(stages.summary()) == ["good"]
