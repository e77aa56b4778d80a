"""When a worker is restarted, how long it may be silent, and what it uses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rtseg.live.activity import ActivityMonitor, cpu_seconds, memory_use
from rtseg.live.worker_limits import SILENT_S, back_off_s, silence_s


def test_a_process_that_works_is_started_again_at_once_and_one_that_does_not_less_and_less_often() -> None:
    waits = [back_off_s(n, 0.5) for n in range(1, 12)]
    assert waits[0] == 0 and waits[1] == pytest.approx(0.25) and waits == sorted(waits) and waits[-1] == 8
    assert back_off_s(3, 0.0) < back_off_s(3, 1.0)


def test_a_long_step_does_not_buy_minutes_of_silence() -> None:
    assert silence_s("segment", 20) == SILENT_S["segment"]
    assert silence_s("segment", 1000) == 10  # ten of its steps
    assert silence_s("segment", 20_000) == 60  # two of them, and 20 s


def test_memory_and_files_of_a_process_are_those_that_it_uses() -> None:
    before = memory_use(os.getpid())
    held = bytearray(os.urandom(1) * 64 * 2**20)
    with Path(os.devnull).open():
        after = memory_use(os.getpid())
    assert 0.8 < (after["rss_bytes"] - before["rss_bytes"]) / len(held) < 1.5
    assert after["open_files"] == before["open_files"] + 1


def test_a_process_that_is_gone_uses_nothing_and_does_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert memory_use(process.pid) == {} == memory_use(None) and cpu_seconds(process.pid) is None
    monitor = ActivityMonitor(process.pid, 0, children=True)
    began_ns = monitor.active_ns
    monitor.look(0)
    assert monitor.active_ns == began_ns == monitor.progress_ns
    monitor.look(1)  # a heartbeat
    assert monitor.active_ns > began_ns
