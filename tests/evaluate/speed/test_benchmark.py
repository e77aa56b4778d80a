"""`rtseg bench`: figures are what numpy says, stages are told apart, and a slower engine is seen to be slower."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg.base.errors import ConfigError, EngineError, PromptError
from rtseg.base.hardware import facts, load, memory
from rtseg.base.terminal import clock_bar, show
from rtseg.base.types import ImageU8
from rtseg.build import timing
from rtseg.build.timing import StageClock, synchronise
from rtseg.cli import main
from rtseg.engine import Decoded, Features, PromptBatch, Recall, Remembered
from rtseg.engine.base import Verbs
from rtseg.engine.recipe import MemorySettings, Recipe, load_recipe
from rtseg.evaluate.speed import benchmark, cold, plots
from rtseg.evaluate.speed import cases as cases_module
from rtseg.evaluate.speed import timed_run as timed_run_module
from rtseg.evaluate.speed.alternation import block_frames, enough, settling, take_turns
from rtseg.evaluate.speed.budget import Budget, Deadline
from rtseg.evaluate.speed.cases import benchmark_cases, choose_objects
from rtseg.evaluate.speed.cold import _cuda_mib
from rtseg.evaluate.speed.document import Document
from rtseg.evaluate.speed.figures import BenchmarkedEngine, accuracy, cautions
from rtseg.evaluate.speed.looped_clip import SYNTHETIC, LoopedClip, load_clip
from rtseg.evaluate.speed.statistics import fit, fit_blocks, jitter, median_interval, speedup, spread, summary, thin
from rtseg.evaluate.speed.timed_run import STAGES, Block, StagedRun, TimedRun, has_settled
from rtseg.sam2 import get_preset
from rtseg.synthetic import HELD_OUT_SEED

TINY = "synthetic:laparoscopy?seed=10010&width=160&height=120&seconds=0.4"


class Clock:
    """Time that passes when somebody says so: no machine is slow or busy in here."""

    ns = 0

    def __call__(self) -> int:
        return Clock.ns

    @staticmethod
    def sleep(seconds: float) -> None:
        Clock.ns += round(seconds * 1e9)


time = Clock()


@pytest.fixture(autouse=True)
def a_clock_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (timed_run_module, timing):
        monkeypatch.setattr(module, "now_ns", time)
    monkeypatch.setattr(benchmark, "Budget", partial(Budget, clock=time))


class Sleeper(Verbs):
    """An engine that does nothing, for as long as it is told: `e_ms` for a picture, `m_ms` for each object on it.

    Of `e_ms`, `p_ms` are for its preparation.
    """

    weights_hash = "0" * 64
    description = "asleep"

    def __init__(self, e_ms: float, m_ms: float, recipe: Recipe | None = None, p_ms: float = 0) -> None:
        self.recipe = recipe or Recipe(image_size=64, memory=MemorySettings("fifo", 5, 2), precision="fp32")
        self.preset, self.image_size = replace(get_preset("nano"), num_maskmem=3), self.recipe.image_size
        self.e_ms, self.m_ms, self.p_ms, self.calls = e_ms, m_ms, p_ms, 0

    def prepare(self, image_hwc: ImageU8) -> Tensor:
        time.sleep(self.p_ms / 1e3)
        return torch.zeros(1, 3, 64, 64)

    def encode_image(self, image_hwc: ImageU8) -> Features:
        self.calls += 1
        time.sleep(self.e_ms / 1e3)
        g = self.image_size // 16
        return Features(torch.zeros(1, 8, g, g), torch.zeros(1, 2, 2 * g, 2 * g), torch.zeros(1, 1, 4 * g, 4 * g))

    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Tensor:
        time.sleep(self.m_ms * len(recalls) / 1e3)
        return features.top.expand(len(recalls), -1, -1, -1)

    def decode(self, conditioned_bchw: Tensor, features: Features, prompts: PromptBatch) -> Decoded:
        b = len(conditioned_bchw)
        side = self.image_size // 4
        return Decoded(torch.ones(b, 1, side, side), torch.ones(b), torch.ones(b), torch.zeros(b, 8))

    def remember(
        self, features: Features, logits_b1hw: Tensor, score_b: Tensor, prompted: Sequence[bool]
    ) -> list[Remembered]:
        g = self.image_size // 16
        return [Remembered(torch.zeros(8, g, g)) for _ in prompted]


@pytest.fixture(scope="module")
def clip() -> LoopedClip:
    return load_clip(TINY)


def endless() -> Deadline:
    return Deadline(time, sys.maxsize)


def measured(engines: Sequence[Sleeper], objects: Sequence[int], clip: LoopedClip, rounds: int = 3) -> list[TimedRun]:
    runs = [TimedRun(engine, clip, n) for engine in engines for n in objects]
    for run in runs:
        run.warm_up(endless())
    take_turns(runs, [], Budget(1e6, clock=time), endless(), 4 * rounds, rounds)
    return runs


def blocks(run: TimedRun) -> list[list[float]]:
    return run.blocks_ms


# -- figures


def test_percentiles_are_those_of_the_samples() -> None:
    samples = np.random.default_rng(0).lognormal(3, 0.5, 500).tolist()
    found = summary(samples)
    for percent in (50, 90, 95, 99):
        assert found[f"p{percent}"] == pytest.approx(float(np.percentile(samples, percent)), abs=1e-3)
    assert found["max"] == pytest.approx(max(samples), abs=1e-3) and found["count"] == 500
    assert summary(list(range(101)))["p95"] == 95


def test_jitter_is_within_blocks() -> None:
    assert jitter([[1, 2, 1], [10, 12]]) == pytest.approx((1 + 1 + 2) / 3, abs=1e-4)
    assert jitter([[5], [9]]) is None


def test_the_fit_is_a_line() -> None:
    found = fit([1, 2, 4], [12.0, 14.0, 18.0])
    assert found == {"e_ms": 10.0, "m_ms": 2.0, "m_over_e": 0.2, "rms_ms": 0.0}
    bent = fit([1, 2, 4], [12.0, 20.0, 18.0])
    slope, offset = np.polyfit([1, 2, 4], [12.0, 20.0, 18.0], 1)
    assert bent and bent["e_ms"] == pytest.approx(offset, abs=1e-3) and bent["m_ms"] == pytest.approx(slope, abs=1e-3)
    assert bent["rms_ms"] and bent["rms_ms"] > 1
    assert fit([2], [10.0]) is None
    through_nothing = fit([1, 2], [1.0, 3.0])
    assert through_nothing and through_nothing["m_over_e"] is None


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that becomes ten times slower in between does not touch them."""
    found = speedup([[20, 20, 20], [200, 200, 200]] * 3, [[10, 10, 10], [100, 100, 100]] * 3)
    assert found == {"median": 2.0, "min": 2.0, "max": 2.0, "low": 2.0, "high": 2.0, "rounds": 6}
    assert spread([1, 2, 9]) == {"median": 2.0, "min": 1, "max": 9}


