"""The figures of a benchmark's document: of each engine, the ratios between engines, and the warnings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import zip_longest
from typing import Any

import numpy as np

from ...engine import Engine
from ...track import Tracker
from .alternation import TIGHT
from .budget import Deadline
from .cases import BenchmarkCase, Comparison
from .looped_clip import LoopedClip
from .statistics import fit_blocks, jitter, medians, speedup, spread, summary, thin
from .timed_run import StagedRun, TimedRun

CLICKS, STARTS = 4, 3  # how often a prompt and a first frame are timed
UNEVEN = 1.25  # a larger ratio between the medians of an engine's blocks is worth a warning


@dataclass(slots=True, eq=False)
class BenchmarkedEngine:
    """An engine that could be opened, and its measurements. `missed` lists those for which no time was left."""

    case: BenchmarkCase
    engine: Engine
    runs: list[TimedRun]
    cold: dict[str, Any] | None = None
    missed: list[str] = field(default_factory=list)
    staged: list[StagedRun] = field(default_factory=list)
    needs: dict[str, Any] | None = None  # the memory estimate


def engine_figures(subject: BenchmarkedEngine, clip: LoopedClip, deadline: Deadline) -> dict[str, Any]:
    """The figures of an engine. Clicks, first frames and accuracy are measured here, until time is up."""
    engine, runs = subject.engine, subject.runs
    recipe = {k: v for k, v in asdict(engine.recipe).items() if k != "path"}
    # The weights have their own hash; their path makes no difference.
    identity = json.dumps({k: v for k, v in recipe.items() if k != "weights"}, sort_keys=True)
    rows = [
        _run_figures(run, staged, deadline.share(2 * (len(runs) - i)))
        for i, (run, staged) in enumerate(zip_longest(runs, subject.staged))
    ]
    iou, frames = (None, 0) if deadline.over else accuracy(engine, clip, deadline)
    subject.missed += ["its IoU"] * (clip.knows_truth and iou is None)
    subject.missed += ["a click"] * any(row["click_ms"] is None for row in rows)
    return {
        "name": subject.case.name,
        "engine": engine.description,
        "isa": subject.case.isa or None,
        "recipe": recipe,
        "recipe_sha256": sha256(identity.encode()).hexdigest(),
        "weights_sha256": engine.weights_hash,
        "iou": iou,
        "iou_frames": frames,
        "memory_plan": subject.needs,
        "cold": subject.cold,
        "fit": fit_blocks([run.objects for run in runs], [run.blocks_ms for run in runs]),
        "by_objects": rows,
    }


def _run_figures(run: TimedRun, staged: StagedRun | None, deadline: Deadline) -> dict[str, Any]:
    samples = [ms for block in run.blocks_ms for ms in block]
    clicks, starts = list[float](), [run.first_ms]
    while len(clicks) < CLICKS and not deadline.share(2).over:
        clicks.append(run.click())
    while len(starts) < STARTS and not deadline.over:
        starts.append(run.first_frame())
    return {
        "objects": run.objects,
        "end_to_end_ms": summary(samples),
        "fps": round(1e3 * len(samples) / sum(block.wall_ms for block in run.blocks), 2),
        "jitter_ms": jitter(run.blocks_ms),
        "block_medians_ms": spread(medians(run.blocks_ms)),
        "stages_ms": staged and {stage: summary(ms) for stage, ms in staged.stages_ms().items()},
        "click_ms": spread(clicks) if clicks else None,
        "first_frame_ms": spread(starts),
        "warm_up": {"frames": run.warm_up_frames, "full": run.full, "steady": run.steady},
        "samples_ms": [[round(ms, 4) for ms in block] for block in run.blocks_ms],
    }


def accuracy(engine: Engine, clip: LoopedClip, deadline: Deadline | None = None) -> tuple[float | None, int]:
    """The mean IoU over all objects and all frames after the prompted one, and the number of these frames.

    The IoU is None without a truth, and 1 on a frame on which mask and truth are both empty. It ends when time is up,
    after at least one frame.
    """
    if not clip.knows_truth or len(clip.frames) < 2:
        return None, 0
    tracker, followed = Tracker(engine), clip.prompts[: engine.recipe.max_objects]
    for prompt in followed:
        tracker.give(prompt)
    tracker.step(clip.frames[0])
    ious: list[float] = []
    for frame in clip.frames[1:]:
        if ious and deadline is not None and deadline.over:
            break
        masks = tracker.step(frame)
        for prompt in followed:
            mask_hw, true_hw = masks.mask(prompt.id), frame.truth_hw == prompt.id
            either = np.count_nonzero(mask_hw | true_hw)
            ious.append(np.count_nonzero(mask_hw & true_hw) / either if either else 1.0)
    return round(float(np.mean(ious)), 4), len(ious) // len(followed)


def engine_pairs(
    found: Sequence[BenchmarkedEngine], comparisons: Sequence[Comparison]
) -> Iterator[tuple[Comparison, BenchmarkedEngine, BenchmarkedEngine]]:
    """Each comparison's pairs (baseline, other) of the engines that could be opened."""
    by_name = {subject.case.name: subject for subject in found}
    for comparison in comparisons:
        opened = [by_name[name] for name in comparison.names if name in by_name]
        yield from ((comparison, opened[0], other) for other in opened[1:])


