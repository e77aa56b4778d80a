"""How well a network in training follows what it was shown once, on sequences that training never sees."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from ..base.errors import ConfigError
from ..data.dataset import Dataset, Sequence
from ..engine.recipe import Recipe
from ..engine.reference import TorchEngine
from ..evaluate import Settings, evaluate, require
from ..evaluate.summary import summarise
from ..sam2 import Sam2
from .config import Material, TrainConfig
from .workshop import open_material

SEED = re.compile(r"[?&]seed=(\d+)")  # the first of a uri's synthetic scenes


def held_out(config: TrainConfig, data: Path) -> dict[str, Dataset]:
    """The data sets that judge, by name; `ConfigError` where one of their sequences is trained on, too.

    Synthetic scenes count, and videos that lend their texture alone.
    """
    require()
    used = {place for material in config.videos for place in _places(material, data)}
    for material in config.validation:
        both = used & _places(material, data) or _drawn(config, material) or _lent(config, material, data)
        if both:
            raise ConfigError(f"{config.path}: {min(both)[1]} is both trained and validated on; choose one")
    opened = [open_material(material, data) for material in config.validation]
    for dataset in opened:
        if not any(_annotated(sequence) > 1 for sequence in dataset.sequences):
            raise ConfigError(
                f"{config.path}: {dataset.name}: nothing to judge by; expected two annotated frames or more"
            )
    return {f"{dataset.name}-{k}" if k else dataset.name: dataset for k, dataset in _numbered(opened)}


def _drawn(config: TrainConfig, material: Material) -> set[tuple[str, str]]:
    """The synthetic scene that judges and that training draws."""
    if not material.path.startswith("synthetic:") or not config.endoscope.share:
        return set()
    found = SEED.search(material.path)
    seed = int(found[1]) if found else 0
    return {(material.path, f"synthetic scene {seed}")} if seed < config.endoscope.scenes else set()


def _lent(config: TrainConfig, material: Material, data: Path) -> set[tuple[str, str]]:
    """Sequences that judge, where a texture is their folder, or lies in it."""
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
    folder = str((data / material.path).resolve())
    return {(folder, sequence.name) for sequence in open_material(material, data).sequences}


def _annotated(sequence: Sequence) -> int:
    return sum(sequence.truth(t) is not None for t in range(sequence.count))


def _numbered(datasets: list[Dataset]) -> list[tuple[int, Dataset]]:
    """Each with how many of its name come before it."""
    names = [dataset.name for dataset in datasets]
    return [(names[:k].count(dataset.name), dataset) for k, dataset in enumerate(datasets)]


def validate(net: Sam2, datasets: dict[str, Dataset], device: torch.device) -> dict[str, float]:
    """Mean IoU of each data set's objects, prompted once with a mask on the first frame."""
    engine = TorchEngine(net, Recipe(image_size=net.image_size), "", str(device))
    summaries = {name: summarise(evaluate(dataset, engine, Settings())) for name, dataset in datasets.items()}
    return {name: round(s.overall["iou"].value, 4) for name, s in summaries.items() if "iou" in s.overall}
