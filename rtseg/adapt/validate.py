"""Validation of a network in training, on sequences that it does not use: videos from one mask, stills from others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from ..base.errors import ConfigError
from ..data.dataset import Dataset, Sequence
from ..data.lazy_sequence import single_pictures
from ..engine.recipe import Recipe
from ..engine.reference import TorchEngine
from ..evaluate import EvaluationSettings, evaluate, require
from ..evaluate.summary import summarise
from ..sam2 import Sam2
from .config import Material, TrainConfig
from .training_data import open_material

SEED = re.compile(r"[?&]seed=(\d+)")  # finds the first seed of a uri


STILLS_PROMPTS = ("box", "points-1")


@dataclass(frozen=True, slots=True)
class Group:
    """A data set of the validation, and how it is evaluated: a video from the first mask, a still from each prompt."""

    dataset: Dataset
    settings: tuple[EvaluationSettings, ...]


def held_out(config: TrainConfig, data: Path) -> dict[str, Group]:
    """The groups of the validation, by name. Raises `ConfigError` if the training uses one of their sequences.

    This includes synthetic scenes, and videos that are used only for texture.
    """
    require()
    used = {place for material in config.videos for place in _places(material, data)}
    for material in config.validation:
        both = used & _places(material, data) or _used_scene(config, material) or _used_texture(config, material, data)
        if both:
            raise ConfigError(f"{config.path}: {min(both)[1]} is both trained and validated on; choose one")
    return groups(config, data)


def groups(config: TrainConfig, data: Path) -> dict[str, Group]:
    """The groups of the validation, by name, without a look at what the training uses."""
    opened = [_group(config, material, data) for material in config.validation]
    names = [group.dataset.name for group in opened]
    counted = [(name, names[:k].count(name)) for k, name in enumerate(names)]
    return {f"{name}-{k}" if k else name: group for (name, k), group in zip(counted, opened, strict=True)}


def _group(config: TrainConfig, material: Material, data: Path) -> Group:
    dataset = open_material(material, data)
    if material.stills:
        alone = (EvaluationSettings(protocol="image", prompt=prompt) for prompt in STILLS_PROMPTS)
        return Group(single_pictures(dataset), tuple(alone))
    if not any(_annotated(sequence) > 1 for sequence in dataset.sequences):
        raise ConfigError(
            f"{config.path}: {dataset.name}: too few annotated frames; expected a sequence with two or more, "
            "or stills = true"
        )
    return Group(dataset, (EvaluationSettings(),))


def _used_scene(config: TrainConfig, material: Material) -> set[tuple[str, str]]:
    """The first synthetic scene of the validation, if the training uses it."""
    if not material.path.startswith("synthetic:") or not config.endoscope.share:
        return set()
    found = SEED.search(material.path)
    seed = int(found[1]) if found else 0
    return {(material.path, f"synthetic scene {seed}")} if seed < config.endoscope.scenes else set()


def _used_texture(config: TrainConfig, material: Material, data: Path) -> set[tuple[str, str]]:
    """The validation sequences whose folder is a texture's folder, contains one, or is in one."""
    folder = (data / material.path).resolve()
    found: set[tuple[str, str]] = set()
    for texture in ((data / texture.path).resolve() for texture in config.textures):
        if folder.is_relative_to(texture):
            return _places(material, data)
        if texture.is_relative_to(folder):
            own = {Path(part).stem for part in texture.relative_to(folder).parts}
            found |= {(p, name) for p, name in _places(material, data) if name in own or (texture / name).exists()}
    return found


def _places(material: Material, data: Path) -> set[tuple[str, str]]:
    """The folder and the name of each sequence of an entry."""
    folder = str((data / material.path).resolve())
    return {(folder, sequence.name) for sequence in open_material(material, data).sequences}


def _annotated(sequence: Sequence) -> int:
    return sum(sequence.truth(t) is not None for t in range(sequence.count))


def validate(net: Sam2, groups: dict[str, Group], device: torch.device) -> dict[str, float]:
    """The mean IoU of each group's objects: "NAME" from a mask on the first frame, "NAME box" of stills from a box."""
    engine = TorchEngine(net, Recipe(image_size=net.image_size), "", str(device))
    found: dict[str, float] = {}
    for name, group in groups.items():
        for settings in group.settings:
            figures = summarise(evaluate(group.dataset, engine, settings)).overall
            if "iou" in figures:
                key = name if settings.prompt == "mask" else f"{name} {settings.prompt}"
                found[key] = round(figures["iou"].value, 4)
    return found
