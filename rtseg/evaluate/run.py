"""A data set through an engine, by one protocol, and every mask judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from ..base.errors import ConfigError, RtsegError, SourceError, did_you_mean
from ..base.hardware.facts import facts
from ..base.types import ImageU8
from ..build.doctor import versions
from ..data.dataset import Dataset, Sequence
from ..engine import Engine
from ..engine.policy import get_policy
from ..track import Tracker
from .corrupt import CORRUPTIONS, LEVELS, corrupted
from .metrics.surface import TOLERANCE
from .needs import require
from .prompting import DRAWN, PROMPTS, Prompter, prompter
from .protocols import (
    PROTOCOLS,
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
from .volumes import score_volume

Progress = Callable[[int, int | None], None]
PATIENCE = Patience()
EVERY, LEVEL = 25, 3  # frames between prompts, and of a corruption, where nothing else was said
# Settings that make no sense with any other protocol.
ONLY = {
    "every": ("every",),
    "clicks": ("interactive", "image"),
    "frames": ("interactive",),
    "slices": ("forward", "backward", "both"),
}


def _choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = did_you_mean(value, known)
        listed = "" if hint.startswith("expected") else f" expected one of: {', '.join(known)}"
        raise ConfigError(f"{name} {value!r}: no such {name}; {hint}{listed}")


@dataclass(frozen=True, slots=True)
class Settings:
    """What is asked of an engine. `ConfigError` if that makes no sense.

    `protocol` is one of `PROTOCOLS`, `prompt` one of `PROMPTS`. `every` is in frames (None: 25), for the protocol of
    that name. `clicks` are those of each corrected frame, and `frames` how many are corrected, the first included
    (`interactive`; None: as `Patience` has it); for `image`, `clicks` are those after the prompt (None: no further
    ones). `slices` are those on which volumes are prompted; none: where each object is largest. `corruption` is one of
    `CORRUPTIONS`, of `level` 1 to 5 (None: 3). `policy` None is the recipe's. `tolerance` is that of surface Dice, in
    mm where a sequence knows its spacing, else in pixels. What does not apply to the protocol is refused, not ignored.
    """

    protocol: str = "video"
    prompt: str = "mask"
    every: int | None = None
    clicks: int | None = None
    frames: int | None = None
    slices: tuple[int, ...] = ()
    corruption: str | None = None
    level: int | None = None
    seed: int = 0
    policy: str | None = None
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        for name, known in (("protocol", PROTOCOLS), ("prompt", PROMPTS)):
            _choice(name, getattr(self, name), known)
        if self.corruption is not None:
            _choice("corruption", self.corruption, tuple(CORRUPTIONS))
        if self.policy is not None:
            get_policy(self.policy)
        if (self.protocol, self.prompt) == ("image", "mask"):
            raise ConfigError("prompt 'mask' is the answer itself where each image stands alone; use box or points-1")
        if self.level is not None and self.level not in LEVELS:
            raise ConfigError(f"level = {self.level}; expected 1 to 5")
        least = {"every": 1, "frames": 1, "clicks": 0, "seed": 0, "tolerance": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{name} = {value}; expected {low} or more")
        for name, protocols in ONLY.items():
            if getattr(self, name) not in (None, ()) and self.protocol not in protocols:
                which = " or ".join(protocols)
                raise ConfigError(f"{name}: is for the protocol {which}, not for {self.protocol!r}; leave it out")
        if self.level is not None and self.corruption is None:
            raise ConfigError("level: is that of a corruption, and there is none; choose one, or leave it out")


def evaluate(
    dataset: Dataset,
    engine: Engine,
    settings: Settings = Settings(),
    progress: Progress = lambda done, total: None,
) -> Result:
    """Track the objects of every sequence, and judge each mask on each annotated frame.

    Objects that the protocol never prompts are listed in `made_by["not_prompted"]`, by sequence; a sequence of which
    that is true of all objects has no rows.

    Arguments:
        dataset: what `open_dataset` opens.
        engine: what `open_engine` opens.
        settings: the protocol, the prompts, the corruption, ...
        progress: called with the frames done and the frames in all.

    Returns:
        One row for each object and annotated frame, with its prompts and figures.

    Raises:
        RtsegError: the first sequence that fails ends the evaluation, with an error that names it.
        SourceError: no sequence has an object that the protocol prompts.
        ConfigError: the settings do not fit the data, or scipy is missing.
    """
    require()
    _check_slices(dataset, settings)
    result = Result(asked(settings), made_by(engine, settings))
    frames, done = sum(sequence.count for sequence in dataset.sequences), 0
    left_out: dict[str, list[int]] = result.made_by["not_prompted"]
    for sequence in dataset.sequences:
        with _named(sequence):
            if sequence.name in result.tracked or sequence.name in left_out:
                raise SourceError("a sequence of this name has been there already; expected names that differ")
            watched = _watched(sequence, progress, done, frames)
            areas = survey(sequence)
            chosen = schedule(areas, settings)
            missing = sorted({target.id for target in sequence.targets} - scheduled(chosen).keys())
            if missing:
                left_out[sequence.name] = missing
            if chosen:
                tracked = track(watched, chosen, settings, partial(_tracker, engine, settings.policy, sequence))
                tracked.volume, tracked.group = sequence.volume, sequence.group
                rows, classes = score(sequence, tracked, settings.tolerance)
                result.tracked[sequence.name] = tracked
                result.rows += rows
                result.volumes += score_volume(sequence, tracked, settings.tolerance)
                result.classes += classes
        done += sequence.count
        progress(done, frames)
    if not result.tracked:
        raise SourceError(f"{dataset.name}: no sequence shows a target where it could be prompted; expected one")
    return result


def _tracker(engine: Engine, policy: str | None, sequence: Sequence) -> Tracker:
    tracker = Tracker(engine, policy)
    tracker.cuts = not sequence.volume  # slices are no film: what differs from one to the next is no other scene
    return tracker


def _check_slices(dataset: Dataset, settings: Settings) -> None:
    """`ConfigError` unless every volume has the slices that are to be prompted."""
    for sequence in dataset.sequences if settings.slices else ():
        outside = [t for t in settings.slices if not 0 <= t < sequence.count]
        if outside:
            said = ", ".join(map(str, outside))
            raise ConfigError(f"slices {said}: {sequence.name} has no such; expected 0 to {sequence.count - 1}")


def schedule(areas: Areas, settings: Settings) -> Schedule:
    """When the protocol prompts which object, given where each is visible."""
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
    settings: Settings,
    open_tracker: OpenTracker,
    say: Prompter | None = None,
) -> Tracked:
    """One sequence by the protocol; `say` (default: what derives from the truth) can give stored prompts again."""
    say = say or prompter(settings.prompt, settings.seed, sequence)
    if settings.corruption is not None:
        sequence = corrupted(sequence, settings.corruption, settings.level or LEVEL, settings.seed)
    match settings.protocol:
        case "interactive":
            patience = Patience(_clicks(settings), settings.frames or PATIENCE.frames)
            return interactive(sequence, chosen, open_tracker, say, patience)
        case "image":
            return alone(sequence, chosen, open_tracker, say, _clicks(settings))
        case "both":
            return both_ways(sequence, chosen, open_tracker, say)
        case "backward":
            return follow(sequence, chosen, open_tracker, say, range(sequence.count)[::-1])
    return follow(sequence, chosen, open_tracker, say)


def made_by(engine: Engine, settings: Settings) -> dict[str, Any]:
    """What a result depends on beside its settings, as plain values."""
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


def asked(settings: Settings) -> dict[str, Any]:
    """The settings that matter, as plain values: `every` to its protocol alone, a level to a corruption, and so on.

    So two evaluations that were asked the same in different words are known to be alike.
    """
    matters = {
        **{name: settings.protocol in protocols for name, protocols in ONLY.items()},
        "level": settings.corruption is not None,
        "seed": settings.corruption is not None or settings.prompt in DRAWN,
    }
    values = {
        **asdict(settings),
        "every": settings.every or EVERY,
        "clicks": _clicks(settings),
        "frames": settings.frames or PATIENCE.frames,
        "slices": list(settings.slices),
        "level": settings.level or LEVEL,
    }
    return {name: value for name, value in values.items() if matters.get(name, True)}


def _clicks(settings: Settings) -> int:
    """How many there are on a frame, also where that was not said."""
    if settings.clicks is not None:
        return settings.clicks
    return PATIENCE.clicks if settings.protocol == "interactive" else 0


def _watched(sequence: Sequence, progress: Progress, before: int, frames: int) -> Sequence:
    """The sequence, with its share of the progress as its pictures are read; further passes do not count."""
    read: set[int] = set()

    def image(t: int) -> ImageU8:
        read.add(t)
        progress(before + len(read) - 1, frames)
        return sequence.image(t)

    return replace(sequence, image=image)


@contextmanager
def _named(sequence: Sequence) -> Iterator[None]:
    """An error says in which sequence it was."""
    try:
        yield
    except RtsegError as e:
        if str(e).startswith(f"{sequence.name}:"):
            raise
        raise type(e)(f"{sequence.name}: {e}") from e
