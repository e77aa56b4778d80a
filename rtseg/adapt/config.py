"""A training as a file: what to train, on what, in which phases. Those of shipped networks are in `engines/training/`.

Paths of material are relative to `--data`; all else that a training needs is in the file, so that the file, the data
and the seed say what comes out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from ..base.documents import as_path, expanded, read_toml
from ..base.schema import ImageSize, Text, convert, one_of
from ..sam2 import get_preset
from .losses import LOSSES

OPTIMIZERS = ("muon", "adamw")
MOST = 2**31 - 1  # of what is counted
FEATURES = "features"  # the loss of a phase that teaches an image encoder
RATES = "two learning rates from 0 to 1: at the phase's begin and at its end"

Count = Annotated[int, Meta(ge=1, le=MOST)]
Share = Annotated[float, Meta(ge=0, le=1e6)]
Unit = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Material:
    """Sequences of one data set: `sequences` of the one at `path` (all, where none is named), each `every`-th frame."""

    path: Text
    layout: Text | None = None
    sequences: tuple[Text, ...] = ()
    share: Share = 1.0
    every: Count = 1


@dataclass(frozen=True, slots=True)
class Endoscope:
    """The synthetic one: how often it is drawn, and how many different scenes there are."""

    share: Share = 0.0
    scenes: Count = 200


@dataclass(frozen=True, slots=True)
class Teacher:
    """A larger network to learn from; `weights` as in a recipe."""

    preset: Text
    weights: Text


@dataclass(frozen=True, slots=True)
class Phase:
    """`steps` steps on `clips` clips of `length` frames with up to `objects` objects each.

    The learning rate goes in a straight line from `lr[0]` to `lr[1]`. `clips_cuda` counts where there is a GPU; those
    that do not fit into its memory at once go through it in parts.
    """

    steps: Count
    image_size: ImageSize = 256
    length: Annotated[int, Meta(ge=2, le=64)] = 4
    objects: Annotated[int, Meta(ge=1, le=64)] = 3
    clips: Annotated[int, Meta(ge=1, le=4096)] = 6
    clips_cuda: Annotated[int, Meta(ge=1, le=4096)] = 96
    lr: Annotated[tuple[Unit, Unit], Meta(description=RATES)] = (8e-4, 8e-4)
    loss: Annotated[str, one_of((*LOSSES, FEATURES))] = "from-scratch"


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


class _Texture(Struct, frozen=True):
    path: Text
    share: Share = 1.0
    every: Count = 1


class _Validate(Struct, frozen=True):
    path: Text
    layout: Text | None = None
    sequences: tuple[Text, ...] = ()


class _File(Struct, frozen=True, kw_only=True):
    """A training as it is written."""

    preset: Text = "nano"
    weights: Text | None = None
    teacher: Teacher | None = None
    seed: Annotated[int, Meta(ge=0, le=MOST)] = 0
    optimizer: Annotated[str, one_of(OPTIMIZERS)] = "muon"
    weight_decay: Unit = 0.05
    warm_up: Count = 200
    average_decay: Unit = 0.999
    endoscope: Endoscope = Endoscope()
    video: tuple[Material, ...] = ()
    texture: tuple[_Texture, ...] = ()
    validate: tuple[_Validate, ...] = ()
    phase: Annotated[tuple[Phase, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        if self.teacher is None and any(phase.loss == FEATURES for phase in self.phase):
            raise ValueError("a phase learns features, but of no one; expected a [teacher]")
        if not sum(material.share for material in self.video) + self.endoscope.share:
            raise ValueError("nothing to train on; expected a [[video]], or an [endoscope] with a share")


def read_config(path: str | Path) -> TrainConfig:
    """Read a training's file. `ConfigError` in one line that names the file, the key and what was expected."""
    path = as_path(path)
    file = convert(read_toml(path), _File, str(path))
    textures = (Material(t.path, share=t.share, every=t.every) for t in file.texture)
    validation = (Material(v.path, v.layout, v.sequences) for v in file.validate)
    teacher = file.teacher and replace(file.teacher, weights=_relative(file.teacher.weights, path))
    return TrainConfig(
        phases=file.phase,
        videos=_materials(file.video, path),
        textures=_materials(textures, path),
        endoscope=file.endoscope,
        validation=_materials(validation, path),
        preset=_relative(file.preset, path) if file.preset.endswith(".toml") else file.preset,
        weights=None if file.weights is None else _relative(file.weights, path),
        teacher=teacher,
        seed=file.seed,
        optimizer=file.optimizer,
        weight_decay=file.weight_decay,
        warm_up=file.warm_up,
        average_decay=file.average_decay,
        path=path,
    )


def _relative(text: str, path: Path) -> str:
    """A path is relative to the file."""
    return text if text.startswith("package:") else str(path.parent / expanded(text, str(path)))


def _materials(found: Iterable[Material], path: Path) -> tuple[Material, ...]:
    """Those of one kind, with `~` in their paths made the home folder."""
    return tuple(replace(material, path=str(expanded(material.path, f"{path}: path"))) for material in found)
