"""The JSON of masks: valid, read back by pycocotools' own reader as the same masks, and written as frames come."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from rtseg.publish.coco import CocoWriter
from rtseg.types import Masks


def make_masks(seq: int, *boxes: tuple[int, int, int, int]) -> Masks:
    logits_bhw = np.full((len(boxes), 24, 32), -5.0, np.float32)
    for logits_hw, (x0, y0, x1, y1) in zip(logits_bhw, boxes, strict=True):
        logits_hw[y0:y1, x0:x1] = 5
    ids = tuple(range(1, len(boxes) + 1))
    labels = tuple("grasper" if i == 1 else "" for i in ids)
    return Masks(seq, "s", 0, 0, 24, 32, ids, labels, (0.75,) * len(ids), (0.5,) * len(ids), logits_bhw)


def test_pycocotools_reads_the_same_masks(tmp_path: Path) -> None:
    frames = [make_masks(0), make_masks(1, (3, 4, 10, 12)), make_masks(2, (4, 4, 11, 12), (0, 0, 0, 0))]
    path = tmp_path / "masks.json"
    with CocoWriter(path, {"description": "test"}) as writer:
        for masks in frames:
            writer.add(masks, masks.seq / 25, f"{masks.seq:05d}.png")
    coco = COCO(str(path))
    assert coco.getImgIds() == [0, 1, 2]
    assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == {1: "grasper", 2: "object 2"}
    assert coco.getAnnIds(imgIds=[0]) == []
    for masks in frames:
        for entry in coco.loadAnns(coco.getAnnIds(imgIds=[masks.seq])):
            mask_hw = masks.mask(entry["track_id"])
            assert np.array_equal(coco.annToMask(entry).astype(bool), mask_hw)
            assert entry["area"] == mask_hw.sum()
            assert (entry["score"], entry["category_id"]) == (0.75, entry["track_id"])
    (first,) = coco.loadAnns(coco.getAnnIds(imgIds=[1]))
    assert first["bbox"] == [3, 4, 7, 8]
    assert not np.array_equal(coco.annToMask(first).astype(bool), frames[2].mask(1))


def test_memory_does_not_hold_masks_and_a_failure_leaves_no_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "masks.json"
    with pytest.raises(ValueError, match="stop"), CocoWriter(path, {}) as writer:
        writer.add(make_masks(0, (3, 4, 10, 12)), 0.0, "00000.png")
        raise ValueError("stop")
    with pytest.raises(json.JSONDecodeError):
        json.loads(path.read_text())
