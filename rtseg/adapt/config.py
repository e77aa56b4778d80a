"""The configuration file of a training: network, data and phases. `engines/training/` has those of shipped networks.

Paths of data are relative to `--data`. The file and the data together determine the result, seed included.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from ..base.documents import as_path, expanded, read_toml
from ..base.errors import ConfigError
from ..base.schema import ImageSize, Text, convert, one_of
from ..engine.catalogue import read_table
from ..sam2 import get_preset
from .losses import LOSSES
from .methods import METHODS, adapters_among

OPTIMIZERS = ("muon", "adamw")
MOST = 2**31 - 1  # the largest count or seed
FEATURES = "features"  # the loss of a phase that trains the image encoder on a teacher's features
RATES = "two learning rates from 0 to 1: at the start and at the end of the phase"

# Fields that came after the first networks were trained: part of a fingerprint where they are not at their default.
LATER = {
    "trunk",
    "levels",
    "match_dim",
    "perceiver",
    "trunk_rate",
    "coarse_only",
    "singles",
    "stills",
    "split",
    "method",
}

Count = Annotated[int, Meta(ge=1, le=MOST)]
Share = Annotated[float, Meta(ge=0, le=1e6)]
Unit = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Material:
    """Sequences of the data set at `path`: those named (all, if `sequences` is empty), every `every`-th frame.

    `share` is how often they are drawn, relative to the other entries. With `stills`, pictures of a sequence have
    nothing to do with one another: a clip shows one of them, and makes its camera and its objects move. With `split`,
    each piece of an object of a still is an object, such as each instrument where one mask shows all of them.
    """

    path: Text
    layout: Text | None = None
    sequences: tuple[Text, ...] = ()
    share: Share = 1.0
    every: Count = 1
    stills: bool = False
    split: bool = False


@dataclass(frozen=True, slots=True)
class Endoscope:
    """The synthetic endoscope: how often it is drawn, relative to other entries, and its number of scenes."""

    share: Share = 0.0
    scenes: Count = 200


@dataclass(frozen=True, slots=True)
class Teacher:
    """A larger network to learn from; `weights` is named as in a recipe."""

    preset: Text
    weights: Text


@dataclass(frozen=True, slots=True)
class Phase:
    """`steps` steps on `clips` clips of `length` frames with up to `objects` objects each.

    The learning rate changes linearly from `lr[0]` to `lr[1]`. `clips_cuda` replaces `clips` on a GPU, which takes them
    in micro-batches if they do not fit into its memory at once. The trunk's learning rate is `trunk_rate` times that of
    the rest; with 0 the trunk is frozen, and steps are faster. With `coarse_only` only its blocks at stride 16 and 32
    learn (of a convolutional trunk), which is nearly as fast.
    """

    steps: Count
    image_size: ImageSize = 256
    length: Annotated[int, Meta(ge=1, le=64)] = 4
    objects: Annotated[int, Meta(ge=1, le=64)] = 3
    clips: Annotated[int, Meta(ge=1, le=4096)] = 6
    clips_cuda: Annotated[int, Meta(ge=1, le=4096)] = 96
    lr: Annotated[tuple[Unit, Unit], Meta(description=RATES)] = (8e-4, 8e-4)
    loss: Annotated[str, one_of((*LOSSES, FEATURES))] = "from-scratch"
    singles: Unit = 0.0
    trunk_rate: Unit = 1.0
    coarse_only: bool = False

    def batch_size(self, step: int, clips: int) -> tuple[int, int]:
        """(clips, frames of each) of a step that has `clips` clips of `length` frames, or as many single pictures.

        Steps of single pictures are spread evenly; `step` counts from the beginning of the training.
        """
        single = int((step + 1) * self.singles) > int(step * self.singles)
        return (clips * self.length, 1) if single else (clips, self.length)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training. It starts from `weights` (named as in a recipe), or from random ones if that is None.

    With `trunk` "imagenet" a convolutional trunk starts from its ImageNet weights. `method` are the names of methods:
    what learns, and which adapters are added; with none, the whole network learns.
    """

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
    trunk: str | None = None
    method: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def at(self, step: int) -> tuple[Phase, int]:
        """The phase of a step, and the step's number in it. The last phase has no end."""
        for phase in self.phases[:-1]:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        return self.phases[-1], step

    def fingerprint(self, step: int) -> str:
        """A hash of all settings that the first `step` steps depend on.

        Later phases may still be changed, and so may the length of the current phase if its learning rate is constant.
        The names of classes and fields are hashed, too: after renaming one, no earlier checkpoint can be resumed.
        """
        phases, begin = [], 0
        for phase in self.phases:
            phases.append(phase)
            begin += phase.steps
            if begin >= step:
                break
        if phases[-1].lr[0] == phases[-1].lr[1]:
            phases[-1] = replace(phases[-1], steps=step - (begin - phases[-1].steps))
        text = _described((replace(self, preset="", phases=tuple(phases), path=None), get_preset(self.preset)))
        return sha256(text.encode()).hexdigest()

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        phase, own = self.at(step)
        begin, end = phase.lr
        return min(1.0, (step + 1) / self.warm_up) * (begin + (end - begin) * min(1.0, own / phase.steps))


