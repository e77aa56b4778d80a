"""What one run is asked for, and who else takes part in it: filters of its pictures, and what is made of its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..engine import Engine
from ..engine.recipe import Recipe
from .check import PromptsByFrame
from .deidentify import Deidentify
from .results import Filter
from .settings import Reading, Steps, Tracking
from .sound import copy_sound

Progress = Callable[[int, int | None], None]
Say = Callable[[str], None]
Finish = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `segment`, as values of one type each."""

    uris: list[str]
    prompts: PromptsByFrame
    out: Path
    recipe: Recipe
    reading: Reading
    tracking: Tracking
    frames: str | None
    progress: Progress
    say: Say
    steps: Steps | None = None  # None: a tracker on the recipe's engine
    engine: Engine | None = None  # the recipe's, open already; None: it is opened
    deidentify: Sequence[str] = ()  # what is hidden in all that is written
    also: Sequence[str] = ()  # formats of other programs


def filters_of(request: Request) -> list[Filter]:
    """What changes pictures before they are written."""
    return [Deidentify(request.deidentify, request.uris)] if request.deidentify else []


def hooks_of(request: Request) -> list[Finish]:
    """What is made of a finished folder, before it gets its name: reports, other formats. Each gets the folder."""
    from .review import write_report

    # Where pictures are changed, people may be meant not to be recognised, so their voices are left out, too.
    hooks: list[Finish] = [write_report] if filters_of(request) else [copy_sound, write_report]
    return [*hooks, lambda folder: write_also(folder, request)] if request.also else hooks


def write_also(folder: Path, request: Request) -> None:
    """Write the formats that the request asks for, also of a run that ended early: its frames are whole."""
    from .formats import write_formats

    write_formats(folder, request.also, incomplete=True, say=request.say)
