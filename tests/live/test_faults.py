"""What an operating room may do to a feed: each process killed, stopped and broken, and the picture goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtseg.base.types import now_ns
from rtseg.live import worker_limits
from rtseg.live.profile import StreamProfile
from tests.live.conftest import LONG_S, SOURCE, WORKER, Running, accounted, watch

Start = Callable[[StreamProfile], Running]
Faults = Callable[..., None]


def gap_ms(run: Running) -> float:
    """The longest time between two original pictures, as they left."""
    assert run.watcher is not None
    return float(max(np.diff([m.header["published_ns"] for m in run.watcher.got["video"]])) / 1e6)


@pytest.fixture()
def endless(profile: StreamProfile, faults: Faults) -> StreamProfile:
    return replace(profile, source=SOURCE.format(120))


def test_a_network_that_is_killed_comes_back_with_its_objects(endless: StreamProfile, running: Start) -> None:
    run = running(endless)
    assert run.watcher is not None
    run.until(lambda: run.state.phase == "running" and run.state.board["segmented"] > 5)
    os.kill(run.pid("segment"), signal.SIGKILL)
    away_s = run.until(lambda: run.state.phase == "recovering") + run.until(lambda: run.state.phase == "running")
    newest = run.watcher.got["overlay"][-1].header
    run.until(lambda: run.watcher.got["overlay"][-1].header["state"] == "fresh")
    assert run.watcher.got["overlay"][-1].header["objects"][0]["label"] == "grasper", newest
    states = [m.header["state"] for m in run.watcher.got["status"]]
    assert "recovering" in states
    report = run.finish()
    assert accounted(report) and report["restarts"] == {"segment": 1}
    assert gap_ms(run) < 1e3 * away_s  # the picture went on meanwhile; bench.faults has the figure


@pytest.mark.parametrize("engine", [False, True])
def test_a_network_that_raises_comes_back_and_says_why(
    endless: StreamProfile, faults: Faults, running: Start, tmp_path: Path, engine: bool
) -> None:
    """Also where it raises one of our own errors: only who has not opened yet refuses."""
    faults(raise_at=12, life=str(tmp_path / "life"), engine=engine)
    run = running(endless)
    assert run.watcher is not None
    got = run.watcher.got
    run.until(lambda: run.state.workers["segment"].restarts == 1 and run.state.phase == "running")
    seq = run.state.frames.head
    run.until(lambda: got["overlay"][-1].header["state"] == "fresh" and got["video"][-1].seq > seq)
    report = run.finish()
    assert report["ok"] and report["restarts"] == {"segment": 1} and accounted(report)
    events = [event for m in got["status"] for event in m.status().get("events", [])]
    assert any("out of memory" in event for event in events)
    assert any("segment recovered: " in event for event in events)  # a picture says so only where that takes a while


@pytest.mark.slow
def test_a_network_that_always_raises_never_takes_the_picture_with_it(profile: StreamProfile, faults: Faults) -> None:
    faults(raise_at=1, always=True)
    report, got = watch(replace(profile, source=SOURCE.format(5)))
    assert accounted(report) and max(m.seq for m in got["video"]) > 100 and report["mask_states"]["fresh"] == 0
    assert got["status"][-2].header["state"] in ("running", "ended") and not report["ok"]
    assert 1 <= report["restarts"]["segment"] < 50
    assert "crashed on them" in report["faults"]["prompts"]  # so it is not tried for ever


@pytest.mark.slow
@pytest.mark.parametrize("role", ["segment", "publish", "grab"])
def test_a_process_that_is_stopped_is_replaced(
    endless: StreamProfile, running: Start, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(worker_limits.SILENT_S, role, 1.5)  # it is given up sooner than in an operating room
    run = running(endless)
    run.until(lambda: run.state.board["segmented"] > 5)
    before, pid = run.state.board["shown"], run.pid(role)
    os.kill(pid, signal.SIGSTOP)
    run.until(lambda: run.state.workers[role].restarts == 1)
    run.until(lambda: run.state.phase == "running" and run.state.board["shown"] > before + 75)
    assert not Path(f"/proc/{pid}").exists()
    if role == "segment":
        assert (
            gap_ms(run) < 1e3 * worker_limits.SILENT_S[role]
        )  # it was given up after so long, and nobody waited for it
    assert accounted(run.finish())


@pytest.mark.parametrize("role", ["publish", "grab"])
def test_a_process_that_is_killed_is_back_at_once(endless: StreamProfile, running: Start, role: str) -> None:
    run = running(endless)
    assert run.watcher is not None
    run.until(lambda: run.state.board["segmented"] > 5)
    for _ in range(2):
        shown = run.state.board["shown"]
        os.kill(run.pid(role), signal.SIGKILL)
        run.until(lambda n=shown: run.state.board["shown"] > n + 15)  # type: ignore[misc]
    seqs = [m.seq for m in run.watcher.got["video"]]
    assert seqs == sorted(set(seqs)), "a frame's number is used once"
    assert accounted(run.finish())


def test_a_supervisor_that_is_stopped_holds_nothing_up(profile: StreamProfile, faults: Faults, tmp_path: Path) -> None:
    with outside(tmp_path) as supervisor:
        from rtseg import Subscriber

        with Subscriber(supervisor.endpoint, ["video"]) as subscriber:
            assert subscriber.get(timeout=LONG_S)
            os.kill(supervisor.pid, signal.SIGSTOP)
            stopped_ns, seen = now_ns(), 0
            while seen < 30:
                message = subscriber.get(timeout=LONG_S)
                assert message is not None, f"nothing after {seen} pictures"
                seen += message.header["captured_ns"] > stopped_ns
            os.kill(supervisor.pid, signal.SIGCONT)


def test_nothing_outlives_a_supervisor_that_is_killed(faults: Faults, tmp_path: Path) -> None:
    before = set(Path("/dev/shm").iterdir())
    with outside(tmp_path) as supervisor:
        children = [pid for pid in processes() if parent(pid) == supervisor.pid]
        assert len(children) == 3
        os.kill(children[0], signal.SIGSTOP)  # also one that cannot do anything for itself
        os.kill(supervisor.pid, signal.SIGKILL)
        until = time.monotonic() + LONG_S
        while time.monotonic() < until and any(alive(pid) for pid in children):
            time.sleep(0.01)
        assert not any(alive(pid) for pid in children)
    assert set(Path("/dev/shm").iterdir()) <= before


# A supervisor in a process of its own.

PROGRAM = """
import sys
from rtseg.live import run_live
from rtseg.live.workers.lifecycle import end_with_parent
end_with_parent(int(sys.argv.pop(1)))
from rtseg.live.profile import Publish, StreamProfile
from rtseg.base.types import Prompt
box = Prompt(1, box=(20.0, 20.0, 120.0, 100.0))
profile = StreamProfile(sys.argv[1], "room", target_fps=50, publish=Publish("tcp://127.0.0.1:*"), objects=(box,))
def ready(feed, endpoint):
    print(endpoint, flush=True)
run_live(profile, ready=ready, worker=sys.argv[2:])
"""


class outside:  # noqa: N801  # reads as what it is: `with outside(...)`
    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-c", PROGRAM, str(os.getpid()), SOURCE.format(60), *WORKER]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        self.pid = self._process.pid

    def __enter__(self) -> outside:
        assert self._process.stdout is not None
        self.endpoint = self._process.stdout.readline().strip()
        until = time.monotonic() + LONG_S
        while time.monotonic() < until and sum(parent(pid) == self.pid for pid in processes()) < 3:
            time.sleep(0.01)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()


def processes() -> list[int]:
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()]


def parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return None


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
