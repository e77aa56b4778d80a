"""`rtseg bench`: opens engines, measures them in turn, and puts the figures into a document."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...base.errors import ConfigError, EngineError, WeightsError
from ...base.files import atomic_path, unwritable
from ...base.hardware.facts import commit, facts
from ...base.hardware.load import Load
from ...build.doctor import versions
from ...engine import open_engine
from ...engine.memory_estimate import MIB, estimate_memory
from ...engine.runtimes import settle
from .alternation import block_frames, take_turns
from .budget import Budget, Report, no_report
from .cases import BenchmarkCase, Comparison, benchmark_cases, choose_objects
from .cold import cold_start
from .document import Document
from .figures import BenchmarkedEngine, cautions, comparable, engine_figures, engine_pairs, many, speedups
from .looped_clip import LoopedClip, load_clip
from .timed_run import StagedRun, TimedRun

SECONDS = 140.0  # the time of a benchmark at most, give or take a round
# Shares of the remaining time: for starts in separate processes, for the warm-up, and for everything after the rounds.
COLD, WARM, REST = 0.25, 0.3, 0.3
STAGED = 50  # frames at most whose stages are timed


def bench(
    recipes: Sequence[str | Path],
    *,
    clip: str | None = None,
    prompts: Path | None = None,
    objects: Sequence[int] | None = None,
    frames: int = 200,
    rounds: int = 6,
    compare: Sequence[str] = (),
    runtimes: Sequence[str] = (),
    out: Path | None = None,
    seconds: float = SECONDS,
    progress: Report = no_report,
) -> Document:
    """Measure engines side by side. Returns the document, which is also written to `out`/bench.json, beside plots.

    `objects` are numbers of objects (None: those of 1, 2 and 4 that every recipe allows; with `runtimes`, 1). Engines
    take turns in blocks of frames until each has `frames` frames in `rounds` blocks and every ratio is known to 3%, or
    until most of `seconds` is spent: the warnings say what was not reached. `compare` adds variants of each recipe,
    "policy" or "image_size"; `runtimes` ("all", or names) measures each recipe on these instead. `progress` is called
    with (what is done, seconds spent, estimated seconds in all). An engine that cannot be opened is skipped and listed
    with the reason; `ok` is false if none is left. Any other mistake raises an `RtsegError`.
    """
    budget = Budget(seconds, progress)
    cases, comparisons = benchmark_cases(recipes, compare, runtimes)
    numbers = choose_objects(objects, cases, few=bool(runtimes))
    if out is not None:
        _make_folder(out)
    budget.say("reading the clip")
    looped = load_clip(clip, prompts)
    settings = {"frames": frames, "rounds": rounds, "seconds": seconds, "objects": list(numbers)}
    document = _measured_document(cases, comparisons, looped, settings, budget)
    return document if out is None else _save(document, out)


def _measured_document(
    cases: Sequence[BenchmarkCase],
    comparisons: Sequence[Comparison],
    clip: LoopedClip,
    settings: dict[str, Any],
    budget: Budget,
) -> Document:
    """Open the engines, measure them, and put the figures together. `settings` become a part of the document."""
    load = Load()
    found, skipped = _open_all(cases, clip, settings["objects"], budget)
    _measure(found, comparisons, settings["frames"], settings["rounds"], budget)
    busy, warnings = load.report()
    answers, unlike = speedups(found, comparisons)
    engines = _figures(found, clip, budget)
    return Document(
        ok=bool(found),
        **_circumstances(clip, busy, found[0].engine.recipe.device if found else "cuda"),
        settings=settings,
        engines=engines,
        speedups=answers,
        skipped=skipped + unlike,
        warnings=[*warnings, *cautions(found, settings["frames"], answers)],
        took_s=round(budget.spent, 1),
    )


def _circumstances(clip: LoopedClip, load: dict[str, Any], device: str) -> dict[str, Any]:
    """The date, commit, versions, machine and clip of a measurement."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(),
        "machine": {**facts(device), "load": load},
        "clip": _about(clip),
    }