def test_the_interval_of_a_ratio_holds_the_median() -> None:
    """In 95 of 100 cases or more, however they are distributed; one that is far off changes nothing."""
    draws = np.random.default_rng(1).lognormal(0, 1, (2000, 10))
    found = [median_interval(draw) for draw in draws]
    assert 0.95 <= np.mean([low <= 1 <= high for low, high in found if low]) < 0.99
    assert median_interval([1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 99]) == (1.1, 1.7)
    assert median_interval([1.0, 2, 3, 4, 5, 6]) == (1, 6) and median_interval([1.0] * 5) is None
    assert speedup([[2.0]], [[1.0]])["low"] is None


def test_percentiles_that_few_frames_cannot_give() -> None:
    assert thin(100) == [] and thin(99) == ["p99"] and thin(19) == ["p95", "p99"] and thin(1)[0] == "p50"


def test_the_fit_recovers_what_an_engine_costs(clip: LoopedClip) -> None:
    runs = measured([Sleeper(24, 8)], (1, 2, 4), clip)
    found = fit_blocks([1, 2, 4], [blocks(run) for run in runs])
    assert found and found["e_ms"] == pytest.approx(24) and found["m_ms"] == pytest.approx(8)
    assert found["m_over_e_rounds"]["min"] == pytest.approx(found["m_over_e"])
    one = fit_blocks([1], [blocks(runs[0])])
    assert one is None


def test_a_slower_engine_is_seen_and_an_equal_one_is_not(clip: LoopedClip) -> None:
    fast, equal, slow = measured([Sleeper(10, 2), Sleeper(10, 2), Sleeper(30, 2)], (1,), clip)
    assert speedup(blocks(slow), blocks(fast))["median"] == pytest.approx(32 / 12, rel=1e-3)
    assert speedup(blocks(fast), blocks(equal))["median"] == 1


# -- runs


def test_stages_are_told_apart(clip: LoopedClip) -> None:
    run = TimedRun(Sleeper(20, 10, p_ms=7), clip, 2)
    run.warm_up(endless())
    staged = StagedRun(run)
    assert len(staged._tracker._objects[1].bank) == len(run._tracker._objects[1].bank) > 1  # it need not be filled
    for _ in range(2):
        staged.block(3)
    stages = {name: float(np.median(ms)) for name, ms in staged.stages_ms().items()}
    assert tuple(stages) == STAGES and all(len(ms) == 6 for ms in staged.stages_ms().values())
    assert stages["encode_image"] == 20 and stages["attend"] == 20
    assert stages["to_input"] == 7, "what the engine does, and no resizing of ours"
    whole = float(np.median([ms for block in blocks(staged) for ms in block]))
    assert sum(stages.values()) == pytest.approx(whole)


