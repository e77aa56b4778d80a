"""A training as a file: what to train, on what, in which phases. Those of shipped networks are in `engines/training/`.

Paths of material are relative to `--data`; all else that a training needs is in the file, so that the file, the data
and the seed say what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..base.documents import as_path, read_toml
from ..base.errors import ConfigError
from ..base.tables import Table, expanded
from ..sam2 import get_preset
from .losses import LOSSES

KEYS = (
    "preset", "weights", "teacher", "seed", "optimizer", "weight_decay", "warm_up", "average_decay", "endoscope",
    "video", "texture", "validate", "phase",
)  # fmt: skip
MATERIAL_KEYS = {
    "video": ("path", "layout", "sequences", "share", "every"),
    "texture": ("path", "share", "every"),
    "validate": ("path", "layout", "sequences"),
}
PHASE_KEYS = ("steps", "image_size", "length", "objects", "clips", "clips_cuda", "lr", "loss")
OPTIMIZERS = ("muon", "adamw")
MOST = 2**31 - 1  # of what is counted
FEATURES = "features"  # the loss of a phase that teaches an image encoder


@dataclass(frozen=True, slots=True)
class Material:
    """Sequences of one data set: `sequences` of the one at `path` (all, where none is named), each `every`-th frame."""

    path: str
    layout: str | None = None
    sequences: tuple[str, ...] = ()
    share: float = 1.0
    every: int = 1


@dataclass(frozen=True, slots=True)
class Endoscope:
    """The synthetic one: how often it is drawn, and how many different scenes there are."""

    share: float = 0.0
    scenes: int = 200


@dataclass(frozen=True, slots=True)
class Teacher:
    """A larger network to learn from; `weights` as in a recipe."""

    preset: str
    weights: str


@dataclass(frozen=True, slots=True)
class Phase:
    """`steps` steps on `clips` clips of `length` frames with up to `objects` objects each.

    The learning rate goes in a straight line from `lr[0]` to `lr[1]`. `clips_cuda` counts where there is a GPU; those
    that do not fit into its memory at once go through it in parts.
    """

    steps: int
    image_size: int = 256
    length: int = 4
    objects: int = 3
    clips: int = 6
    clips_cuda: int = 96
    lr: tuple[float, float] = (8e-4, 8e-4)
    loss: str = "from-scratch"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training; `weights` (a path or "package:NAME") is what it starts from, None is nothing."""

    phases: tuple[Phase, ...]
    videos: tuple[Material, ...] = ()
    textures: tuple[Material, ...] = ()
    endoscope: Endoscope = Endoscope()
    validation: tuple[Material, ...] = ()
    preset: str = "nano"
    weights: str | None = None
    teacher: Teacher | None = None
    seed: int = 0
    optimizer: str = "muon"
    weight_decay: float = 0.05
    warm_up: int = 200
    average_decay: float = 0.999
    path: Path | None = field(default=None, compare=False)

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def at(self, step: int) -> tuple[Phase, int]:
        """The phase of a step, and the step's number in it. The last phase goes on for ever."""
        for phase in self.phases[:-1]:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        return self.phases[-1], step

    def fingerprint(self, step: int) -> str:
        """What the first `step` steps depend on, hashed.

        The phases after them do not count, nor how long the phase lasts that they end in, if it has one rate: these may
        still be changed.
        """
        phases, begin = [], 0
        for phase in self.phases:
            phases.append(phase)
            begin += phase.steps
            if begin >= step:
                break
        if phases[-1].lr[0] == phases[-1].lr[1]:
            phases[-1] = replace(phases[-1], steps=step - (begin - phases[-1].steps))
        said = repr((replace(self, preset="", phases=tuple(phases), path=None), get_preset(self.preset)))
        return sha256(said.encode()).hexdigest()

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        phase, own = self.at(step)
        begin, end = phase.lr
        return min(1.0, (step + 1) / self.warm_up) * (begin + (end - begin) * min(1.0, own / phase.steps))


