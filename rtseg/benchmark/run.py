"""`rtseg bench`: which engines, in which order, and the document that comes of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from ..doctor import versions
from ..engine import Engine, open_engine
from ..errors import ConfigError, EngineError, WeightsError
from ..machine import Load, commit, facts
from ..publish.atomic import atomic_path, unwritable
from ..track import Tracker
from .clip import Clip, load_clip
from .cold import cold_start
from .lane import Lane, StagedLane, alternate
from .plan import Entry, Question, choose_objects, plan
from .statistics import fit_blocks, jitter, speedup, spread, summary
from .tables import Document

CLICKS, STARTS = 4, 3  # how often a prompt and a first frame are timed
UNEVEN = 1.25  # medians of an engine's blocks that differ by more are worth a warning
Progress = Callable[[int, int | None], None]


@dataclass(slots=True, eq=False)
class Candidate:
    """An engine that could be opened, with what was measured of it."""

    entry: Entry
    engine: Engine
    cold: dict[str, Any]
    lanes: list[Lane]
    staged: list[StagedLane]


def bench(
    recipes: Sequence[str | Path],
    *,
    clip: str | None = None,
    prompts: Path | None = None,
    objects: Sequence[int] | None = None,
    frames: int = 200,
    rounds: int = 5,
    compare: Sequence[str] = (),
    out: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Document:
    """Measure engines side by side; returns the document that `out`/bench.json also holds, with plots beside it.

    `objects` are numbers of objects (None: those of 1, 2 and 4 that every recipe allows); `frames` are measured of
    each engine and number, in `rounds` blocks; `compare` adds variants of each recipe, "policy" or "image_size".
    `progress` is called with (blocks done, blocks in all). An engine that cannot be opened is skipped, and named;
    `ok` is false if none is left. Raises an `RtsegError` for what no engine could have helped.
    """
    entries, questions = plan(recipes, compare)
    numbers = choose_objects(objects, entries)
    if out is not None:
        _make_folder(out)
    footage = load_clip(clip, prompts)
    load = Load()
    found, skipped = _open_all(entries, footage, clip, prompts, numbers)
    _measure(found, rounds, -(-frames // rounds), progress)
    busy, warnings = load.report()
    speedups, unlike = _speedups(found, questions)
    document = Document(
        ok=bool(found),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=commit(),
        versions=versions(),
        machine={**facts(), "load": busy},
        clip=_about(footage),
        settings={"frames": frames, "rounds": rounds, "objects": list(numbers)},
        engines=[_figures(candidate, footage) for candidate in found],
        speedups=speedups,
        skipped=skipped + unlike,
        warnings=[*warnings, *_doubts(found, frames)],
    )
    return document if out is None else _save(document, out)


def _open_all(
    entries: Sequence[Entry], clip: Clip, uri: str | None, prompts: Path | None, numbers: Sequence[int]
) -> tuple[list[Candidate], list[dict[str, str]]]:
    """The engines that can be opened, and for each of the others why not."""
    found, skipped = [], []
    for entry in entries:
        try:
            cold = cold_start(entry.recipe, uri or clip.source, prompts)
            engine = open_engine(entry.recipe)
        except (EngineError, WeightsError, ConfigError) as e:
            skipped.append({"name": entry.name, "reason": str(e)})
            continue
        lanes = [Lane(engine, clip, n) for n in numbers]
        found.append(Candidate(entry, engine, cold, lanes, [StagedLane(engine, clip, n) for n in numbers]))
    return found, skipped


def _measure(found: Sequence[Candidate], rounds: int, frames: int, progress: Progress) -> None:
    """Whole steps, and beside them the stages of other steps, which the clocks in between slow down; all in turn."""
    lanes: list[Lane] = [lane for c in found for pair in zip(c.lanes, c.staged, strict=True) for lane in pair]
    for done, _ in enumerate(alternate(lanes, rounds, frames), 1):
        progress(done, len(lanes) * (rounds + 1))


def _figures(candidate: Candidate, clip: Clip) -> dict[str, Any]:
    engine, lanes = candidate.engine, candidate.lanes
    recipe = {k: v for k, v in asdict(engine.recipe).items() if k != "path"}
    # The weights have a hash of their own; where they lie makes no difference.
    identity = json.dumps({k: v for k, v in recipe.items() if k != "weights"}, sort_keys=True)
    return {
        "name": candidate.entry.name,
        "engine": engine.description,
        "recipe": recipe,
        "recipe_sha256": sha256(identity.encode()).hexdigest(),
        "weights_sha256": engine.weights_hash,
        "iou": accuracy(engine, clip),
        "cold": candidate.cold,
        "fit": fit_blocks([lane.objects for lane in lanes], [[b.frames_ms for b in lane.blocks] for lane in lanes]),
        "by_objects": [_of_lane(*pair) for pair in zip(lanes, candidate.staged, strict=True)],
    }


def _of_lane(lane: Lane, staged: StagedLane) -> dict[str, Any]:
    blocks = [block.frames_ms for block in lane.blocks]
    samples = [ms for block in blocks for ms in block]
    clicks = [lane.click() for _ in range(CLICKS)]
    return {
        "objects": lane.objects,
        "end_to_end_ms": summary(samples),
        "fps": round(1e3 * len(samples) / sum(block.wall_ms for block in lane.blocks), 2),
        "jitter_ms": jitter(blocks),
        "block_medians_ms": spread([float(np.median(block)) for block in blocks]),
        "stages_ms": {stage: summary(ms) for stage, ms in staged.stages_ms().items()},
        "click_ms": spread(clicks),
        "first_frame_ms": spread([lane.first_frame() for _ in range(STARTS)]),
        "warm_up": {"frames": lane.warm_up_frames, "steady": lane.steady},
        "samples_ms": [[round(ms, 4) for ms in block] for block in blocks],
    }


def accuracy(engine: Engine, clip: Clip) -> float | None:
    """Mean IoU over objects and frames after the prompted one, all objects followed together; None without a truth.

    A frame on which mask and truth are both empty counts as 1.
    """
    if not clip.knows_truth or len(clip.frames) < 2:
        return None
    tracker, followed = Tracker(engine), clip.prompts[: engine.recipe.max_objects]
    for prompt in followed:
        tracker.give(prompt)
    ious = []
    for frame in clip.frames:
        masks = tracker.step(frame)
        for prompt in followed if frame is not clip.frames[0] else ():
            mask_hw, true_hw = masks.mask(prompt.id), frame.truth_hw == prompt.id
            either = np.count_nonzero(mask_hw | true_hw)
            ious.append(np.count_nonzero(mask_hw & true_hw) / either if either else 1.0)
    return round(float(np.mean(ious)), 4)


def _speedups(
    found: Sequence[Candidate], questions: Sequence[Question]
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Each question's answers, of the engines that could be measured, for each number of objects; and what has none.

    Variants of one recipe that run on engines of two kinds (built kernels beside torch, say) are not compared: the
    gain would not be that of the policy or the image size.
    """
    by_name = {c.entry.name: c for c in found}
    rows, unlike = [], []
    for question in questions:
        present = [by_name[name] for name in question.names if name in by_name]
        for other in present[1:]:
            kinds = [_kind(c.engine) for c in (present[0], other)]
            if question.about != "recipe" and kinds[0] != kinds[1]:
                pair_name = f"{other.entry.name} beside {present[0].entry.name}"
                unlike.append({"name": pair_name, "reason": f"not the same kind of engine: {kinds[1]}; {kinds[0]}"})
                continue
            for a, b in zip(present[0].lanes, other.lanes, strict=True):
                ratio = speedup([x.frames_ms for x in a.blocks], [x.frames_ms for x in b.blocks])
                pair = {"baseline": present[0].entry.name, "name": other.entry.name, "objects": a.objects}
                rows.append({"about": question.about, **pair, **ratio})
    return rows, unlike


