"""The GPU's form of `bench.gpu` on a GPU that is not there: it mixes no devices, and breaks none of CUDA's rules.

Answers are zeros there, so what is judged is that it runs, and that an engine whose numbers are zeros is called wrong.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench.gpu import case as cases
from bench.gpu import clip, limits, peers, speed, verbs
from bench.gpu.case import Case
from bench.gpu.parts import Job, machine
from bench.roofline import Work, costs
from tests.engine.pretend_cuda import Pretended, pretend_cuda

pytestmark = pytest.mark.slow
TINY = Case("micro", 64, "cuda", fuse=False)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretended]:
    costs(Work("micro", 64))  # counted on tensors of another kind without numbers, and kept
    monkeypatch.setattr(cases, "randomize", lambda network, seed: None)  # the stand-in's generators have no seed
    for name in ("profiled", "warned"):  # CUPTI and torch's debug mode are a real device's
        monkeypatch.setattr(speed, name, lambda step, steps: {"waits": None})
    with pretend_cuda() as found:
        yield found


def test_verbs(gpu: Pretended) -> None:
    found = verbs.check(TINY, "bf16", 1, 1, 1)
    assert "cuda" in found["engine"] and set(found["verbs"]) >= {"prepare", "encode_image", "track, again"}
    assert not found["ok"] and not any(v["ok"] for v in found["verbs"].values()), "zeros are no answer"
    assert gpu.replays >= 2


def test_speed(gpu: Pretended) -> None:
    rows = [speed.Row("one"), speed.Row("efp", policy="efp")]
    found = speed.measure(TINY, rows, 5, time.monotonic() + 60, lambda report: None)
    assert list(found["rows"]) == ["one", "efp"]
    one = found["rows"]["one"]
    assert one["memory_mb"]["allocated"] > 1 and one["ms"]["count"] >= 5 and "captured" in one["engine"]


def test_peers_and_limits(gpu: Pretended) -> None:
    ways = peers.makers(TINY, peers.EAGER)
    del ways[peers.EAGER]
    found = peers.compare(TINY, 2, 2, 2, time.monotonic() + 60, lambda report: None, ways)
    assert found["ok"] and set(found["rows"]) == set(ways), found
    assert set(limits.ceilings("cuda", copied=2**20, side=64)) == {"gbps", "tflops"}
    measured: dict[str, Any] = limits.measure(TINY, Work("micro", 64), {"gbps": 1e3, "tflops": 10.0}, False)
    assert set(measured["verbs"]) == {"encode", "attend", "decode", "remember"} and measured["attention"]


def test_the_clip_for_the_sanitizer(gpu: Pretended, capsys: pytest.CaptureFixture[str]) -> None:
    clip.track(TINY, 2)
    assert capsys.readouterr().out == "tracked 2 frames, 2 of numbers\n"


def test_the_machine(gpu: Pretended) -> None:
    found = machine(Job("cuda", 1, 0.0, lambda report: None))
    assert found["ok"] and found["free_gib"] > 100
