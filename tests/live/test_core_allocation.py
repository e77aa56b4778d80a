"""How the processors are divided among the workers of a feed."""

from __future__ import annotations

import pytest

from rtseg.base.hardware.cpu import Cores
from rtseg.live.core_allocation import environment, threads_for


def test_cores_are_told_from_hyperthreads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    one, two, four, eight = Cores(2, 1, 2), Cores(2, 2, 2), Cores(8, 4, 8), Cores(16, 8, 4.0)
    assert [threads_for("segment", c) for c in (one, two, four, eight)] == [1, 1, 4, 3]
    assert {threads_for(role, four) for role in ("grab", "publish", "record")} == {1}
    assert environment("segment", four)["OMP_WAIT_POLICY"] == "PASSIVE"  # four threads, and a feed, on four cores
    assert "OMP_WAIT_POLICY" not in environment("segment", Cores(8, 8, 8.0))
    assert environment("grab", two)["OPENCV_FOR_THREADS_NUM"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads_for("segment", four) == 2
    assert str(one) == "1 core with 2 hyperthreads" and "limited to the time of 4" in str(eight)
