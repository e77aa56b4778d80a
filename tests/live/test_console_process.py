"""A console beside a feed: started with it, started again when it dies, gone with it, and never in its way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rtseg.base.errors import ConfigError
from rtseg.live import console_process
from rtseg.live.console_process import ConsoleProcess, check_console, free_port
from rtseg.live.profile import StreamProfile
from tests.live.conftest import LONG_S, SOURCE, Running, accounted

COMMAND = (sys.executable, str(Path(__file__).with_name("fake_console.py")))


def started(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def until(true: Callable[[], Any]) -> None:
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < LONG_S
        time.sleep(0.01)


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture()
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAKE_CONSOLE", str(tmp_path / "console"))
    return tmp_path / "console"


def test_a_console_that_dies_is_started_again_and_the_feed_does_not_notice(
    path: Path, profile: StreamProfile, faults: Callable[..., None], running: Callable[[StreamProfile], Running],
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = running(replace(profile, source=SOURCE.format(60), control="tcp://127.0.0.1:*"))
    port = free_port(8390)
    with ConsoleProcess(run.state, port, COMMAND) as console:
        run.until(lambda: started(path))
        for starts in (1, 2):
            pid = started(path)[-1]["pid"]
            os.kill(pid, signal.SIGKILL)
            run.until(lambda n=starts: len(started(path)) > n)
        run.until(lambda: console.pid is not None)
        last = started(path)[-1]
        assert console.starts == 3 and alive(last["pid"])
        where = [run.state.endpoint, "--control", run.state.control, "--bind", f"127.0.0.1:{port}"]
        assert all(one["words"] == where for one in started(path))
    assert not alive(last["pid"]) and capfd.readouterr().out == ""
    assert all(worker.restarts == 0 for worker in run.state.workers.values())
    assert run.state.phase == "running" and accounted(run.finish())


def test_a_console_that_can_never_work_is_not_started_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state: Any = SimpleNamespace(endpoint="", control="tcp://127.0.0.1:2", profile=StreamProfile("x"))
    monkeypatch.setattr(console_process, "back_off_s", lambda *_: 0.0)
    monkeypatch.setenv("FAKE_CONSOLE_CODE", "2")
    with ConsoleProcess(state, 8391, COMMAND) as console:
        assert started(path) == []  # nothing is published yet
        state.endpoint = "tcp://127.0.0.1:1"
        until(lambda: not console._thread.is_alive())
        assert len(started(path)) == 1
    path.unlink()
    monkeypatch.setenv("FAKE_CONSOLE_CODE", "1")  # the negative control: this may pass
    with ConsoleProcess(state, 8391, COMMAND) as console:
        until(lambda: len(started(path)) > 2)


def test_a_console_ends_with_a_feed_that_is_killed(path: Path) -> None:
    code = (
        "import os, sys, time; from types import SimpleNamespace as S; from pathlib import Path\n"
        "from rtseg.live.console_process import ConsoleProcess; from rtseg.live.profile import StreamProfile\n"
        "state = S(endpoint='tcp://127.0.0.1:1', control='tcp://127.0.0.1:2', profile=StreamProfile('x'))\n"
        f"ConsoleProcess(state, {free_port(8392)}, {COMMAND!r}).__enter__(); time.sleep(600)"
    )
    feed = subprocess.Popen([sys.executable, "-c", code])
    try:
        until(lambda: started(path))
        pid = started(path)[0]["pid"]
        assert alive(pid)
    finally:
        feed.kill()
        feed.wait()
    until(lambda: not alive(pid))


def test_what_is_missing_for_a_console_is_said_before_the_feed_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path} has no key for the console.*run: rtseg keys new console"):
        check_console(StreamProfile("x", keys=tmp_path))
    (tmp_path / "console.key_secret").touch()
    check_console(StreamProfile("x", keys=tmp_path))
    monkeypatch.setattr(console_process, "NEEDS", ("starlette", "no_such_package"))
    with pytest.raises(ConfigError, match=r"pip install 'rtseg\[console\]'"):
        check_console(StreamProfile("x"))


def test_a_port_that_is_taken_is_not_free() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert free_port(taken) not in (taken, 0)