def read_config(path: str | Path) -> TrainConfig:
    """Read a training's file. `ConfigError` in one line that names the file, the key and what was expected."""
    path = as_path(path)
    values = read_toml(path)
    table = Table(values, str(path), KEYS, ConfigError)
    phases = tuple(_phase(t) for t in _tables(table, "phase", PHASE_KEYS))
    if not phases:
        raise table.bad("phase", "at least one [[phase]]")
    endoscope = Table(values.get("endoscope", {}), f"{path}: endoscope", ("share", "scenes"), ConfigError)
    videos, textures, validation = (
        tuple(_material(t) for t in _tables(table, key, known)) for key, known in MATERIAL_KEYS.items()
    )
    preset = table.text("preset", "nano")
    teacher = _teacher(table, path) if "teacher" in table else None
    if teacher is None and any(phase.loss == FEATURES for phase in phases):
        raise ConfigError(f"{path}: a phase learns features, but of no one; expected a [teacher]")
    config = TrainConfig(
        phases,
        videos,
        textures,
        Endoscope(endoscope.number("share", 0.0, 0, 1e6), endoscope.integer("scenes", 200, 1, MOST)),
        validation,
        _relative(preset, path) if preset.endswith(".toml") else preset,
        _relative(table.text("weights"), path) if "weights" in table else None,
        teacher,
        table.integer("seed", 0, 0, MOST),
        table.choice("optimizer", "muon", OPTIMIZERS),
        table.number("weight_decay", 0.05, 0, 1),
        table.integer("warm_up", 200, 1, MOST),
        table.number("average_decay", 0.999, 0, 1),
        path,
    )
    if not sum(m.share for m in config.videos) + config.endoscope.share:
        raise ConfigError(f"{path}: nothing to train on; expected a [[video]], or an [endoscope] with a share")
    return config


def _teacher(table: Table, path: Path) -> Teacher:
    said = Table(table.values["teacher"], f"{path}: teacher", ("preset", "weights"), ConfigError)
    return Teacher(said.text("preset"), _relative(said.text("weights"), path))


def _relative(text: str, path: Path) -> str:
    """A path is relative to the file."""
    return text if text.startswith("package:") else str(path.parent / expanded(text, str(path), ConfigError))


def _tables(table: Table, key: str, known: tuple[str, ...]) -> list[Table]:
    found: Any = table.values.get(key, [])
    if not isinstance(found, list):
        raise table.bad(key, f"tables written as [[{key}]]")
    return [Table(values, f"{table.where}: {key} {n}", known, ConfigError) for n, values in enumerate(found, 1)]


def _material(table: Table) -> Material:
    return Material(
        str(expanded(table.text("path"), f"{table.where}: path", ConfigError)),
        table.text("layout") if "layout" in table else None,
        table.texts("sequences"),
        table.number("share", 1.0, 0, 1e6),
        table.integer("every", 1, 1, MOST),
    )


def _phase(table: Table) -> Phase:
    default = Phase(1)
    size = table.integer("image_size", default.image_size, 64, 4096)
    if size % 32:
        raise table.bad("image_size", "a multiple of 32")
    rates = "two learning rates from 0 to 1: at the phase's begin and at its end"
    lr = table.numbers("lr", 2, rates) if "lr" in table else default.lr
    if not all(0 <= rate <= 1 for rate in lr):
        raise table.bad("lr", rates)
    return Phase(
        table.integer("steps", None, 1, MOST),
        size,
        table.integer("length", default.length, 2, 64),
        table.integer("objects", default.objects, 1, 64),
        table.integer("clips", default.clips, 1, 4096),
        table.integer("clips_cuda", default.clips_cuda, 1, 4096),
        (lr[0], lr[1]),
        table.choice("loss", default.loss, (*LOSSES, FEATURES)),
    )