def _kind(engine: Engine) -> str:
    """What an engine runs on, without what there is to say of it in brackets."""
    return engine.description.partition(" (")[0]


def _doubts(found: Sequence[Candidate], frames: int) -> list[str]:
    """What a reader should know before believing a figure."""
    doubts = [f"p99 of {frames} frames is all but their maximum; take --frames 200 or more"] if frames < 100 else []
    for candidate in found:
        for lane in candidate.lanes:
            what = f"{candidate.entry.name}, {lane.objects} objects"
            medians = [float(np.median(block.frames_ms)) for block in lane.blocks]
            if max(medians) > UNEVEN * min(medians):
                doubts.append(f"{what}: medians of its blocks lie {max(medians) / min(medians) - 1:.0%} apart")
            if not lane.steady:
                doubts.append(f"{what}: its times had not settled after {lane.warm_up_frames} frames of warm-up")
    return doubts


def _about(clip: Clip) -> dict[str, Any]:
    first, kinds = (
        clip.frames[0],
        {"mask" if p.mask is not None else "box" if p.box else "points" for p in clip.prompts},
    )
    size = {"width": first.width, "height": first.height}
    return {"source": clip.source, "frames": len(clip.frames), **size, "prompts": ", ".join(sorted(kinds))}


def _make_folder(out: Path) -> None:
    """Before hours of measuring, not after them."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError("no right to write there")
    except OSError as e:
        raise unwritable(out, e) from e


def _save(document: Document, out: Path) -> Document:
    from .plots import draw

    saved, missing = draw(document, out)
    if missing:
        document["warnings"].append(missing)
    document["saved"] = [str(path) for path in (*saved, out / "bench.json")]
    with atomic_path(out / "bench.json") as part:
        part.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", "utf-8")
    return document