def _open_all(
    cases: Sequence[BenchmarkCase], clip: LoopedClip, numbers: Sequence[int], budget: Budget
) -> tuple[list[BenchmarkedEngine], list[dict[str, str]]]:
    """Open each engine, then start each in its own process. Returns those that work, and the others with reasons."""
    found: list[BenchmarkedEngine] = []
    skipped: list[dict[str, str]] = []
    for case in cases:
        budget.say(f"opening {case.name}")
        try:
            if case.unable:
                raise EngineError(case.unable)
            with case.restricted():
                needs = _foresee(case, clip)
                engine = open_engine(case.recipe)
        except (EngineError, WeightsError, ConfigError) as e:
            skipped.append({"name": case.name, "reason": str(e)})
            continue
        found.append(BenchmarkedEngine(case, engine, [TimedRun(engine, clip, n) for n in numbers], needs=needs))
    started, deadline = [], budget.until(COLD)
    for i, subject in enumerate(found):
        budget.say(f"starting {subject.case.name} in a process of its own")
        try:
            with subject.case.restricted():
                if i and deadline.over:
                    subject.missed.append("a process of its own")
                else:
                    subject.cold = cold_start(subject.case.recipe, clip, deadline.share(len(found) - i).left_ms)
        except (EngineError, WeightsError, ConfigError) as e:
            skipped.append({"name": subject.case.name, "reason": str(e)})
        else:
            started.append(subject)
    return started, skipped


def _foresee(case: BenchmarkCase, clip: LoopedClip) -> dict[str, Any] | None:
    """Print and return the memory estimate of an engine before it is opened; with "auto", for the likely runtime."""
    first = clip.frames[0]
    try:
        needs = estimate_memory(settle(case.recipe), first.height, first.width)
    except EngineError:  # opening the engine raises it again
        return None
    with suppress(OSError, AttributeError):  # nobody may be listening on stderr
        print(f"bench: {case.name} will take {needs}", file=sys.stderr, flush=True)
    return {"where": "host" if needs.host else "GPU", "mib": round(needs.bytes / MIB), "parts": needs.mib()}


def _measure(
    found: Sequence[BenchmarkedEngine], comparisons: Sequence[Comparison], frames: int, rounds: int, budget: Budget
) -> None:
    """Time whole steps in turn; then the stages of further steps, because the clocks between stages slow steps down."""
    _warm_up(found, budget)
    alike = [(a, b) for comparison, a, b in engine_pairs(found, comparisons) if comparable(comparison, a, b)]
    pairs = [pair for a, b in alike for pair in zip(a.runs, b.runs, strict=False)]
    runs = [(subject, run) for subject in found for run in subject.runs]
    if runs:
        take_turns([run for _, run in runs], pairs, budget, budget.until(1 - REST), frames, rounds)
    deadline = budget.until(0.4)
    for i, (subject, run) in enumerate(runs):
        budget.say(f"stages of {subject.case.name}, objects: {run.objects}", 0.6 * budget.left)
        if deadline.over:
            subject.missed.append(f"the stages of {many(run.objects)}")
        else:
            staged = StagedRun(run)
            staged.block(block_frames(run.step_ms, deadline.share(len(runs) - i).left_ms, min(frames, STAGED)))
            subject.staged.append(staged)


def _warm_up(found: Sequence[BenchmarkedEngine], budget: Budget) -> None:
    """Warm up every engine, with the fewest objects first. Runs are left out if time is up, but never an engine."""
    deadline = budget.until(WARM)
    most = len(found[0].runs) if found else 0
    runs = [(subject, subject.runs[n]) for n in range(most) for subject in found]
    for i, (subject, run) in enumerate(runs):
        if i >= len(found) and deadline.over:
            subject.runs.remove(run)
            subject.missed.append(many(run.objects))
            continue
        budget.say(f"warming up {subject.case.name}, objects: {run.objects}")
        run.warm_up(deadline.share(len(runs) - i))


def _figures(found: Sequence[BenchmarkedEngine], clip: LoopedClip, budget: Budget) -> list[dict[str, Any]]:
    figures, deadline = [], budget.until(1)
    for i, subject in enumerate(found):
        budget.say(f"prompts and masks of {subject.case.name}", 0.5 * budget.left)
        figures.append(engine_figures(subject, clip, deadline.share(len(found) - i)))
    return figures


def _about(clip: LoopedClip) -> dict[str, Any]:
    first, kinds = (
        clip.frames[0],
        {"mask" if p.mask is not None else "box" if p.box else "points" for p in clip.prompts},
    )
    size = {"width": first.width, "height": first.height}
    return {"source": clip.source, "frames": len(clip.frames), **size, "prompts": ", ".join(sorted(kinds))}


def _make_folder(out: Path) -> None:
    """Make the folder before the measurement, because an error afterwards would lose its results."""
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
