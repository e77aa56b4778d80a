"""A finished result with known masks: objects that overlap, leave, have holes and pieces, and share a label."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtseg.base.mask_images import write_palette_png
from rtseg.base.types import BoolMask, Masks
from rtseg.publish.coco import CocoWriter

HEIGHT, WIDTH, COUNT, CUT = 47, 64, 12, 8
LABELS = {1: "grasper", 2: "grasper", 7: 'tissue "<&>" ß'}


def shapes(t: int) -> dict[int, BoolMask]:
    """The masks of frame t."""
    found = {id_: np.zeros((HEIGHT, WIDTH), np.uint8) for id_ in LABELS}
    cv2.circle(found[1], (12 + 3 * t, 20), 9, 1, -1)
    cv2.circle(found[1], (13 + 3 * t, 19), 3, 0, -1)  # a hole
    if t not in (4, 5, 11):
        cv2.line(found[2], (0, 5), (30, 20 + t), 1, 1)
        found[2][HEIGHT - 1, WIDTH - 1] = 1  # one pixel, in the last corner
    cv2.rectangle(found[7], (20, 10), (50, 46), 1, -1)
    found[7][12:40:4, 22:48:3] = 0  # many holes
    cv2.rectangle(found[7], (56, 3), (60, 8), 1, -1)  # a second piece
    if t == 9:
        found = {id_: np.zeros((HEIGHT, WIDTH), np.uint8) for id_ in LABELS}
    return {id_: mask.astype(np.bool_) for id_, mask in found.items()}


@dataclass(frozen=True)
class Known:
    """A result's folder and what it holds. `truth`: the masks by frame and object, without those that are empty."""

    folder: Path
    truth: dict[tuple[int, int], BoolMask]
    seconds: tuple[float, ...]


def build(
    folder: Path, frames: int = COUNT, shapes: Callable[[int], dict[int, BoolMask]] = shapes, **run: Any
) -> Known:
    """Write a result as `rtseg segment` does."""
    (folder / "masks").mkdir(parents=True)
    truth, seconds = {}, tuple(round(10 + 0.04 * t + 0.001 * (t % 3), 6) for t in range(frames))
    with CocoWriter(folder / "masks.json", {"description": "rtseg segment op.mp4"}) as coco:
        for t in range(frames):
            masks_hw = shapes(t)
            ids = tuple(sorted(masks_hw))
            logits_bhw = np.where(np.stack([masks_hw[id_] for id_ in ids]), 5, -5).astype(np.float32)
            scores = tuple(0.5 + 0.01 * id_ + 0.001 * t for id_ in ids)
            size = next(iter(masks_hw.values())).shape
            masks = Masks(t, "s", 0, 0, *size, ids, tuple(LABELS[i] for i in ids), scores, scores, logits_bhw)
            coco.add(masks, seconds[t], f"{t:05d}.jpg", f"masks/{t:05d}.png")
            write_palette_png(folder / "masks" / f"{t:05d}.png", masks.id_map())
            truth |= {(t, id_): masks.mask(id_) for id_ in ids if masks_hw[id_].any()}
            assert all((masks.mask(id_) == masks_hw[id_]).all() for id_ in ids)
    document = {"complete": True, "ended": "", "source": "/data/op.mp4", "cuts": [CUT], "versions": {"rtseg": "9.9"}}
    (folder / "run.json").write_text(json.dumps(document | run))
    return Known(folder, truth, seconds)


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> Known:
    return build(tmp_path_factory.mktemp("results") / "op")


def iou(a_hw: BoolMask, b_hw: BoolMask) -> float:
    return float((a_hw & b_hw).sum() / (a_hw | b_hw).sum())


def same_masks(found: dict[tuple[int, int], BoolMask], known: Known) -> bool:
    """Whether these are exactly the masks of the result; and not those of the next frame, or it could not fail."""
    assert found.keys() == known.truth.keys()
    later = {(t, id_): known.truth.get((t + 1, id_)) for t, id_ in found}
    assert any(mask is not None and (found[key] != mask).any() for key, mask in later.items())
    return all(np.array_equal(found[key].astype(np.bool_), mask) for key, mask in known.truth.items())
