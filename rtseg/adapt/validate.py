"""How well a network follows what it was shown once, on sequences that training never sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..engine import Engine
from ..sam2 import MEAN, STD
from ..track import Tracker
from .data import HELD_OUT_SEED, VALIDATION, Sequence, read_sequence, render_sequence


def normalised(image_nchw: Tensor) -> Tensor:
    """uint8 [..., 3, S, S] as the network wants it: float, ImageNet mean and deviation."""
    mean_c11, std_c11 = (torch.tensor(v, device=image_nchw.device).reshape(3, 1, 1) for v in (MEAN, STD))
    return (image_nchw.float() / 255 - mean_c11) / std_c11


def follow(engine: Engine, seq: Sequence, object_id: int, policy: str) -> np.ndarray:
    """Mask of one object on every frame, bool [T, H, W], from its true mask on the first frame."""
    tracker = Tracker(engine, policy)
    tracker.prompt(object_id, mask=seq.ids_thw[0] == object_id)
    return np.stack([tracker.step(image_hwc).mask(object_id) for image_hwc in seq.image_thwc])


def mean_iou(mask_thw: np.ndarray, truth_thw: np.ndarray) -> float:
    """Mean IoU after the prompted frame; a frame where both are empty counts as 1."""
    both = (mask_thw & truth_thw)[1:].sum((1, 2))
    either = (mask_thw | truth_thw)[1:].sum((1, 2))
    return float(np.where(either > 0, both / np.maximum(either, 1), 1.0).mean())


def validation_set(data: Path, scenes: int = 3) -> dict[str, list[Sequence]]:
    """The held-out sequences, by group: `robotic`, `davis`, `synthetic` (rendered at 12.5 fps)."""
    robotic, davis = ([read_sequence(data / folder, name) for name in names] for folder, names in VALIDATION.items())
    synthetic = [render_sequence(HELD_OUT_SEED + k, 32, 12.5) for k in range(scenes)]
    return {"robotic": robotic, "davis": davis, "synthetic": synthetic}


def validate(engine: Engine, groups: dict[str, list[Sequence]], policy: str = "fifo") -> dict[str, float]:
    """Mean IoU per sequence and, under the group's own name, over all objects of the group."""
    report: dict[str, float] = {}
    for group, found in groups.items():
        scores = []
        for seq in found:
            ids = [i for i in seq.ids if i <= 2 and (seq.ids_thw[0] == i).any()]
            own = [mean_iou(follow(engine, seq, i, policy), seq.ids_thw == i) for i in ids]
            report[seq.name] = round(float(np.mean(own)), 4)
            scores += own
        report[group] = round(float(np.mean(scores)), 4)
    return report
