"""How well a network follows what it was shown once, on sequences that training never sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ..engine import Engine
from ..sam2 import MEAN, STD
from ..track import Tracker
from ..types import BoolMask
from .data import HELD_OUT_SEED, VALIDATION, Sequence, read_sequence, render_sequence


def normalised(image_nchw: Tensor) -> Tensor:
    """uint8 [..., 3, S, S] as the network wants it: float, ImageNet mean and deviation."""
    mean_c11, std_c11 = (torch.tensor(v, device=image_nchw.device).reshape(3, 1, 1) for v in (MEAN, STD))
    return (image_nchw.float() / 255 - mean_c11) / std_c11


def follow(engine: Engine, seq: Sequence, policy: str, kind: str = "mask") -> dict[int, BoolMask]:
    """Masks bool [T, H, W] of every object, all followed together, from what its truth on the first frame prompts."""
    tracker = Tracker(engine, policy)
    ids = [i for i in seq.ids if i <= 2 and (seq.ids_thw[0] == i).any()]
    for i in ids:
        tracker.prompt(i, **first_prompt(seq.ids_thw[0] == i, kind))
    found = {i: np.zeros(seq.ids_thw.shape, bool) for i in ids}
    for t, image_hwc in enumerate(seq.image_thwc):
        masks = tracker.step(image_hwc)
        for i in ids:
            found[i][t] = masks.mask(i)
    return found


def first_prompt(truth_hw: BoolMask, kind: str) -> dict[str, Any]:
    """What a careful person would say: the `mask`, a `box` around it, or a `click` where it is thickest."""
    if kind == "mask":
        return {"mask": truth_hw}
    if kind == "box":
        x, y, width, height = cv2.boundingRect(truth_hw.astype(np.uint8))
        return {"box": (x, y, x + width, y + height)}
    depth_hw = cv2.distanceTransform(np.pad(truth_hw, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    thickest = divmod(int(np.argmax(depth_hw)), truth_hw.shape[1])
    return {"points": [(thickest[1], thickest[0], 1)]}


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
            masks = follow(engine, seq, policy)
            own = [mean_iou(mask_thw, seq.ids_thw == i) for i, mask_thw in masks.items()]
            report[seq.name] = round(float(np.mean(own)), 4)
            scores += own
        report[group] = round(float(np.mean(scores)), 4)
    return report