def test_a_warm_up_ends_when_times_are_steady(clip: LoopedClip) -> None:
    assert has_settled([9, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]) and not has_settled([1] * 9)
    assert not has_settled([9, 8, 7, 6, 5, 4, 3, 2, 1, 1])
    run = TimedRun(Sleeper(10, 0), clip, 1)
    run.warm_up(endless())
    assert run.full and run.steady and run.warm_up_frames == run.engine.calls == 1 + 4 + 10  # type: ignore[attr-defined]

    class Restless(TimedRun):
        def step(self) -> float:
            self._steps += 1
            return float(1.2**self._steps)

    restless = Restless(Sleeper(0, 0), clip, 1)
    restless.warm_up(endless())
    assert restless.full and not restless.steady and restless.warm_up_frames == 1 + 4 + 60


def test_a_warm_up_ends_when_time_is_up(clip: LoopedClip) -> None:
    """And there are two tracked frames, whatever they cost."""
    run = TimedRun(Sleeper(700, 0), clip, 1)
    run.warm_up(Budget(2.5, clock=time).until(1))
    assert not run.full and run.warm_up_frames == 4 and run.step_ms == 700
    run.warm_up(Budget(0.1, clock=time).until(1))
    assert run.warm_up_frames == 3


def test_a_click_is_a_prompt_on_a_running_tracker(clip: LoopedClip) -> None:
    run = TimedRun(Sleeper(5, 5), clip, 2)
    run.warm_up(endless())
    given: list[dict[str, Any]] = []
    prompt = run._tracker.prompt
    run._tracker.prompt = lambda i, **kw: (given.append(kw), prompt(i, **kw))[0]  # type: ignore
    assert run.click() >= 10
    (x, y, kind), frame = given[0]["points"][0], clip.frame(run._steps - 1)
    assert kind == 1 and frame.truth_hw is not None and frame.truth_hw[int(y), int(x)] == 1


# -- turns


class Turn:
    """Takes blocks of frames that last as long as it is told; may be of two minds about it."""

    order: ClassVar[list[Turn]] = []

    def __init__(self, step_ms: float, apart: float = 0.0) -> None:
        self.step_ms, self.apart, self.blocks_ms = step_ms, apart, list[list[float]]()

    def block(self, frames: int) -> None:
        Turn.order.append(self)
        ms = self.step_ms * (1 + self.apart * (len(self.blocks_ms) % 2))
        time.sleep(ms * (frames + settling(self.step_ms)) / 1e3)
        self.blocks_ms.append([ms] * frames)


def turns(runners: list[Turn], seconds: float, frames: int = 30, rounds: int = 6) -> float:
    """Of two at most, which are compared; the seconds that it took."""
    budget = Budget(seconds, clock=time)
    pairs = [(runners[0], other) for other in runners[1:]]
    take_turns(runners, pairs, budget, budget.until(1), frames, rounds)
    return budget.spent


def test_engines_take_turns_until_enough_is_known() -> None:
    a, b = Turn(10), Turn(20)
    Turn.order.clear()
    turns([a, b], 100)
    assert Turn.order == [a, b] * 6 and sum(map(len, a.blocks_ms)) == 30
    restless = Turn(20, apart=1.5)
    spent = turns([Turn(10), restless], 30)
    assert len(restless.blocks_ms) > 8 and 28 < spent <= 30.5, "a ratio that does not become certain takes all the time"
    assert enough([a], [], 30, 6) and not enough([a], [], 31, 6) and not enough([a], [], 30, 7)


def test_a_slow_one_has_few_frames_and_never_none() -> None:
    fast, slow = Turn(10), Turn(700)
    spent = turns([fast, slow], 12, frames=200)
    assert spent < 12.5 and 0 < sum(map(len, slow.blocks_ms)) < sum(map(len, fast.blocks_ms)) / 20
    stuck = Turn(60_000)
    turns([Turn(10), stuck], 5)
    assert sum(map(len, stuck.blocks_ms)) == 1
    assert block_frames(10, 500, 40) == 40 and block_frames(10, 200, 40) == 18 and block_frames(900, 500, 40) == 1
    assert settling(5) == 2 and settling(200) == 1 and settling(700) == 0


def test_what_is_told_of_the_time() -> None:
    heard: list[tuple[str, float, float]] = []
    budget = Budget(10, lambda *words: heard.append(words), time)
    budget.say("a")
    time.sleep(4)
    budget.say("b", 2)
    time.sleep(8)
    budget.say("c", 2)
    assert heard == [("a", 0, 10), ("b", 4, 6), ("c", 12, 12)] and budget.left == -2 and budget.until(0.5).over


