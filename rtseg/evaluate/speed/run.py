"""`rtseg bench`: which engines, in which order, and the document that comes of it."""

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
from .budget import Budget, Tell, nobody
from .clip import Clip, load_clip
from .cold import cold_start
from .figures import Candidate, comparable, doubts, many, of_candidate, pairs_of, speedups
from .lane import Lane, StagedLane
from .plan import Entry, Question, choose_objects, plan
from .tables import Document
from .turns import block_frames, take_turns

SECONDS = 140.0  # that a benchmark takes at most, give or take a round
COLD, WARM, REST = 0.25, 0.3, 0.3  # shares of what is left for starts; for warm-up; and for all after the rounds
STAGED = 50  # frames at most of which the stages are timed


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
    progress: Tell = nobody,
) -> Document:
    """Measure engines side by side; returns the document that `out`/bench.json also holds, with plots beside it.

    `objects` are numbers of objects (None: those of 1, 2 and 4 that every recipe allows; with `runtimes`, 1). Blocks
    are taken in turn until each engine has `frames` frames in `rounds` blocks and every ratio is known to 3%, or
    until most of `seconds` is spent: what was not reached is then among the warnings. `compare` adds variants of each
    recipe, "policy" or "image_size"; `runtimes` ("all", or names) measures each recipe on these instead.
    `progress` is called with (what is done, seconds spent, seconds in all as far as is known). An engine that cannot
    be opened is skipped, and named; `ok` is false if none is left. Raises an `RtsegError` for what no engine could
    have helped.
    """
    budget = Budget(seconds, progress)
    entries, questions = plan(recipes, compare, runtimes)
    numbers = choose_objects(objects, entries, few=bool(runtimes))
    if out is not None:
        _make_folder(out)
    budget.say("reading the clip")
    footage = load_clip(clip, prompts)
    load = Load()
    found, skipped = _open_all(entries, footage, numbers, budget)
    _measure(found, questions, frames, rounds, budget)
    busy, warnings = load.report()
    answers, unlike = speedups(found, questions)
    engines = _figures(found, footage, budget)
    document = Document(
        ok=bool(found),
        **_circumstances(footage, busy, found[0].engine.recipe.device if found else "cuda"),
        settings={"frames": frames, "rounds": rounds, "seconds": seconds, "objects": list(numbers)},
        engines=engines,
        speedups=answers,
        skipped=skipped + unlike,
        warnings=[*warnings, *doubts(found, frames, answers)],
        took_s=round(budget.spent, 1),
    )
    return document if out is None else _save(document, out)


def _circumstances(clip: Clip, load: dict[str, Any], device: str) -> dict[str, Any]:
    """When, with what and on what it was measured."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": versions(),
        "machine": {**facts(device), "load": load},
        "clip": _about(clip),
    }


def _open_all(
    entries: Sequence[Entry], clip: Clip, numbers: Sequence[int], budget: Budget
) -> tuple[list[Candidate], list[dict[str, str]]]:
    """The engines that can be opened, and for each of the others why not; then each in a process of its own."""
    found: list[Candidate] = []
    skipped: list[dict[str, str]] = []
    for entry in entries:
        budget.say(f"opening {entry.name}")
        try:
            if entry.unable:
                raise EngineError(entry.unable)
            with entry.restricted():
                needs = _foresee(entry, clip)
                engine = open_engine(entry.recipe)
        except (EngineError, WeightsError, ConfigError) as e:
            skipped.append({"name": entry.name, "reason": str(e)})
            continue
        found.append(Candidate(entry, engine, [Lane(engine, clip, n) for n in numbers], needs=needs))
    started, deadline = [], budget.until(COLD)
    for i, candidate in enumerate(found):
        budget.say(f"starting {candidate.entry.name} in a process of its own")
        try:
            with candidate.entry.restricted():
                if i and deadline.over:
                    candidate.missed.append("a process of its own")
                else:
                    candidate.cold = cold_start(candidate.entry.recipe, clip, deadline.share(len(found) - i).left_ms)
        except (EngineError, WeightsError, ConfigError) as e:
            skipped.append({"name": candidate.entry.name, "reason": str(e)})
        else:
            started.append(candidate)
    return started, skipped


def _foresee(entry: Entry, clip: Clip) -> dict[str, Any] | None:
    """Say what an engine will take before anything of it is allocated; with "auto", of the one that is likely."""
    first = clip.frames[0]
    try:
        needs = estimate_memory(settle(entry.recipe), first.height, first.width)
    except EngineError:  # which who opens it hears, too
        return None
    with suppress(OSError, AttributeError):  # nobody may be listening on stderr
        print(f"bench: {entry.name} will take {needs}", file=sys.stderr, flush=True)
    return {"where": "host" if needs.host else "GPU", "mib": round(needs.bytes / MIB), "parts": needs.mib()}


def _measure(
    found: Sequence[Candidate], questions: Sequence[Question], frames: int, rounds: int, budget: Budget
) -> None:
    """Whole steps, in turn; after them the stages of other steps, which the clocks in between slow down."""
    _warm_up(found, budget)
    alike = [(a, b) for question, a, b in pairs_of(found, questions) if comparable(question, a, b)]
    pairs = [pair for a, b in alike for pair in zip(a.lanes, b.lanes, strict=False)]
    lanes = [(candidate, lane) for candidate in found for lane in candidate.lanes]
    if lanes:
        take_turns([lane for _, lane in lanes], pairs, budget, budget.until(1 - REST), frames, rounds)
    deadline = budget.until(0.4)
    for i, (candidate, lane) in enumerate(lanes):
        budget.say(f"stages of {candidate.entry.name}, objects: {lane.objects}", 0.6 * budget.left)
        if deadline.over:
            candidate.missed.append(f"the stages of {many(lane.objects)}")
        else:
            staged = StagedLane(lane)
            staged.block(block_frames(lane.step_ms, deadline.share(len(lanes) - i).left_ms, min(frames, STAGED)))
            candidate.staged.append(staged)


def _warm_up(found: Sequence[Candidate], budget: Budget) -> None:
    """Every engine with the fewest objects first; what is not reached is left out, but of no engine all."""
    deadline = budget.until(WARM)
    most = len(found[0].lanes) if found else 0
    lanes = [(candidate, candidate.lanes[n]) for n in range(most) for candidate in found]
    for i, (candidate, lane) in enumerate(lanes):
        if i >= len(found) and deadline.over:
            candidate.lanes.remove(lane)
            candidate.missed.append(many(lane.objects))
            continue
        budget.say(f"warming up {candidate.entry.name}, objects: {lane.objects}")
        lane.warm_up(deadline.share(len(lanes) - i))


def _figures(found: Sequence[Candidate], clip: Clip, budget: Budget) -> list[dict[str, Any]]:
    figures, deadline = [], budget.until(1)
    for i, candidate in enumerate(found):
        budget.say(f"prompts and masks of {candidate.entry.name}", 0.5 * budget.left)
        figures.append(of_candidate(candidate, clip, deadline.share(len(found) - i)))
    return figures


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
