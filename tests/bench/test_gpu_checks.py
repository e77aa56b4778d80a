"""The correctness parts of `bench.gpu` find an engine that is wrong, and pass one that is right."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.gpu import clip, fuzz, verbs
from bench.gpu.case import Case, shipped
from bench.gpu.waits import PAGEABLE, STEP, Event, busy, count
from rtseg.engine import Decoded, Engine
from rtseg.engine import recipe as config

TINY = Case("micro", 64, "cpu")
SHIPPED = Case("micro", 64, "cpu", shipped=True)


class Faulty:
    """An engine with one verb's answer changed."""

    def __init__(self, engine: Engine, verb: str, change: Callable[[Any], Any]) -> None:
        self._engine, self._verb, self._change = engine, verb, change

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._engine, name)
        if name != self._verb:
            return method
        return lambda *args: self._change(method(*args))


def nan_in_one_place(decoded: Decoded) -> Decoded:
    logits = decoded.logits_b1hw.clone()
    logits[-1, 0, 3, 5] = float("nan")
    return Decoded(logits, decoded.iou_b, decoded.score_b, decoded.pointer_bc)


def stale() -> Callable[[Any], Any]:
    """The answer of the call before: what a graph gives whose input is not copied."""
    last: list[Any] = []

    def change(answer: Any) -> Any:
        last.append(answer)
        return last[max(0, len(last) - 2)]

    return change


FAULTS = [
    ("attend", lambda out: out * 1.05, {"attend", "attend, one new"}),
    ("decode", nan_in_one_place, {"decode", "decode, box", "decode, points and mask", "decode, mask"}),
    ("track", stale(), {"track, again"}),
    ("prepare", lambda out: out + 2 / 255 / 0.229, {"prepare"}),
    ("remember", lambda kept: kept[::-1], {"remember"}),
]


@pytest.mark.parametrize("case", [TINY, Case("nano", 64, "cpu")], ids=["micro", "nano"])
def test_a_right_engine_passes(case: Case) -> None:
    found = verbs.check(case, "bf16", 2, 1, 7)
    assert found["ok"], found


