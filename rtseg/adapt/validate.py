"""How well a network follows what it was shown once, on sequences that training never sees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ..sam2 import MEAN, STD, Features, Sam2
from .data import HELD_OUT_SEED, VALIDATION, Sequence, read_sequence, render_sequence
from .rollout import FirstFrame, Recollect, fifo, rollout


def normalised(image_nchw: Tensor) -> Tensor:
    """uint8 [..., 3, S, S] as the network wants it: float, ImageNet mean and deviation."""
    mean_c11, std_c11 = (torch.tensor(v, device=image_nchw.device).reshape(3, 1, 1) for v in (MEAN, STD))
    return (image_nchw.float() / 255 - mean_c11) / std_c11


def follow(net: Sam2, seq: Sequence, object_id: int, recollect: Recollect = fifo) -> np.ndarray:
    """Mask of one object on every frame, bool [T, H, W], from its true mask on the first frame."""
    size, (height, width) = net.image_size, seq.ids_thw.shape[1:]

    def features() -> Iterator[Features]:
        for image_hwc in seq.image_thwc:
            small_hwc = cv2.resize(image_hwc, (size, size), interpolation=cv2.INTER_AREA)
            yield net.encode_image(normalised(torch.from_numpy(small_hwc).permute(2, 0, 1)[None]))

    first_hw = (seq.ids_thw[0] == object_id).astype(np.float32)
    mask_hw = cv2.resize(first_hw, (size, size), interpolation=cv2.INTER_AREA) > 0.5
    first = FirstFrame(mask_b1hw=torch.from_numpy(mask_hw)[None, None].float())
    with torch.inference_mode():
        frames = rollout(net, features(), range(len(seq.image_thwc)), first, recollect)
        return np.stack([cv2.resize(f.logits_b1hw[0, 0].float().numpy(), (width, height)) > 0 for f in frames])


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


def validate(net: Sam2, groups: dict[str, list[Sequence]], recollect: Recollect = fifo) -> dict[str, float]:
    """Mean IoU per sequence and, under the group's own name, over its objects. Leaves the network in eval mode."""
    net.eval()
    report: dict[str, float] = {}
    for group, found in groups.items():
        scores = []
        for seq in found:
            ids = [i for i in seq.ids if i <= 2 and (seq.ids_thw[0] == i).any()]
            own = [mean_iou(follow(net, seq, i, recollect), seq.ids_thw == i) for i in ids]
            report[seq.name] = round(float(np.mean(own)), 4)
            scores += own
        report[group] = round(float(np.mean(scores)), 4)
    return report
