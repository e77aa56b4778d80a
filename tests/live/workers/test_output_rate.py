"""Frames are shown at the target rate, and how evenly they leave is measured."""

from __future__ import annotations

import pytest

from rtseg.live.workers.output_rate import OutputRate


def test_rate_and_jitter() -> None:
    rate = OutputRate(25)
    assert sum(rate.is_early(n / 50) for n in range(100)) == 50
    assert not any(OutputRate(25).is_early(n / 25 + 0.002 * (n % 3)) for n in range(1))
    steady = OutputRate(25)
    assert not any(steady.is_early(n / 25 + 0.004 * (n % 3)) for n in range(100))
    for n, late_ms in enumerate([0, 0, 5, 0]):
        rate.shown(n, n / 25)
        jitter = rate.jitter_ms(n, round((n / 25 * 1e3 + late_ms) * 1e6))
        assert jitter == (None if n == 0 else pytest.approx([0, 0, 5, 5][n]))
    assert rate.jitter_ms(77, 0) is None