@pytest.mark.parametrize(("verb", "change", "wrong"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_wrong_verb_is_named(verb: str, change: Callable[[Any], Any], wrong: set[str]) -> None:
    engine = Faulty(TINY.engine("bf16", objects=2), verb, change)
    found = verbs.check(TINY, "bf16", 2, 1, 7, engine)
    assert not found["ok"]
    assert {name for name, v in found["verbs"].items() if not v["ok"]} == wrong


def test_no_number_is_no_small_error() -> None:
    one, none = torch.ones(1, 4), torch.full((1, 4), float("nan"))
    assert verbs.error_of(one, none) == verbs.error_of(none, one) == verbs.error_of(none, none) == float("inf")
    assert verbs.error_of(one, torch.ones(1, 5)) == float("inf") and verbs.error_of(one, 1.05 * one) < 0.051


def test_the_parity_clip_finds_a_wrong_engine() -> None:
    def shifted(answer: Any) -> Any:
        decoded, written = answer
        logits = decoded.logits_b1hw.roll(3, 3)
        return Decoded(logits, decoded.iou_b, decoded.score_b, decoded.pointer_bc), written

    engine = Faulty(SHIPPED.engine("fp32", "efp", clip.OBJECTS), "track", shifted)
    found = clip.check(SHIPPED, "fp32", "efp", 6, engine)
    assert not found["ok"] and "synthetic: frame" in found["why"]


def test_fuzz_finds_an_engine_that_mixes_objects_up() -> None:
    def swapped(answer: Any) -> Any:
        decoded, written = answer
        return Decoded(
            *(x.flip(0) for x in (decoded.logits_b1hw, decoded.iou_b, decoded.score_b, decoded.pointer_bc))
        ), written

    engine = Faulty(SHIPPED.engine("fp32", objects=3), "track", swapped)
    found = fuzz.check(SHIPPED, "fp32", 5, float("inf"), 3, candidate=engine)
    assert not found["ok"] and found["failed"], found


def test_fuzz_compares_errors_and_objects() -> None:
    mask = {1: np.ones((4, 4), bool)}
    assert fuzz.compare([mask], [mask], "fp32")["failures"] == []
    assert "EngineError" in fuzz.compare([mask], ["EngineError: no room"], "bf16")["failures"][0]
    assert "expected [1]" in fuzz.compare([mask], [{}], "fp32")["failures"][0]
    assert fuzz.compare(["PromptError: a"], ["PromptError: a"], "fp32")["failures"] == []


def test_shipped_weights_are_read_without_their_library() -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    expected, found = safetensors.load_file(config.SHIPPED / "micro.safetensors"), shipped("micro")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


CLEAN = "tracked 4 frames, 4 of numbers\n========= ERROR SUMMARY: 0 errors\n"
DIRTY = "========= Invalid __global__ write of size 4 bytes\n========= ERROR SUMMARY: 3 errors\n"


@pytest.mark.parametrize(
    ("code", "said", "ok", "errors"),
    [(0, CLEAN, True, 0), (77, DIRTY, False, 3), (0, "========= ERROR SUMMARY: 0 errors\n", False, None),
     (1, "tracked 4 frames", False, None), (1, CLEAN, False, 0)],
)  # fmt: skip
def test_what_the_sanitizer_says(code: int, said: str, ok: bool, errors: int | None) -> None:
    found = clip.verdict(code, said)
    assert found["ok"] is ok and found.get("errors") == errors


def test_the_sanitizer_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(clip.sys, "path", [])
    place = tmp_path / "bin" / clip.SANITIZER
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, CLEAN, "")

    if clip.sanitizer() is None:
        assert "absent" in clip.sanitized(TINY, 5, run) and not asked
    place.parent.mkdir()
    place.touch()
    assert clip.sanitized(TINY, 5, run) == {"ok": True, "errors": 0, "exit": 0}
    too_slow = subprocess.TimeoutExpired("x", 5)

    def hangs(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        raise too_slow

    assert "not through in 5 s" in clip.sanitized(TINY, 5, hangs)["unfinished"]
    assert asked[0][0] == str(place) and asked[0][-3:] == ["micro", "64", "cpu"]


def test_the_sanitized_clip_runs(capsys: pytest.CaptureFixture[str]) -> None:
    clip.track(TINY, 3)
    assert capsys.readouterr().out == "tracked 3 frames, 3 of numbers\n"


def trace(*more: Event) -> list[Event]:
    """Two steps, each with one wait, one upload from pinned memory, a graph of two kernels, and a download."""
    events: list[Event] = [Event("cudaDeviceSynchronize", 1, 2, False)]  # outside of any step
    for at in (100.0, 200.0):
        events += [
            Event(STEP, at, at + 50, False), Event(STEP, at + 1, at + 48, True),
            Event("cudaMemcpyAsync", at + 1, at + 2, False),
            Event("Memcpy HtoD (Pinned -> Device)", at + 2, at + 4, True),
            Event("cudaGraphLaunch", at + 3, at + 5, False), Event("a kernel", at + 5, at + 20, True),
            Event("another", at + 15, at + 30, True), Event("cudaStreamSynchronize", at + 10, at + 40, False),
            Event("Memcpy DtoH (Device -> Pageable)", at + 31, at + 35, True),
        ]  # fmt: skip
    return [*events, *more]


def test_waits_are_counted_by_step() -> None:
    found = count(trace())
    assert (found["steps"], found["waits"], found["launches"], found["kernels"]) == (2, 1.0, 1.0, 2.0)
    assert found["device_ms"] == pytest.approx((2 + 25 + 4) / 1e3)
    more = Event("cudaEventSynchronize", 105, 106, False), Event(f"Memcpy HtoD {PAGEABLE}", 210, 211, True)
    assert count(trace(*more))["waits"] == 2.0, "the control: one more of each kind"
    assert count([])["steps"] == 0


def test_what_runs_side_by_side_counts_once() -> None:
    assert (
        busy([Event("a", 0, 10, True), Event("b", 2, 5, True), Event("c", 8, 14, True), Event("d", 20, 21, True)]) == 15
    )
