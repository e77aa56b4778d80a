"""The benches of a live feed judge what they see: calm, faults and soak, each shown something bad."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench import calm, faults, preview, soak
from bench.room import Seen


def seen(delays_ms: list[float], sha: bytes = b"x", jitter_ms: float = 0.0) -> dict[str, list[Seen]]:
    rows = []
    for seq, delay_ms in enumerate(delays_ms):
        captured = seq * 40_000_000
        sent = captured + int((delay_ms + jitter_ms * (seq % 2)) * 1e6)
        rows.append(Seen(sent + 10**6, captured, sent, seq, "fresh", 40.0, max(0, seq - 1), seq * 40.0, sha))
    return {"video": rows, "overlay": rows}


def test_calm_knows_a_late_an_uneven_and_a_changed_picture() -> None:
    good = calm.figures(seen([2.0] * 100), [b"x"] * 100)
    assert all(calm._value(good, name) <= most for name, most in calm.ASKED.items()) and good["missing"] == 0
    assert good["annotation delay"]["p99"] == pytest.approx(42.0) and good["fps"] == pytest.approx(25)
    late = calm.figures(seen([2.0] * 97 + [9.0] * 3), [b"x"] * 100)
    assert calm._value(late, "added delay p99") > calm.ASKED["added delay p99"]
    uneven = calm.figures(seen([2.0] * 100, jitter_ms=9.0), [b"x"] * 100)
    assert calm._value(uneven, "jitter p99") > calm.ASKED["jitter p99"]
    assert calm.figures(seen([2.0] * 100), [b"x"] * 99 + [b"y"])["not identical"] == 1
    assert calm.figures(seen([2.0] * 100), [b"x"] * 101)["missing"] == 1


def test_faults_knows_a_broken_promise() -> None:
    fault = faults.Fault("x", lambda t: 0, recovery_s=2.0, gap_ms=80.0)
    frames = Counter({"in": 100, "shown": 90, "rate": 10})
    good = {"recovery_s": 1.0, "gap_ms": 50.0}
    assert faults.judged(fault, [good], frames, 90)["ok"]
    assert not faults.judged(fault, [good, {**good, "recovery_s": 2.1}], frames, 90)["ok"]
    assert not faults.judged(fault, [good, {**good, "gap_ms": 81.0}], frames, 90)["ok"]
    lost = faults.judged(fault, [good], frames - Counter({"rate": 1}), 90)
    assert not lost["ok"] and lost["unaccounted"] == 1 and "1 frames unaccounted for" in faults.line(lost)


def samples(growth: float = 0.0, files: int = 20, drift_ms: float = 0.0) -> list[dict[str, Any]]:
    return [
        {
            "at_s": 10.0 * i,
            "memory": {"grab": {"own": 1e8 * (1 + growth * i / 100), "files": 20 if i < 90 else files}},
            "offset_ms": 5.0 + drift_ms * i / 100,
        }
        for i in range(101)
    ]


def test_soak_knows_what_is_not_flat() -> None:
    report = {"frames": {"in": 9, "shown": 9, "dropped": {}}, "restarts": {}, "stages_ms": {}, "fps": {}}
    assert soak.judge(samples(), report)["ok"]
    for bad in (samples(growth=0.02), samples(files=21), samples(drift_ms=60.0)):
        assert not soak.judge(bad, report)["ok"]
    assert not soak.judge(samples(), {**report, "restarts": {"grab": 1}})["ok"]
    assert not soak.judge(samples(), {**report, "frames": {"in": 9, "shown": 8, "dropped": {}}})["ok"]


@pytest.mark.slow
def test_a_short_soak_of_the_real_thing(tmp_path: Path) -> None:
    """Too short to judge the memory; long enough to see a file or a clock that runs away. Masks may take their time."""
    engine = tmp_path / "small.toml"
    engine.write_text('model = "micro"\nweights = "package:micro"\nimage_size = 64\nruntime = "torch"\n')
    found = soak.judge(*soak.soak(0.12, 0.7, (640, 512), engine=engine, more="mask_budget_ms = 5000.0"))
    assert set(found["processes"]) == {"supervisor", "grab", "segment", "publish"} and not found["restarts"]
    assert all(len(row["files"]) == 1 and abs(row["growth"]) < 0.5 for row in found["processes"].values()), found
    assert abs(found["drift_ms"]) < 1000 and found["unaccounted"] == 0 and found["frames"]["in"] > 50


def test_preview_knows_a_slow_answer_and_a_picture_that_waits() -> None:
    quiet, slow = [seen([2.0] * 100)["video"]], [seen([30.0] * 90)["video"]]
    good = preview.figures([(100.0, 50.0)] * 20, 80.0, quiet, quiet, (100, 90))
    assert good["ok"] and good["answer p50 / step p50"] == 1.25 and good["masks, with / without"] == 0.9
    assert not preview.figures([(100.0, 50.0)] * 18 + [(301.0, 50.0)] * 2, 80.0, quiet, quiet, (100, 90))["ok"]
    late = preview.figures([(100.0, 50.0)] * 20, 80.0, quiet, slow, (100, 90))
    assert not late["ok"] and late["video delay ms p95 with previews"] > 10 * late["video delay ms p95 alone"]
