"""The plan of an archive: what limits it, limits it."""

from __future__ import annotations

import pytest

from bench.archive_plan import Plan, ideal, simulate

PLAN = Plan(hours=60, workers=6, gbps=10, life_h=0)


def test_with_storage_to_spare_the_networks_decide() -> None:
    told = simulate(PLAN)
    assert told.hours == pytest.approx(ideal(PLAN), rel=0.15)
    assert told.network > 0.85 and told.deaths == 0 and told.failed == 0


def test_slow_storage_decides() -> None:
    told = simulate(Plan(hours=60, workers=6, gbps=0.05, life_h=0))
    assert told.storage > 0.9
    assert told.hours == pytest.approx(60 * 14 / 1000 / 0.05, rel=0.15)


def test_without_checkpoints_failures_cost_more() -> None:
    lost = [simulate(Plan(hours=60, workers=6, life_h=1, resumes=resumes)).lost for resumes in (True, False)]
    assert 0 < lost[0] < 0.01 < lost[1]
