"""What a step says beside its masks reaches everybody: a cut, objects lost and found, a frame without an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rtseg.base.errors import AnswerError
from rtseg.base.types import FrameId
from rtseg.live.ipc.reports import NewSize, StepTime, Unanswered
from rtseg.live.profile import StreamProfile
from rtseg.live.workers.step_reports import IN_A_ROW, SceneReports, StepTimes
from tests.live.conftest import SOURCE, Running, accounted, watch

Start = Callable[[StreamProfile], Running]
Faults = Callable[..., None]


@pytest.mark.slow
def test_a_cut_is_told_to_everybody(profile: StreamProfile, faults: Faults) -> None:
    faults(lost=[5, 45])
    report, got = watch(replace(profile, overlay="sync", source=SOURCE.format(3)))
    assert accounted(report) and report["ok"] and report["cuts"] == 1 and "unanswered" not in report
    status = got["status"][-1].status()
    cut = status["cuts"]["last"]
    assert status["cuts"] == {"count": 1, "last": cut, "lost": []}
    # A subscriber that is slow misses messages, but none says anything else.
    assert all(m.header["seq"] == cut and m.header["lost"] == [1] for m in got["masks"] if m.header.get("cut"))
    lost = [m.header["seq"] for m in got["masks"] if m.header.get("lost") == [1]]
    assert 2 <= len(lost) <= 40 and cut <= lost[0] < lost[-1]
    drawn = [m.header for m in got["overlay"] if m.header.get("lost")]
    assert drawn and all(h["lost"] == [1] and cut <= h["mask_seq"] <= max(lost) + 10 for h in drawn)
    told = [event for m in got["status"] for event in m.status()["events"]]
    assert f"segment cut: another scene begins with frame {cut}; lost until found again: 1" in told
    assert any(event.startswith("segment found: object 1 again, on frame ") for event in told)


@pytest.mark.slow
def test_without_a_cut_nothing_is_said(profile: StreamProfile, faults: Faults) -> None:
    """Negative control of the test above, and of the next."""
    report, got = watch(profile)
    assert report["ok"] and not {"cuts", "unanswered"} & report.keys()
    assert not any({"cut", "lost"} & m.header.keys() for kind in got for m in got[kind])
    status = got["status"][-1].status()
    assert status["cuts"] == {"count": 0, "last": None, "lost": []} and status["unanswered"] == 0


@pytest.mark.slow
def test_a_frame_without_an_answer_is_skipped_counted_and_told(profile: StreamProfile, faults: Faults) -> None:
    faults(unanswered=[6, 7, 12])
    report, got = watch(replace(profile, overlay="sync"))
    assert accounted(report) and report["ok"] and report["unanswered"] == 3 and not report["restarts"]
    assert got["status"][-1].status()["unanswered"] == 3
    told = [event for m in got["status"] for event in m.status()["events"]]
    assert any("unanswered: frame" in event and "are not numbers" in event for event in told)
    assert got["masks"][-1].header["seq"] > 20  # it went on


def test_a_network_that_gives_no_answers_any_more_is_started_again(
    profile: StreamProfile, faults: Faults, running: Start, tmp_path: Path
) -> None:
    faults(unanswered=list(range(6, 1000)), life=str(tmp_path / "life"))
    run = running(replace(profile, source=SOURCE.format(120)))
    run.until(lambda: run.state.workers["segment"].restarts == 1 and run.state.phase == "running")
    assert any(f"{IN_A_ROW} frames in a row: frame" in event for event in run.state.events)
    assert run.finish()["unanswered"] == IN_A_ROW


def test_only_frames_in_a_row_count() -> None:
    counted: list[str] = []
    sent: list[object] = []
    context = SimpleNamespace(board=SimpleNamespace(add=counted.append), send=sent.append)
    reports, wrong = SceneReports(context), AnswerError("frame 3: no numbers")  # type: ignore[arg-type]
    fine = SimpleNamespace(cut=False, lost=(), ids=(1,), seq=4)
    for _ in range(3):
        for _ in range(IN_A_ROW - 1):
            reports.failed(wrong)
        reports.answered(fine)  # type: ignore[arg-type]
    for _ in range(IN_A_ROW - 1):
        reports.failed(wrong)
    with pytest.raises(RuntimeError, match=f"{IN_A_ROW} frames in a row: frame 3"):
        reports.failed(wrong)
    assert counted == ["unanswered"] * (4 * (IN_A_ROW - 1) + 1)
    assert sent == [Unanswered("frame 3: no numbers")] * 4  # once in each row of them


def test_only_steps_after_the_first_ones_of_a_size_are_reported() -> None:
    sent: list[object] = []
    times = StepTimes(SimpleNamespace(send=sent.append))  # type: ignore[arg-type]
    for height, steps_ms in ((6, (900, 5000, 20, 20, 21, 90)), (12, (30_000, 40, 40))):
        for step_ms in steps_ms:
            times.begins(FrameId(0, height, 8))
            times.took(step_ms)
    assert sent == [NewSize(), StepTime(20), StepTime(90), NewSize(), StepTime(40)]