def comparable(comparison: Comparison, a: BenchmarkedEngine, b: BenchmarkedEngine) -> bool:
    """Whether the ratio of two engines shows what the comparison is about.

    Variants of one recipe are not compared if they run on different kinds of engine (on kernels and in torch, for
    example): then the ratio is not due to the policy or the image size.
    """
    return not comparison.alike or _kind(a.engine) == _kind(b.engine)


def speedups(
    found: Sequence[BenchmarkedEngine], comparisons: Sequence[Comparison]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The ratios of each comparison for each number of objects; and the pairs without a ratio, with the reason."""
    rows, unlike = [], []
    for comparison, base, other in engine_pairs(found, comparisons):
        if not comparable(comparison, base, other):
            pair_name = f"{other.case.name} beside {base.case.name}"
            kinds = f"{_kind(other.engine)}; {_kind(base.engine)}"
            unlike.append({"name": pair_name, "reason": f"not the same kind of engine: {kinds}"})
            continue
        for a, b in zip(base.runs, other.runs, strict=False):
            pair = {"baseline": base.case.name, "name": other.case.name, "objects": a.objects}
            rows.append({"about": comparison.about, **pair, **speedup(a.blocks_ms, b.blocks_ms)})
    return rows, unlike


def _kind(engine: Engine) -> str:
    """The kind of an engine: its description without the part in brackets."""
    return engine.description.partition(" (")[0]


def cautions(found: Sequence[BenchmarkedEngine], frames: int, answers: Sequence[dict[str, Any]] = ()) -> list[str]:
    """Warnings: what a reader has to know before trusting a figure."""
    lines: list[str] = []
    for subject in found:
        for run in subject.runs:
            if notes := _time_cautions(run, frames):
                lines.append(f"{subject.case.name}, {many(run.objects)}: {'; '.join(notes)}")
        if subject.missed:
            lines.append(f"{subject.case.name}: no time was left for {', '.join(subject.missed)}")
    loose = [row for row in answers if row["high"] is None or math.log(row["high"] / row["low"]) > 2 * TIGHT]
    if loose:
        row = max(loose, key=lambda row: math.inf if row["high"] is None else row["high"] / row["low"])
        known = f"{row['rounds']} rounds" if row["high"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
        widest = f"{row['name']} beside {row['baseline']}, {many(row['objects'])}: {known}"
        lines.append(f"{len(loose)} of {len(answers)} ratios are known less well than to {TIGHT:.0%}; widest: {widest}")
    return lines


def many(number: int) -> str:
    return f"{number} object{'s' * (number > 1)}"


def _time_cautions(run: TimedRun, frames: int) -> list[str]:
    """The warnings about the times of a run."""
    count, notes = sum(map(len, run.blocks_ms)), list[str]()
    if count < frames or thin(count):
        much = f"; so few give no {' or '.join(thin(count))}" if thin(count) else ""
        notes.append(f"{count} frames of the {frames} asked for{much}")
    if not run.full:
        notes.append(f"its memory was not full after {run.warm_up_frames} frames of warm-up: no time was left")
    elif not run.steady:
        notes.append(f"its times had not settled after {run.warm_up_frames} frames of warm-up")
    ends = medians(run.blocks_ms)
    if max(ends) > UNEVEN * min(ends):
        notes.append(f"medians of its blocks lie {max(ends) / min(ends) - 1:.0%} apart")
    return notes
