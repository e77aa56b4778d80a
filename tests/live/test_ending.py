"""How a run ended is told by its exit code and its last line, and both follow from one list of what went wrong."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rtseg.base.errors import EngineError
from rtseg.live import Feed, run_live, worker_limits, worker_process
from rtseg.live.ending import Ending
from rtseg.live.profile import StreamProfile
from rtseg.publish.verify import verify
from tests.live.conftest import SOURCE, WORKER, Running, accounted, watch

Start = Callable[[StreamProfile], Running]
Faults = Callable[..., None]
SLOW = pytest.mark.slow


@pytest.fixture()
def endless(profile: StreamProfile, faults: Faults) -> StreamProfile:
    return replace(profile, source=SOURCE.format(120))


def test_exit_code_and_last_line_follow_from_the_list() -> None:
    ending = Ending()
    assert ending.ok and ending.code == 0 and ending.line == "" and not ending.failed
    assert ending.add("record", "no space\nleft") and not ending.add("record", "no space left")
    ending.add("record", "it is not closed")
    assert ending.code == 1 and not ending.failed
    ending.add("segment", "signal SIGKILL")
    assert ending.failed
    assert ending.line == "record: no space left; record: it is not closed; segment: signal SIGKILL"
    assert ending.plain() == {"record": "no space left", "segment": "signal SIGKILL"}
    ending.refuse("segment", EngineError("no such plan"))
    ending.refuse("grab", EngineError("because of that"))
    assert ending.code == 2 and ending.line == "no such plan"


@pytest.mark.parametrize("role", ["record", *(pytest.param(r, marks=SLOW) for r in ("segment", "publish", "grab"))])
def test_a_part_that_is_stopped_makes_the_end_a_failure(
    endless: StreamProfile, running: Start, tmp_path: Path, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "STOP_S", 0.5)
    monkeypatch.setitem(worker_limits.SILENT_S, role, 60.0)  # nobody notices before the end
    run = running(replace(endless, record=tmp_path))
    run.until(lambda: run.state.board["recorded"] > 5 and run.state.board["segmented"] > 5)
    os.kill(run.pid(role), signal.SIGSTOP)
    report = run.finish()
    assert not report["ok"] and run.state.ending.code == 1 and accounted(report)
    assert set(report["faults"]) == {role} and "did not end within" in report["why"] and role in report["why"]
    (folder,) = tmp_path.iterdir()
    assert verify(folder)["closed"] == (role != "record")
    assert ("the recording is not closed" in report["why"]) == (role == "record")


def test_a_feed_that_ends_in_order_says_nothing(
    endless: StreamProfile, running: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the test above."""
    monkeypatch.setattr(worker_process, "STOP_S", 60.0)  # a busy machine is slow to end
    run = running(replace(endless, record=tmp_path))
    run.until(lambda: run.state.board["recorded"] > 5 and run.state.board["segmented"] > 5)
    report = run.finish()
    (folder,) = tmp_path.iterdir()
    assert (report["ok"], report["faults"], report.get("why")) == (True, {}, None) and verify(folder)["closed"]
    assert report["recording"] == {"folder": str(folder), "frames": verify(folder)["frames"], "missed": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("close", "why"),
    [("work", ""), pytest.param("hang", "did not end within", marks=SLOW), ("full", "no space left")],
)
def test_a_recording_is_waited_for_while_its_process_gets_on(
    endless: StreamProfile, faults: Faults, running: Start, tmp_path: Path, close: str, why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """It works for longer than it may be without any sign of life."""
    monkeypatch.setattr(worker_process, "STOP_S", 0.4)
    faults(close=close)
    run = running(replace(endless, record=tmp_path))
    run.until(lambda: run.state.board["recorded"] > 5)
    report = run.finish()
    assert report["ok"] == (not why) and why in report.get("why", "")
    (folder,) = tmp_path.iterdir()
    assert verify(folder)["closed"] == (not why)


@pytest.mark.parametrize("role", ["segment", *(pytest.param(r, marks=SLOW) for r in ("publish", "grab"))])
def test_a_part_that_is_not_back_at_the_end_is_a_fault_and_one_that_came_back_is_none(
    endless: StreamProfile, running: Start, role: str
) -> None:
    run = running(endless)
    run.until(lambda: run.state.board["segmented"] > 5)
    os.kill(run.pid(role), signal.SIGKILL)
    worker = run.state.workers[role]
    run.until(lambda: worker.restarts == 1 and worker.up and run.state.phase == "running")
    assert run.state.ending.ok
    os.kill(run.pid(role), signal.SIGKILL)
    run.until(lambda: not run.state.workers[role].up)
    report = run.finish()
    assert set(report["faults"]) == {role} and "SIGKILL" in report["why"] and run.state.ending.code == 1


def test_a_feed_of_which_nothing_came_is_no_success(profile: StreamProfile, faults: Faults, tmp_path: Path) -> None:
    """It is ended while the network still loads."""
    faults(gate=str(tmp_path / "gate"))
    feed = Feed(profile, WORKER)

    def note(kind: str, role: str, text: str) -> None:
        if kind == "bound":
            feed.stop()

    feed.state.note = note  # type: ignore[method-assign]
    report = feed.run()
    assert report["faults"].keys() == {"grab"} and "waited for" in report["why"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("account", "line"), [("gap", "skipped 3 damaged frames"), ("ended", "ended early: cut off 1 s"), ("", "")]
)
def test_what_was_wrong_with_the_source_is_in_status_record_and_report(
    profile: StreamProfile, faults: Faults, tmp_path: Path, account: str, line: str
) -> None:
    """What was skipped is said; that it ended before its end is a failure."""
    faults(account=account)
    report, got = watch(replace(profile, record=tmp_path))
    assert accounted(report) and report["ok"] == (account != "ended")
    assert line in report.get("source_account", "") and ("source_account" in report) == bool(account)
    assert ("cut off 1 s" in report.get("why", "")) == (account == "ended")
    last = got["status"][-1].status()
    assert line in "".join(last["account"].get("lines", [])) and bool(last["account"]) == bool(account)
    (folder,) = tmp_path.iterdir()
    events = [json.loads(text) for text in (folder / "events.jsonl").read_text().splitlines()]
    notes = [e["facts"] for e in events if e["event"] == "note" and e["kind"] == "account"]
    assert bool(notes) == bool(account) and (account != "gap" or notes[-1]["damaged"] == 3)


def test_an_end_that_is_not_waited_for_is_said(
    profile: StreamProfile, faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C for the second time."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rtseg.live.supervisor.close", interrupt)
    feed = Feed(replace(profile, source=SOURCE.format(0.4), record=tmp_path), WORKER)
    report = feed.run()
    assert "killed by a second Ctrl-C; it was killed; the recording is not closed" in report["faults"]["record"]
    assert set(report["faults"]) == set(feed.state.workers) and accounted(report)
    assert all(worker.pid is None and worker.link is None for worker in feed.state.workers.values())


def test_nothing_stays_open_after_a_run(profile: StreamProfile, faults: Faults) -> None:
    def sockets() -> int:
        links = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
        return sum(link.startswith("socket:") for link in links)

    run_live(replace(profile, source=SOURCE.format(0.2)), worker=WORKER)
    before = sockets()
    feed = Feed(replace(profile, source=SOURCE.format(0.2)), WORKER)
    feed.run()
    assert sockets() == before and all(worker.link is None for worker in feed.state.workers.values())
