"""From what was measured to the figures of the document: an engine's, ratios, and what there is to doubt."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from itertools import zip_longest
from typing import Any

import numpy as np

from ...engine import Engine
from ...track import Tracker
from .budget import Deadline
from .clip import Clip
from .lane import Lane, StagedLane
from .plan import Entry, Question
from .statistics import fit_blocks, jitter, medians, speedup, spread, summary, thin
from .turns import TIGHT

CLICKS, STARTS = 4, 3  # how often a prompt and a first frame are timed
UNEVEN = 1.25  # medians of an engine's blocks that differ by more are worth a warning


@dataclass(slots=True, eq=False)
class Candidate:
    """An engine that could be opened, with what was measured of it."""

    entry: Entry
    engine: Engine
    lanes: list[Lane]
    cold: dict[str, Any] | None = None
    missed: list[str] = field(default_factory=list)  # what no time was left for
    staged: list[StagedLane] = field(default_factory=list)
    needs: dict[str, Any] | None = None  # memory as it was foreseen


def of_candidate(candidate: Candidate, clip: Clip, deadline: Deadline) -> dict[str, Any]:
    """An engine's figures; what is still to be measured ends when time is up."""
    engine, lanes = candidate.engine, candidate.lanes
    recipe = {k: v for k, v in asdict(engine.recipe).items() if k != "path"}
    # The weights have a hash of their own; where they lie makes no difference.
    identity = json.dumps({k: v for k, v in recipe.items() if k != "weights"}, sort_keys=True)
    rows = [
        _of_lane(lane, staged, deadline.share(2 * (len(lanes) - i)))
        for i, (lane, staged) in enumerate(zip_longest(lanes, candidate.staged))
    ]
    iou, frames = (None, 0) if deadline.over else accuracy(engine, clip, deadline)
    candidate.missed += ["its IoU"] * (clip.knows_truth and iou is None)
    candidate.missed += ["a click"] * any(row["click_ms"] is None for row in rows)
    return {
        "name": candidate.entry.name,
        "engine": engine.description,
        "isa": candidate.entry.isa or None,
        "recipe": recipe,
        "recipe_sha256": sha256(identity.encode()).hexdigest(),
        "weights_sha256": engine.weights_hash,
        "iou": iou,
        "iou_frames": frames,
        "memory_plan": candidate.needs,
        "cold": candidate.cold,
        "fit": fit_blocks([lane.objects for lane in lanes], [lane.blocks_ms for lane in lanes]),
        "by_objects": rows,
    }


def _of_lane(lane: Lane, staged: StagedLane | None, deadline: Deadline) -> dict[str, Any]:
    samples = [ms for block in lane.blocks_ms for ms in block]
    clicks, starts = list[float](), [lane.first_ms]
    while len(clicks) < CLICKS and not deadline.share(2).over:
        clicks.append(lane.click())
    while len(starts) < STARTS and not deadline.over:
        starts.append(lane.first_frame())
    return {
        "objects": lane.objects,
        "end_to_end_ms": summary(samples),
        "fps": round(1e3 * len(samples) / sum(block.wall_ms for block in lane.blocks), 2),
        "jitter_ms": jitter(lane.blocks_ms),
        "block_medians_ms": spread(medians(lane.blocks_ms)),
        "stages_ms": staged and {stage: summary(ms) for stage, ms in staged.stages_ms().items()},
        "click_ms": spread(clicks) if clicks else None,
        "first_frame_ms": spread(starts),
        "warm_up": {"frames": lane.warm_up_frames, "full": lane.full, "steady": lane.steady},
        "samples_ms": [[round(ms, 4) for ms in block] for block in lane.blocks_ms],
    }


def accuracy(engine: Engine, clip: Clip, deadline: Deadline | None = None) -> tuple[float | None, int]:
    """Mean IoU over objects and frames after the prompted one, all objects together, and how many frames these are.

    None without a truth. A frame on which mask and truth are both empty counts as 1. The clip is followed until time
    is up, one frame at least.
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


def pairs_of(found: Sequence[Candidate], questions: Sequence[Question]) -> list[tuple[Question, Candidate, Candidate]]:
    """Each question's pairs of engines, of those that could be opened."""
    by_name = {c.entry.name: c for c in found}
    present = [(question, [by_name[name] for name in question.names if name in by_name]) for question in questions]
    return [(question, engines[0], other) for question, engines in present for other in engines[1:]]


def comparable(question: Question, a: Candidate, b: Candidate) -> bool:
    """Whether a ratio of the two answers the question.

    Variants of one recipe that run on engines of two kinds (built kernels beside torch, say) are not compared: the
    gain would not be that of the policy or the image size.
    """
    return not question.alike or _kind(a.engine) == _kind(b.engine)


def speedups(
    found: Sequence[Candidate], questions: Sequence[Question]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Each question's answers for each number of objects; and what has none, and why."""
    rows, unlike = [], []
    for question, base, other in pairs_of(found, questions):
        if not comparable(question, base, other):
            pair_name = f"{other.entry.name} beside {base.entry.name}"
            kinds = f"{_kind(other.engine)}; {_kind(base.engine)}"
            unlike.append({"name": pair_name, "reason": f"not the same kind of engine: {kinds}"})
            continue
        for a, b in zip(base.lanes, other.lanes, strict=False):
            pair = {"baseline": base.entry.name, "name": other.entry.name, "objects": a.objects}
            rows.append({"about": question.about, **pair, **speedup(a.blocks_ms, b.blocks_ms)})
    return rows, unlike


def _kind(engine: Engine) -> str:
    """What an engine runs on, without what there is to say of it in brackets."""
    return engine.description.partition(" (")[0]


def doubts(found: Sequence[Candidate], frames: int, answers: Sequence[dict[str, Any]] = ()) -> list[str]:
    """What a reader should know before believing a figure."""
    said: list[str] = []
    for candidate in found:
        for lane in candidate.lanes:
            if found_out := _of_times(lane, frames):
                said.append(f"{candidate.entry.name}, {many(lane.objects)}: {'; '.join(found_out)}")
        if candidate.missed:
            said.append(f"{candidate.entry.name}: no time was left for {', '.join(candidate.missed)}")
    loose = [row for row in answers if row["high"] is None or math.log(row["high"] / row["low"]) > 2 * TIGHT]
    if loose:
        row = max(loose, key=lambda row: math.inf if row["high"] is None else row["high"] / row["low"])
        known = f"{row['rounds']} rounds" if row["high"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
        widest = f"{row['name']} beside {row['baseline']}, {many(row['objects'])}: {known}"
        said.append(f"{len(loose)} of {len(answers)} ratios are known less well than to {TIGHT:.0%}; widest: {widest}")
    return said


def many(number: int) -> str:
    return f"{number} object{'s' * (number > 1)}"


def _of_times(lane: Lane, frames: int) -> list[str]:
    count, said = sum(map(len, lane.blocks_ms)), []
    if count < frames or thin(count):
        much = f"; so few give no {' or '.join(thin(count))}" if thin(count) else ""
        said.append(f"{count} frames of the {frames} asked for{much}")
    if not lane.full:
        said.append(f"its memory was not full after {lane.warm_up_frames} frames of warm-up: no time was left")
    elif not lane.steady:
        said.append(f"its times had not settled after {lane.warm_up_frames} frames of warm-up")
    ends = medians(lane.blocks_ms)
    if max(ends) > UNEVEN * min(ends):
        said.append(f"medians of its blocks lie {max(ends) / min(ends) - 1:.0%} apart")
    return said
