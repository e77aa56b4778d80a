"""The machine's facts, each against another source that says the same."""

from __future__ import annotations

import math
import mmap
import os
from pathlib import Path

import pytest

from rtseg.base.hardware import cpu, gpu, memory
from rtseg.base.hardware.cpu import Cores


def test_cores_follow_the_affinity_of_this_process() -> None:
    ours = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, ours[:1])
        found = cpu.cores()
        assert (found.logical, found.physical, cpu.cpu_cores()) == (1, 1, 1)
    finally:
        os.sched_setaffinity(0, ours)
    assert cpu.cores().logical == len(ours) == cpu.cpu_cores()


def test_hyperthreads_share_a_core(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for number, siblings in enumerate(("0-1", "0-1", "2-3", "2-3")):
        (tmp_path / f"cpu{number}/topology").mkdir(parents=True)
        (tmp_path / f"cpu{number}/topology/thread_siblings_list").write_text(f"{siblings}\n")
    monkeypatch.setattr(cpu, "_TOPOLOGY", tmp_path)
    monkeypatch.setattr(cpu, "_processors", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(cpu, "_quota", lambda: math.inf)
    assert str(cpu.cores()) == "2 cores with 4 hyperthreads"
    assert cpu.cores().network_threads == 2


@pytest.mark.parametrize(("limit", "expected"), [("150000 100000", 1.5), ("max 100000", math.inf), ("x", math.inf)])
def test_a_containers_quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, expected: float) -> None:
    (tmp_path / "own").write_text("0::/a/b\n")
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/cpu.max").write_text(limit)  # of the group above ours
    monkeypatch.setattr(cpu, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(cpu, "_GROUPS", tmp_path)
    assert cpu._quota() == expected
    assert Cores(4, 2, 1.5).usable == 1 and Cores(4, 2, 1.75).usable == 2


def test_memory_that_is_filled_is_seen() -> None:
    before = memory.resident_bytes()
    ballast = mmap.mmap(-1, 64 << 20)  # new pages; malloc may have some that are filled already
    for page in range(0, len(ballast), mmap.PAGESIZE):
        ballast[page] = 1
    assert memory.resident_bytes() - before > 48 << 20
    assert memory.peak_resident_bytes() >= memory.resident_bytes() - (16 << 20)
    assert 0 < memory.available_bytes() < memory.total_bytes()


def test_the_driver_says_its_version_or_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gpu, "DRIVER", tmp_path / "version")
    assert gpu.driver_version() == ""
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Tue Jan 7\nGCC version:  gcc version 11.4.0\n"
    (tmp_path / "version").write_text(text)
    assert gpu.driver_version() == "570.86.15"