def _described(value: object) -> str:
    """`repr` without the fields of data classes that are `LATER` and have their default."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_described, value))}{',' * (len(value) == 1)})"
    if not is_dataclass(value) or isinstance(value, type):
        return repr(value)
    given = [(one, getattr(value, one.name)) for one in fields(value)]
    parts = (f"{one.name}={_described(v)}" for one, v in given if one.name not in LATER or v != one.default)
    return f"{type(value).__qualname__}({', '.join(parts)})"


class _Texture(Struct, frozen=True):
    path: Text
    share: Share = 1.0
    every: Count = 1
    stills: bool = False


class _Validate(Struct, frozen=True):
    path: Text
    layout: Text | None = None
    sequences: tuple[Text, ...] = ()
    stills: bool = False


class _File(Struct, frozen=True, kw_only=True):
    """The configuration file, key by key."""

    preset: Text = "nano"
    weights: Text | None = None
    trunk: Annotated[str, one_of(("imagenet",))] | None = None
    method: tuple[Annotated[str, one_of(METHODS)], ...] = ()
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
            raise ValueError("a phase has loss = 'features', and no teacher is given; expected a [teacher]")
        if adapters_among(self.method) and self.weights is None:
            raise ValueError("method names an adapter, and weights is not given; expected the weights that it is for")
        lone = next((material.path for material in self.video if material.split and not material.stills), None)
        if lone is not None:
            raise ValueError(f"{lone}: split = true; expected it with stills = true, because pieces have no names")
        if not sum(material.share for material in self.video) + self.endoscope.share:
            raise ValueError("nothing to train on; expected a [[video]], or an [endoscope] with a share")


def read_config(path: str | Path) -> TrainConfig:
    """Read a configuration file. Raises `ConfigError`, which names the file, the key and what was expected."""
    path = as_path(path)
    file = convert(_table(path), _File, str(path))
    textures = (Material(t.path, share=t.share, every=t.every, stills=t.stills) for t in file.texture)
    validation = (Material(v.path, v.layout, v.sequences, stills=v.stills) for v in file.validate)
    teacher = file.teacher and replace(file.teacher, weights=_relative(file.teacher.weights, path))
    return TrainConfig(
        phases=file.phase,
        videos=_materials(file.video, path),
        textures=_materials(textures, path),
        endoscope=file.endoscope,
        validation=_materials(validation, path),
        preset=_relative(file.preset, path) if file.preset.endswith(".toml") else file.preset,
        weights=None if file.weights is None else _relative(file.weights, path),
        trunk=file.trunk,
        method=file.method,
        teacher=teacher,
        seed=file.seed,
        optimizer=file.optimizer,
        weight_decay=file.weight_decay,
        warm_up=file.warm_up,
        average_decay=file.average_decay,
        path=path,
    )


def _table(path: Path) -> dict[str, object]:
    """The keys of a file, and below them those of the file beside it that it names with `like`."""
    own = read_toml(path)
    like = own.pop("like", None)
    if like is None:
        return own
    if not isinstance(like, str) or Path(like).name != like or like == path.name:
        raise ConfigError(f"{path}: like = {like!r}; expected the name of another training file in the same folder")
    other = read_toml(path.parent / like)
    if "like" in other:
        raise ConfigError(f"{path}: like = {like!r}, which has a `like` of its own; expected a file without")
    return {**other, **own}


def _relative(text: str, path: Path) -> str:
    """A path, taken relative to the configuration file; `package:NAME` and a name of published weights as they are."""
    is_name = text.startswith("package:") or text in read_table().entries
    return text if is_name else str(path.parent / expanded(text, str(path)))


def _materials(found: Iterable[Material], path: Path) -> tuple[Material, ...]:
    """The entries of one kind, with `~` in their paths replaced by the home folder."""
    return tuple(replace(material, path=str(expanded(material.path, f"{path}: path"))) for material in found)