def test_progress_is_a_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with clock_bar("bench") as tell:
        for spent in (0.0, 4.9, 5.0, 12.3):
            tell(f"round {spent:.0f}", spent, 40.0)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"bench: {spent} of about 40 s: round {spent}" for spent in (0, 5, 12)]


# -- clips


def test_the_clip_goes_to_its_end_and_back(clip: LoopedClip) -> None:
    assert [clip.frame(step).seq for step in range(20)] == [*range(10), *range(8, -1, -1), 1]
    one = replace(clip, frames=clip.frames[:1])
    assert {one.frame(step).seq for step in range(5)} == {0}


def test_what_is_followed(clip: LoopedClip, tmp_path: Path) -> None:
    assert f"seed={HELD_OUT_SEED + 10}" in SYNTHETIC and clip.knows_truth
    truth_hw = clip.frames[0].truth_hw
    assert truth_hw is not None
    for i, tool in ((1, 1), (2, 2), (3, 1), (4, 2)):
        prompt = clip.prompt(i)
        assert prompt.id == i and prompt.mask is not None and np.array_equal(prompt.mask, truth_hw == tool)
    said = tmp_path / "p.json"
    said.write_text('[{"frame": 0, "id": 7, "box": [10, 10, 50, 60]}]')
    given = load_clip(TINY, said)
    assert given.prompt(1).box == (10, 10, 50, 60) and not given.knows_truth and given.click(1, 3) == (30, 35, 1)
    said.write_text('[{"frame": 2, "id": 7, "box": [10, 10, 50, 60]}]')
    with pytest.raises(ConfigError, match="no prompt on frame 0, with which"):
        load_clip(TINY, said)
    said.write_text('[{"frame": 0, "id": 7, "box": [10, 10, 500, 60]}]')
    with pytest.raises(PromptError, match="inside the 160x120 frame"):
        load_clip(TINY, said)


def test_a_folder_of_pictures_has_a_box_and_no_truth(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((40, 80, 3), np.uint8))
    clip = load_clip(str(tmp_path))
    assert clip.prompt(1).box == (20, 10, 60, 30) and not clip.knows_truth
    assert accuracy(Sleeper(0, 0), clip) == (None, 0)


def test_accuracy_is_the_mean_iou_after_the_prompted_frame(clip: LoopedClip) -> None:
    engine = Sleeper(0, 0)  # its masks are the whole picture
    shares = [np.mean(f.truth_hw == i) for f in clip.frames[1:] for i in (1, 2) if f.truth_hw is not None]
    assert accuracy(engine, clip) == (pytest.approx(float(np.mean(shares)), abs=1e-4), 9)
    assert accuracy(Sleeper(700, 0), clip, Budget(2.5, clock=time).until(1))[1] == 3

    class Blind(Sleeper):
        def decode(self, conditioned_bchw: Tensor, features: Features, prompts: PromptBatch) -> Decoded:
            seen = super().decode(conditioned_bchw, features, prompts)
            return replace(seen, logits_b1hw=-seen.logits_b1hw)

    assert accuracy(Blind(0, 0), clip)[0] == 0
    dark = [replace(f, truth_hw=np.zeros_like(f.truth_hw)) for f in clip.frames[1:]]
    assert accuracy(Blind(0, 0), replace(clip, frames=(clip.frames[0], *dark)))[0] == 1


# -- what is measured


