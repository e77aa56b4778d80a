"""The JSON of masks: valid, read back by pycocotools' own reader as the same masks, and written as frames come."""

from __future__ import annotations

import errno
import io
import json
import os
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rtseg.base.errors import OutputError
from rtseg.base.rle import encode_rle
from rtseg.base.types import Masks
from rtseg.publish import coco as coco_module
from rtseg.publish.coco import CocoWriter


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
            writer.add(masks, masks.seq / 25, f"{masks.seq:05d}.jpg", f"masks/{masks.seq:05d}.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["masks.json"]
    coco = COCO(str(path))
    assert coco.getImgIds() == [0, 1, 2]
    assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == {1: "grasper", 2: "object 2"}
    assert coco.getAnnIds(imgIds=[0]) == []
    (blank,) = coco.loadImgs([2])
    assert blank["rtseg"] == {"unseen": {"2": 0.75}}  # an object of which nothing is seen: its score, no annotation
    assert [len(coco.getAnnIds(imgIds=[i])) for i in range(3)] == [0, 1, 1]
    assert "rtseg" not in coco.loadImgs([1])[0]
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
        writer.add(make_masks(0, (3, 4, 10, 12)), 0.0, "00000.jpg", "masks/00000.png")
        raise ValueError("stop")
    with pytest.raises(json.JSONDecodeError):
        json.loads(path.read_text())


def score(path: Path, kind: str, results: list[dict[str, Any]]) -> list[float]:
    """COCO's twelve figures of annotations against a file; -1 where there is nothing to judge."""
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        judge = COCOeval(truth, truth.loadRes(results), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [float(value) for value in judge.stats]


def test_a_file_against_itself_is_perfect(tmp_path: Path) -> None:
    """Also where objects come, go and are never seen, and where two have one label."""
    path = tmp_path / "masks.json"
    nothing = (0, 0, 0, 0)
    with CocoWriter(path, {}) as writer:
        for seq in range(6):
            second, third = (1, 1, 20, 20) if seq % 2 else nothing, (8, 8, 12, 12)
            masks = make_masks(seq, (3, 4, 10 + seq, 12), second, third, nothing)
            writer.add(replace(masks, labels=("tool", "tool", "tool 2", "clip")), seq / 25, f"{seq}.jpg", f"{seq}.png")
    written = json.loads(path.read_text())
    assert all(entry["area"] and entry["bbox"][2:] > [0, 0] for entry in written["annotations"])
    names = [entry["name"] for entry in written["categories"]]
    assert len(set(names)) == 4 and names[3] == "clip"
    for kind in ("segm", "bbox"):
        figures = score(path, kind, written["annotations"])
        assert figures[0] == figures[1] == figures[2] == 1.0
        assert all(figure in (1.0, -1.0) for figure in figures)
    empty = {**written["annotations"][0], "image_id": 0, "category_id": 2, "id": 99, "area": 0, "bbox": [0, 0, 0, 0]}
    empty["segmentation"] = {"size": [24, 32], "counts": encode_rle(np.zeros((24, 32), bool)).decode()}
    assert score(path, "segm", [*written["annotations"][:-1], empty])[0] < 1.0  # the control


def test_a_frame_that_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "masks.json"
    original, room = coco_module.write_all_or_nothing, [6]

    def full(file: int, data: bytes, start: int) -> None:
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(file, data, start)

    monkeypatch.setattr(coco_module, "write_all_or_nothing", full)
    writer = CocoWriter(path, {})
    for seq in range(2):
        writer.add(make_masks(seq, (3, 4, 10, 12)), 0.0, f"{seq}.jpg", f"{seq}.png")
    with pytest.raises(OutputError, match=r"masks\.json: cannot be written \(no space left"):
        writer.add(make_masks(2, (3, 4, 10, 12)), 0.0, "2.jpg", "2.png")
    room[0] = 1  # as where something was kept free for it
    writer.close()
    written = json.loads(path.read_text())
    assert ([i["id"] for i in written["images"]], [a["image_id"] for a in written["annotations"]]) == ([0, 1], [0, 1])
