"""How well a network in training follows what it was shown once, on sequences that training never sees."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from ..config import Recipe
from ..engine.reference import TorchEngine
from ..evaluate import Dataset, Settings, evaluate
from ..sam2 import Sam2
from .config import TrainConfig
from .workshop import open_material


def held_out(config: TrainConfig, data: Path) -> list[Dataset]:
    """The sequences that judge, as the training's file names them."""
    return [open_material(material, data) for material in config.validation]


def validate(net: Sam2, datasets: list[Dataset]) -> dict[str, float]:
    """Mean IoU of each data set's objects, prompted once with a mask on the first frame."""
    engine = TorchEngine(net, Recipe(image_size=net.image_size), "", "cpu")
    found = {}
    for dataset in datasets:
        result = evaluate(dataset, engine, Settings())
        rows: dict[tuple[str, int], list[float]] = {}
        for row in result.rows:
            if not row.given:
                rows.setdefault((row.sequence, row.object), []).append(row.iou)
        found[dataset.name] = round(fmean(fmean(ious) for ious in rows.values()), 4)
    return found