@pytest.fixture
def recipes(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a.toml", tmp_path / "b.toml"]
    paths[0].write_text("image_size = 128\nmax_objects = 3\n")
    paths[1].write_text('image_size = 64\nmemory = { policy = "fifo" }\n')
    return paths


def test_variants_are_measured_once(recipes: list[Path]) -> None:
    """And only one thing differs between those that are compared."""
    cases, comparisons = benchmark_cases(recipes, ["policy"])
    assert [q.names for q in comparisons] == [
        ("a", "b"),
        ("a policy=fifo", "a policy=efp-window", "a"),
        ("b", "b policy=efp-window", "b policy=efp"),
    ]
    made = {case.name: case.recipe for case in cases}
    assert len(made) == len(cases) == 6
    assert made["a policy=fifo"] == load_recipe(recipes[0], policy="fifo") != made["a"]
    halved, (comparison,) = benchmark_cases(recipes[:1], ["image_size"])
    assert [case.recipe.image_size for case in halved] == [128, 64] and comparison.names == ("a", "a image_size=64")
    assert len(benchmark_cases([recipes[0]] * 2, [])[0]) == 1
    with pytest.raises(ConfigError, match="image_size"):
        benchmark_cases(recipes, ["image_size"])  # b's 64 has no half


def test_objects_are_those_that_every_recipe_allows(recipes: list[Path]) -> None:
    cases, _ = benchmark_cases(recipes, [])
    assert choose_objects(None, cases) == (1, 2) and choose_objects((3, 1, 3), cases) == (1, 3)
    with pytest.raises(ConfigError, match=r"--objects 4: .*a.toml says max_objects = 3"):
        choose_objects((1, 4), cases)


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Engines that sleep, by recipe's name; what is not named cannot be opened."""
    e_ms: dict[str, Any] = {"a": 2, "b": 8}

    def open_(recipe: Recipe) -> Sleeper:
        name = recipe.path.stem if recipe.path else ""
        if name not in e_ms:
            raise EngineError(f"{name}: no such thing here")
        plain = replace(recipe, memory=MemorySettings(recipe.memory.policy, 5, 2))
        return Sleeper(e_ms[name], 1, plain)

    start = {
        "import_ms": 1.0, "open_ms": 2.0, "first_frame_ms": 3.0, "first_tracked_ms": 4.0, "first_mask_ms": 6.0,
        "tracked": 30, "cuda_mib": None,
        "resident_mib": {"before": 1.0, "steady": 2.0, "peak": 3.0},
    }  # fmt: skip
    monkeypatch.setattr(benchmark, "cold_start", lambda recipe, clip, most_ms: start)
    monkeypatch.setattr(benchmark, "open_engine", open_)
    return e_ms


def test_the_document(
    recipes: list[Path], asleep: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[tuple[str, float, float]] = []
    out = tmp_path / "out"
    document = benchmark.bench(
        recipes, clip=TINY, objects=(1, 2), frames=12, rounds=6, compare=["policy"], out=out,
        progress=lambda *words: heard.append(words),
    )  # fmt: skip
    assert document["ok"] and document["skipped"] == [] and document["took_s"] < 140
    said = [words[0] for words in heard]
    assert said[0] == "reading the clip" and "opening a" in said and "warming up b, objects: 2" in said
    assert all(0 <= spent <= total <= 140 for _, spent, total in heard)
    a = document["engines"][0]
    row = a["by_objects"][1]
    assert row["objects"] == 2 and row["end_to_end_ms"]["count"] == 12 and np.shape(row["samples_ms"]) == (6, 2)
    samples = [ms for block in row["samples_ms"] for ms in block]
    assert row["end_to_end_ms"] == pytest.approx(summary(samples), abs=1e-3)
    assert set(row["stages_ms"]) == set(STAGES) and row["click_ms"]["min"] >= 4 and row["first_frame_ms"]["min"] >= 2
    assert row["fps"] == pytest.approx(1e3 / row["end_to_end_ms"]["mean"], abs=0.01)
    pairs = {(x["baseline"], x["name"], x["objects"]): x["median"] for x in document["speedups"]}
    assert len(pairs) == 10 and pairs["a", "b", 1] == pytest.approx(1 / 3, abs=1e-3)
    assert pairs["a policy=fifo", "a", 1] == 1
    assert "a, 1 object: 12 frames of the 12 asked for; so few give no p95 or p99" in document["warnings"]
    saved = json.loads((out / "bench.json").read_text())
    assert saved == json.loads(json.dumps(document)) and saved["machine"]["cores"] >= 1
    show(document)
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("encode_image", "b policy=efp-window", "M/E", "a process of its own"))


def test_variants_on_another_kind_of_engine_are_not_compared(
    recipes: list[Path], asleep: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where only the recipe itself has its kernels; what is said in brackets makes no kind."""
    plain = benchmark.open_engine

    def open_(recipe: Recipe) -> Any:
        engine = plain(recipe)
        kernels = recipe.memory.policy != "efp-window"
        engine.description = "kernels (proved at 64 px)" if kernels else "torch (not proved here: not built yet)"
        return engine

    monkeypatch.setattr(benchmark, "open_engine", open_)
    words: dict[str, Any] = {"clip": TINY, "objects": (1,), "frames": 2, "rounds": 1}
    document = benchmark.bench(recipes[:1], compare=["policy"], **words)
    assert [(row["baseline"], row["name"]) for row in document["speedups"]] == [("a policy=fifo", "a")]
    assert document["skipped"] == [
        {
            "name": "a policy=efp-window beside a policy=fifo",
            "reason": "not the same kind of engine: torch; kernels",
        }
    ]


def test_time_that_is_up_is_said_and_every_engine_has_its_row(recipes: list[Path], asleep: dict[str, Any]) -> None:
    """One takes two minutes a frame, which is more than there is."""
    asleep["b"] = 120_000
    document = benchmark.bench(recipes, clip=TINY, seconds=30)
    fast, slow = document["engines"]
    assert slow["name"] == "b" and [row["objects"] for row in slow["by_objects"]] == [1]
    assert slow["by_objects"][0]["end_to_end_ms"]["count"] == 1
    assert slow["iou"] is None and slow["by_objects"][0]["jitter_ms"] is None
    doubted = "\n".join(document["warnings"])
    assert "b, 1 object: 1 frames of the 200 asked for; so few give no p50" in doubted
    assert (
        "its memory was not full after 3 frames" in doubted
        and "b: no time was left for 2 objects, the stages of 1 object" in doubted
    )
    assert "1 of 1 ratios are known less well than to 3%; widest: b beside a, 1 object: 1 rounds" in doubted
    show(document)
    assert fast["by_objects"][0]["end_to_end_ms"]["count"] >= 1


def test_a_recipe_on_every_runtime(recipes: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from rtseg.engine import runtimes
    from rtseg.engine.cpu import isa

    def isa_for(precision: str) -> str:
        """int8 gains nothing from "y"."""
        if precision == "bf16":
            raise EngineError("wants z")
        return "x" if precision == "int8" else os.environ[cases_module.ISA]

    precisions = {"torch": ("fp32", "fp16"), "cpu": ("fp32", "bf16", "int8"), "onnx": ("fp32",)}
    monkeypatch.setattr(runtimes, "PRECISIONS", precisions)
    monkeypatch.setattr(cases_module, "RUNTIMES", ("torch", "cpu", "auto", "onnx:cuda"))
    monkeypatch.setattr(isa, "available_isas", lambda: ["x", "y"])
    monkeypatch.setattr(isa, "isa_for", isa_for)
    monkeypatch.delenv(cases_module.ISA, raising=False)
    cases, (comparison,) = benchmark_cases(recipes[:1], runtimes=["all"])
    names = ["a torch fp32", "a torch fp16", "a cpu fp32 x", "a cpu fp32 y", "a cpu bf16", "a cpu int8 x",
             "a onnx:cuda fp32"]  # fmt: skip
    assert [case.name for case in cases] == list(comparison.names) == names and not comparison.alike
    assert choose_objects(None, cases, few=True) == (1,)
    if not torch.cuda.is_available():
        assert "on GPUs only" in cases[1].unable and not cases[0].unable
    with cases[2].restricted():
        assert os.environ[cases_module.ISA] == "x"
    assert cases_module.ISA not in os.environ
    monkeypatch.setenv(cases_module.ISA, "y")
    with cases[0].restricted():
        assert os.environ[cases_module.ISA] == "y"
    assert [case.name for case in benchmark_cases(recipes[:1], runtimes=["cpu"])[0]] == names[2:6]
    with pytest.raises(
        ConfigError, match="--runtimes abacus: no such runtime; expected all, or some of: torch, cpu, onnx:cuda"
    ):
        benchmark_cases(recipes, runtimes=["abacus", "cpu"])


def test_runtimes_that_cannot_run_here_are_named_with_the_reason(
    recipes: list[Path], monkeypatch: pytest.MonkeyPatch, asleep: dict[str, Any]
) -> None:
    plain, seen = benchmark.open_engine, list[str | None]()

    def open_(recipe: Recipe) -> Any:
        seen.append(os.environ.get(cases_module.ISA))
        if recipe.runtime == "tensorrt":
            raise EngineError("sees no CUDA device")
        return plain(recipe)

    made = [
        cases_module.BenchmarkCase(f"a {name}", load_recipe(recipes[0], runtime=name), isa)
        for name, isa in (("torch", ""), ("cpu", "avx2"), ("tensorrt", ""))
    ]
    monkeypatch.setattr(cases_module, "on_runtimes", lambda name, recipe, wanted: iter(made))
    monkeypatch.setattr(benchmark, "open_engine", open_)
    monkeypatch.delenv(cases_module.ISA, raising=False)
    document = benchmark.bench(recipes[:1], clip=TINY, frames=2, rounds=1, seconds=5, runtimes=["all"])
    assert document["ok"] and seen == [None, "avx2", None]
    assert document["skipped"] == [{"name": "a tensorrt", "reason": "sees no CUDA device"}]
    (row,) = document["speedups"]
    assert (row["baseline"], row["name"], row["objects"], row["median"]) == ("a torch", "a cpu", 1, 1)
    assert document["engines"][1]["isa"] == "avx2"


def test_hashes_tell_recipes_and_not_places_apart(recipes: list[Path], asleep: dict[str, Any]) -> None:
    found = [benchmark.bench([path], clip=TINY, objects=(1,), frames=1, rounds=1) for path in recipes]
    hashes = [document["engines"][0]["recipe_sha256"] for document in found]
    assert hashes[0] != hashes[1]
    recipes[1].write_text(recipes[0].read_text() + 'weights = "elsewhere.safetensors"\n')
    asleep["b"] = asleep["a"]
    again = benchmark.bench([recipes[1]], clip=TINY, objects=(1,), frames=1, rounds=1)
    assert again["engines"][0]["recipe_sha256"] == hashes[0]


def test_what_cannot_be_opened_is_skipped_and_named(
    recipes: list[Path], asleep: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del asleep["b"]
    words = ["bench", *map(str, recipes), "--clip", TINY, "--objects", "1", "--frames", "2", "--rounds", "1"]
    assert main([*words, "--json"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out.splitlines()[-1])
    assert [engine["name"] for engine in document["engines"]] == ["a"]
    assert document["skipped"] == [{"name": "b", "reason": "b: no such thing here"}] and document["speedups"] == []
    assert "skipped b: b: no such thing here" in printed.err
    asleep.clear()
    assert main(words) == 1
    assert "skipped a: a: no such thing here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["no.toml"], "no.toml: cannot be read"),
        (["{a}", "--objects", "9"], "max_objects = 3"),
        (["{a}", "--objects", "0"], "expected a whole number from 1"),
        (["{a}", "--objects", "1,x"], "argument --objects: 'x'; expected a whole number from 1"),
        (["{a}", "--frames", "0"], "expected a whole number from 1"),
        (["{a}", "--clip", "no.mp4"], "no such file"),
        (["{a}", "--clip", "{a}"], "not a readable video"),
        (["{a}", "--clip", "synthetic:laparoscopy?width=4"], "width"),
        (["{a}", "--prompts", "no.json"], "no.json: cannot be read"),
        (["{a}", "--compare", "colour"], "invalid choice"),
        (["{a}", "--out", "{a}"], "cannot be written"),
    ],
)
def test_a_users_mistake_is_one_line_with_code_2(
    recipes: list[Path], words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *(word.format(a=recipes[0]) for word in words)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and expected in printed.err.splitlines()[-1]


def test_the_machines_other_work_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([(0, 0, 0), (600, 100, 1000)])
    monkeypatch.setattr(load, "_cpu_seconds", lambda: next(seconds))
    monkeypatch.setattr(load, "_own_seconds", lambda: 0.0)
    monkeypatch.setattr(load, "_load_average", lambda: 50.0)
    busy, warnings = load.Load().report()
    assert busy == {"average_at_start": 50.0, "average_at_end": 50.0, "others": 0.6, "stolen": 0.1}
    assert len(warnings) == 3 and "60%" in warnings[1] and "10%" in warnings[2]
    seconds = iter([(0, 0, 0), (500, 0, 1000)])
    own = iter([0.0, 500.0])
    monkeypatch.setattr(load, "_own_seconds", lambda: next(own))
    monkeypatch.setattr(load, "_load_average", lambda: 0.0)
    assert load.Load().report()[1] == []


def test_uneven_blocks_are_pointed_out(recipes: list[Path], clip: LoopedClip) -> None:
    run = TimedRun(Sleeper(0, 0), clip, 1)
    run.blocks = [Block([10.0, 11.0] * 25, 530.0), Block([11.0, 12.0] * 25, 580.0)]
    run.full = run.steady = True
    found = BenchmarkedEngine(benchmark_cases(recipes[:1], [])[0][0], run.engine, [run], {})
    assert cautions([found], 100) == []
    run.blocks, run.steady = [*run.blocks, Block([16.0, 15.0, 17.0], 48.0)], False
    (doubt,) = cautions([found], 100)
    assert "medians of its blocks lie 52% apart" in doubt and "not settled" in doubt
    ratio = {"name": "b", "baseline": "a", "objects": 1, "rounds": 6, "low": 0.9, "high": 1.3}
    assert "1 of 2 ratios" in cautions([], 100, [ratio, {**ratio, "low": 1.0, "high": 1.05}])[0]


# -- processes and pictures


def test_a_process_that_dies_is_an_engine_that_cannot_be_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clip: LoopedClip
) -> None:
    with pytest.raises(EngineError, match=r"absent.pt: no such file"):
        cold.cold_start(Recipe(weights=str(tmp_path / "absent.pt"), image_size=64), clip)
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\necho out of memory >&2\nexit 3\n")
    dying.chmod(0o755)
    monkeypatch.setattr(cold.sys, "executable", str(dying))
    with pytest.raises(EngineError, match="ended with code 3: out of memory"):
        cold.cold_start(Recipe(image_size=64), clip)


@pytest.mark.slow
def test_the_peak_is_the_processes_own(clip: LoopedClip) -> None:
    """And not that of the process which started it, here larger by far."""
    ballast = np.ones(400 * 2**20, np.uint8)
    start = cold.cold_start(Recipe(image_size=64, runtime="torch", precision="fp32"), clip, 0)
    assert start["tracked"] == 3
    parts = ("import_ms", "open_ms", "first_frame_ms")
    assert start["first_mask_ms"] == pytest.approx(sum(start[part] for part in parts), abs=1)
    assert start["resident_mib"]["peak"] < memory.peak_resident_bytes() / 2**20 - 100 and ballast.any()


BARE = """
import sys
for name in ("torch", "av", "zmq", "msgpack", "pycocotools", "matplotlib", "transformers", "openvino"):
    sys.modules[name] = None
"""
BENCH = "from rtseg.cli import main\nsys.exit(main(sys.argv[1:]))"
FILM = "from rtseg.evaluate.speed.looped_clip import load_clip\nload_clip(sys.argv[1])"


@pytest.mark.slow
def test_a_machine_without_torch_av_zmq_and_matplotlib(tmp_path: Path) -> None:
    """A real engine, all the way; only the plots are missing, and a video file cannot be read."""
    pytest.importorskip("onnxruntime")
    (tmp_path / "little.toml").write_text(
        'model = "micro"\nweights = "package:micro"\nimage_size = 224\nruntime = "onnx"\n'
    )
    (tmp_path / "clip.mp4").write_bytes(b"x")
    words = ["bench", "little.toml", "--objects", "1", "--frames", "4", "--rounds", "2", "--out", "out"]
    words += ["--seconds", "15", "--runtimes", "torch,cpu,onnx", "--json"]

    def bare(code: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", BARE + code, *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = bare(BENCH, *words, "--clip", TINY)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert plots.ABSENT in document["warnings"] and [p.name for p in (tmp_path / "out").iterdir()] == ["bench.json"]
    (engine,) = document["engines"]
    assert len(document["skipped"]) >= 6 and all("needs torch" in skipped["reason"] for skipped in document["skipped"])
    assert 0.05 < engine["iou"] < 1 and engine["weights_sha256"] and engine["fit"] is None
    planned = engine["memory_plan"]
    assert planned["where"] == "host" and abs(sum(planned["parts"].values()) - planned["mib"]) < len(planned["parts"])
    memory = engine["cold"]["resident_mib"]
    assert abs(planned["mib"] / memory["peak"] - 1) < 0.25
    assert memory["peak"] >= memory["steady"] > memory["before"] > 20
    assert engine["cold"]["open_ms"] > 0 and engine["cold"]["first_frame_ms"] > 0
    assert "bench: 0 of about 15 s: importing" in done.stderr.splitlines()[0]
    film = bare(FILM, "clip.mp4")
    assert film.returncode == 1 and "SourceError: clip.mp4: a video file needs PyAV" in film.stderr.splitlines()[-1]


@pytest.mark.skipif(not importlib.util.find_spec("matplotlib"), reason="matplotlib is not installed: rtseg[bench]")
def test_plots_are_drawn(recipes: list[Path], asleep: dict[str, Any], tmp_path: Path) -> None:
    import cv2

    document = benchmark.bench(recipes, clip=TINY, objects=(1, 2), frames=4, rounds=2, out=tmp_path / "out")
    names = ["latency.png", "objects.png", "accuracy.png"]
    assert [Path(path).name for path in document["saved"]] == [*names, "bench.json"]
    for name in names:
        picture = cv2.imread(str(tmp_path / "out" / name))
        assert picture is not None and picture.shape[1] > 1000 and picture.std() > 5
    untrue = Document(document, engines=[{**engine, "iou": None} for engine in document["engines"]])
    untrue["settings"] = {**document["settings"], "objects": [1]}
    assert [path.name for path in plots.draw(untrue, tmp_path)[0]] == ["latency.png"]


def test_names_of_percentiles_keep_apart() -> None:
    """However close p50 and p99 are, and wherever they lie."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: rtseg[bench]")
    figure = plots._figure(7, 2)
    axes = figure.subplots()
    plots._percentiles(axes, {"p50": 10.0, "p99": 10.1, "max": 10.2}, 8)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 2 and not boxes[0].overlaps(boxes[1])


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    assert "example: rtseg bench" in capsys.readouterr().out


def test_the_gpu_that_is_waited_for_is_the_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of an engine on the CPU none, whatever else in the process uses one."""
    waited: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for device in ("cuda:1", "cpu", "auto"):
        synchronise(device)
    assert waited == ["cuda:1"]
    clock = StageClock("cuda:1")
    clock.next_frame()
    with clock.time("attend"):
        pass
    assert waited == ["cuda:1"] * 3
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {"cuda:1": (2**20, 3 * 2**20)}[device])
    for name in ("max_memory_allocated", "memory_reserved"):
        monkeypatch.setattr(torch.cuda, name, lambda device: {"cuda:1": 2**20}[device])
    assert _cuda_mib("cuda:1") == {"peak": 1.0, "reserved": 1.0, "device": 2.0} and _cuda_mib("cpu") is None


def test_facts_are_of_the_gpu_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = {name: SimpleNamespace(name=name, major=9, minor=0, total_memory=2**30) for name in ("cuda", "cuda:1")}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: cards[device])
    assert [facts.facts(device)["gpu"]["name"] for device in ("cuda:1", "cpu")] == ["cuda:1", "cuda"]
