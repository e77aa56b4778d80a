"""Run an engine over a data set by one protocol, and score every mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from ..base.errors import ConfigError, RtsegError, SourceError
from ..base.hardware.facts import facts
from ..base.types import ImageU8
from ..build.doctor import versions
from ..data.dataset import Dataset, Sequence
from ..engine import Engine
from ..track import Tracker
from .corrupt import corrupted
from .needs import require
from .prompting import Prompter, prompter
from .protocols import (
    Areas,
    OpenTracker,
    Patience,
    Schedule,
    alone,
    both_ways,
    every,
    follow,
    interactive,
    on_all,
    on_entry,
    on_first_frame,
    on_slices,
    scheduled,
    survey,
)
from .result import Result, Tracked
from .score import score
from .settings import EVERY, LEVEL, PATIENCE, EvaluationSettings, asked, clicks_of
from .volumes import score_volume

Progress = Callable[[int, int | None], None]


def evaluate(
    dataset: Dataset,
    engine: Engine,
    settings: EvaluationSettings = EvaluationSettings(),  # noqa: B008  # it is frozen
    progress: Progress = lambda done, total: None,
) -> Result:
    """Track the objects of every sequence, and score each mask on each annotated frame.

    Objects that the protocol never prompts are listed by sequence in `made_by["not_prompted"]`. A sequence with no
    other objects has no rows.

    Arguments:
        dataset: what `open_dataset` opens.
        engine: what `open_engine` opens.
        settings: the protocol, the prompts, the corruption, ...
        progress: called with the number of frames done, and of all frames.

    Returns:
        One row for each object and annotated frame, with its prompts and figures.

    Raises:
        RtsegError: a sequence failed; it ends the evaluation, and the error names it.
        SourceError: no sequence has an object that the protocol prompts.
        ConfigError: the settings do not fit the data, or scipy is missing.
    """
    require()
    _check_slices(dataset, settings)
    result = Result(asked(settings), made_by(engine, settings))
    frames, done = sum(sequence.count for sequence in dataset.sequences), 0
    for sequence in dataset.sequences:
        with _named(sequence):
            if sequence.name in result.tracked or sequence.name in result.made_by["not_prompted"]:
                raise SourceError("another sequence has this name; expected names that differ")
            _evaluate_sequence(sequence, _watched(sequence, progress, done, frames), engine, settings, result)
        done += sequence.count
        progress(done, frames)
    if not result.tracked:
        raise SourceError(f"{dataset.name}: no sequence shows a target where it could be prompted; expected one")
    return result


def _evaluate_sequence(
    sequence: Sequence, watched: Sequence, engine: Engine, settings: EvaluationSettings, result: Result
) -> None:
    """Track the objects of a sequence and add the figures to `result`. `watched` reports progress when it is read."""
    chosen = schedule(survey(sequence), settings)
    missing = sorted({target.id for target in sequence.targets} - scheduled(chosen).keys())
    if missing:
        result.made_by["not_prompted"][sequence.name] = missing
    if not chosen:
        return
    tracked = track(watched, chosen, settings, partial(_tracker, engine, settings.policy, sequence))
    tracked.volume, tracked.group = sequence.volume, sequence.group
    rows, classes = score(sequence, tracked, settings.tolerance)
    result.tracked[sequence.name] = tracked
    result.rows += rows
    result.volumes += score_volume(sequence, tracked, settings.tolerance)
    result.classes += classes


def _tracker(engine: Engine, policy: str | None, sequence: Sequence) -> Tracker:
    tracker = Tracker(engine, policy)
    tracker.cuts = not sequence.volume  # neighbouring slices of a volume may differ, but are no scene cut
    return tracker


def _check_slices(dataset: Dataset, settings: EvaluationSettings) -> None:
    """Raise `ConfigError` unless every volume has the slices that are to be prompted."""
    for sequence in dataset.sequences if settings.slices else ():
        outside = [t for t in settings.slices if not 0 <= t < sequence.count]
        if outside:
            listed = ", ".join(map(str, outside))
            raise ConfigError(f"slices {listed}: {sequence.name} has no such; expected 0 to {sequence.count - 1}")


def schedule(areas: Areas, settings: EvaluationSettings) -> Schedule:
    """The frames on which the protocol prompts each object; `areas` says where each is visible."""
    match settings.protocol:
        case "video":
            return on_first_frame(areas)
        case "every":
            return every(areas, settings.every or EVERY)
        case "image":
            return on_all(areas)
        case "enter" | "interactive":
            return on_entry(areas)
    return on_slices(areas, settings.slices)


def track(
    sequence: Sequence,
    chosen: Schedule,
    settings: EvaluationSettings,
    open_tracker: OpenTracker,
    prompts: Prompter | None = None,
) -> Tracked:
    """Track one sequence by the protocol. `prompts` may give stored prompts; by default they derive from the truth."""
    prompts = prompts or prompter(settings.prompt, settings.seed, sequence)
    if settings.corruption is not None:
        sequence = corrupted(sequence, settings.corruption, settings.level or LEVEL, settings.seed)
    match settings.protocol:
        case "interactive":
            patience = Patience(clicks_of(settings), settings.frames or PATIENCE.frames)
            return interactive(sequence, chosen, open_tracker, prompts, patience)
        case "image":
            return alone(sequence, chosen, open_tracker, prompts, clicks_of(settings))
        case "both":
            return both_ways(sequence, chosen, open_tracker, prompts)
        case "backward":
            return follow(sequence, chosen, open_tracker, prompts, range(sequence.count)[::-1])
    return follow(sequence, chosen, open_tracker, prompts)


def made_by(engine: Engine, settings: EvaluationSettings) -> dict[str, Any]:
    """Everything that a result depends on beside its settings, as JSON values."""
    recipe = {key: value for key, value in asdict(engine.recipe).items() if key != "path"}
    return {
        "engine": engine.description,
        "recipe": recipe,
        "policy": settings.policy or engine.recipe.memory.policy,
        "weights_sha256": engine.weights_hash,
        "versions": versions(),
        "machine": facts(engine.recipe.device),
        "not_prompted": {},
    }


def _watched(sequence: Sequence, progress: Progress, before: int, frames: int) -> Sequence:
    """The sequence, but reporting progress when a picture is first read; later passes do not count."""
    read: set[int] = set()

    def image(t: int) -> ImageU8:
        read.add(t)
        progress(before + len(read) - 1, frames)
        return sequence.image(t)

    return replace(sequence, image=image)


@contextmanager
def _named(sequence: Sequence) -> Iterator[None]:
    """Put the name of the sequence in front of an error's text."""
    try:
        yield
    except RtsegError as e:
        if str(e).startswith(f"{sequence.name}:"):
            raise
        raise type(e)(f"{sequence.name}: {e}") from e
