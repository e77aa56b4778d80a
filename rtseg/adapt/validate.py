"""Validation of a network in training: one prompt per object, on sequences that the training does not use."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from ..base.errors import ConfigError
from ..data.dataset import Dataset, Sequence
from ..engine.recipe import Recipe
from ..engine.reference import TorchEngine
from ..evaluate import EvaluationSettings, evaluate, require
from ..evaluate.summary import summarise
from ..sam2 import Sam2
from .config import Material, TrainConfig
from .training_data import open_material

SEED = re.compile(r"[?&]seed=(\d+)")  # finds the first seed of a uri


def held_out(config: TrainConfig, data: Path) -> dict[str, Dataset]:
    """The validation data sets, by name. Raises `ConfigError` if the training uses one of their sequences.

    This includes synthetic scenes, and videos that are used only for texture.
    """
    require()
    used = {place for material in config.videos for place in _places(material, data)}
    for material in config.validation:
        both = used & _places(material, data) or _used_scene(config, material) or _used_texture(config, material, data)
        if both:
            raise ConfigError(f"{config.path}: {min(both)[1]} is both trained and validated on; choose one")
    opened = [open_material(material, data) for material in config.validation]
    for dataset in opened:
        if not any(_annotated(sequence) > 1 for sequence in dataset.sequences):
            raise ConfigError(
                f"{config.path}: {dataset.name}: too few annotated frames; expected a sequence with two or more"
            )
    return {f"{dataset.name}-{k}" if k else dataset.name: dataset for k, dataset in _numbered(opened)}


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


def _numbered(datasets: list[Dataset]) -> list[tuple[int, Dataset]]:
    """Each data set with the number of those before it that have the same name."""
    names = [dataset.name for dataset in datasets]
    return [(names[:k].count(dataset.name), dataset) for k, dataset in enumerate(datasets)]


def validate(net: Sam2, datasets: dict[str, Dataset], device: torch.device) -> dict[str, float]:
    """The mean IoU of each data set's objects, each prompted with a mask on its first frame."""
    engine = TorchEngine(net, Recipe(image_size=net.image_size), "", str(device))
    summaries = {name: summarise(evaluate(dataset, engine, EvaluationSettings())) for name, dataset in datasets.items()}
    return {name: round(s.overall["iou"].value, 4) for name, s in summaries.items() if "iou" in s.overall}
