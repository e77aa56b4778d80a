"""What was shown is on the disk if the profile says so, proves itself, and stops nothing when it cannot go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import msgpack
import numpy as np
import pytest

from rtseg.live.profile import StreamProfile
from rtseg.live.workers.record import _Recorder
from rtseg.publish.verify import verify
from tests.live.conftest import SOURCE, Running, accounted, watch

Faults = Callable[..., None]
Start = Callable[[StreamProfile], Running]


def events(folder: Path) -> list[dict[str, object]]:
    (run,) = folder.iterdir()
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def test_every_frame_that_was_shown_is_in_the_record(profile: StreamProfile, faults: Faults, tmp_path: Path) -> None:
    report, got = watch(replace(profile, record=tmp_path / "recordings"))
    (run,) = (tmp_path / "recordings").iterdir()
    found = verify(run)
    assert found["ok"] and found["closed"], found
    assert found["frames"] + found["missed"] >= report["frames"]["shown"] > 25
    frames = [e for e in events(tmp_path / "recordings") if e["event"] == "frame"]
    shown = {m.seq: m.header for m in got["overlay"]}
    both = [e for e in frames if e["seq"] in shown]
    assert len(both) > 10 and all(e["mask_seq"] == shown[e["seq"]]["mask_seq"] for e in both)
    assert all(e["state"] == shown[e["seq"]]["state"] for e in both)
    log = run / "events.jsonl"
    log.write_text(log.read_text().replace('"state":"fresh"', '"state":"stale"', 1))
    assert not verify(run)["ok"]


def test_nothing_is_written_unless_the_profile_says_so(
    profile: StreamProfile, faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    watch(replace(profile, source=SOURCE.format(0.5)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_recorder_that_is_killed_goes_on_with_the_same_chain(
    profile: StreamProfile, running: Start, faults: Faults, tmp_path: Path
) -> None:
    run = running(replace(profile, source=SOURCE.format(60), record=tmp_path / "recordings"))
    for kill in range(1):
        run.until(lambda n=run.state.board["recorded"]: run.state.board["recorded"] > n + 70)  # type: ignore[misc]
        os.kill(run.pid("record"), signal.SIGKILL)
        run.until(lambda n=kill: run.state.workers["record"].restarts == n + 1)  # type: ignore[misc]
    run.until(lambda n=run.state.board["recorded"]: run.state.board["recorded"] > n + 30)  # type: ignore[misc]
    report = run.finish()
    (folder,) = (tmp_path / "recordings").iterdir()
    found = verify(folder)
    assert found["ok"] and found["closed"] and found["files"] == 2, found
    assert report["restarts"] == {"record": 1} and accounted(report)
    gone = report["recording"]["missed"]  # what the one that was killed had not written yet
    assert found["lost"] <= gone <= found["lost"] + found["missed"] and report["ok"] == (gone == 0)
    assert not gone or f"{gone} frames that were shown are not in the recording" in report["why"]


@pytest.mark.slow
def test_what_a_recorder_left_open_that_was_killed_just_before_the_end_is_closed(
    profile: StreamProfile, running: Start, faults: Faults, tmp_path: Path
) -> None:
    run = running(replace(profile, source=SOURCE.format(60), record=tmp_path / "recordings"))
    run.until(lambda: run.state.board["recorded"] > 70)
    os.kill(run.pid("record"), signal.SIGKILL)
    run.until(lambda: run.state.workers["record"].pid is None or run.state.workers["record"].restarts)
    report = run.finish()
    (folder,) = (tmp_path / "recordings").iterdir()
    found = verify(folder)
    assert found["ok"] and found["closed"], found
    assert found["lost"] <= report["recording"]["missed"] <= found["lost"] + found["missed"]


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ([None, None, 5, 6], [(0, 4, "the recorder was too slow")]),  # the recorder came late
        ([5, 6], []),  # the first frames were not shown
        ([5, 8], [(6, 7, "not shown")]),
        ([5, None, 8], [(6, 7, "the recorder was too slow")]),
    ],
)
def test_the_log_names_every_frame_that_is_not_recorded(
    read: list[int | None], expected: list[tuple[int, int, str]]
) -> None:
    headers = [None if n is None else msgpack.packb({"seq": n, "height": 1, "width": 1}) for n in read]
    board, drawn, recording = MagicMock(), MagicMock(), MagicMock()
    board.__getitem__.side_effect = {"record next": 0, "record seq": 0}.get
    drawn.read.side_effect = lambda i: headers[i] and (headers[i], np.zeros(3, np.uint8))
    recorder = _Recorder(SimpleNamespace(board=board, drawn=drawn), recording)  # type: ignore[arg-type]
    for i in range(len(read)):
        recorder._write_frame(i)
    assert [call.args for call in recording.missed.call_args_list] == expected
    assert recording.show.call_count == len(read) - read.count(None)


def test_a_short_feed_is_recorded_too(profile: StreamProfile, faults: Faults, tmp_path: Path) -> None:
    """Its recorder is not ready before all is over."""
    report, _ = watch(replace(profile, source=SOURCE.format(0.1), record=tmp_path / "recordings"))
    (folder,) = (tmp_path / "recordings").iterdir()
    assert report["ok"] and verify(folder)["closed"] and verify(folder)["frames"] >= report["frames"]["shown"] > 0


@pytest.fixture()
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "rtseg-test", str(disk)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a file system that fills up needs the right to mount one")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_the_recorder_loudly_and_nothing_else(
    profile: StreamProfile, running: Start, faults: Faults, small_disk: Path
) -> None:
    run = running(replace(profile, source=SOURCE.format(60), record=small_disk / "recordings"))
    run.until(lambda: run.state.faults.get("record"))
    assert "no space left" in run.state.faults["record"].lower()
    before = run.state.board["shown"]
    run.until(lambda: run.state.board["shown"] > before + 50)
    assert run.state.workers["record"].restarts == 0
    assert run.watcher is not None and run.state.phase == "running"
    run.until(lambda: "record" in run.watcher.got["status"][-1].status()["faults"])  # type: ignore[union-attr]
    report = run.finish()
    assert not report["ok"] and accounted(report)
    (folder,) = (small_disk / "recordings").iterdir()
    assert verify(folder)["unchanged"]


@pytest.mark.slow
def test_a_recorder_that_never_works_leaves_the_feed_what_it_is(
    profile: StreamProfile, running: Start, faults: Faults, tmp_path: Path
) -> None:
    faults(crash="record")
    run = running(replace(profile, source=SOURCE.format(60), record=tmp_path / "recordings"))
    run.until(lambda: run.state.board["segmented"] > 5)
    run.until(lambda: run.state.workers["record"].failing and not run.state.workers["record"].up)
    states: list[str] = []
    run.until(lambda: states.append(run.state.phase) or len(states) > 50)  # type: ignore[func-returns-value]
    assert set(states) == {"running"}, set(states)
    report = run.finish()
    assert not report["ok"] and "a bug" in report["faults"]["record"]


@pytest.mark.slow
def test_a_folder_that_disappears_is_said_once_and_what_is_not_recorded_is_counted(
    profile: StreamProfile, running: Start, faults: Faults, tmp_path: Path
) -> None:
    run = running(replace(profile, source=SOURCE.format(60), record=tmp_path / "recordings"))
    run.until(lambda: run.state.board["recorded"] > 10)
    (tmp_path / "recordings").rename(tmp_path / "elsewhere")
    run.until(lambda: run.state.faults.get("record"))
    run.until(lambda n=run.state.board["shown"]: run.state.board["shown"] > n + 30)  # type: ignore[misc]
    report = run.finish()
    assert report["why"].count("lost while it was written") == 1, report["why"]
    recording = report["recording"]
    assert recording["missed"] >= 30 and recording["frames"] + recording["missed"] >= report["frames"]["shown"]
