"""`yolo`: segmentation labels in ultralytics' layout.

data.yaml                  the classes, and where images and labels are
labels/train/00000.txt     a line for each object: its class, then x y of its polygon, as shares of width and height
images/train/00000.jpg     the frames, as links to frames/, where the result has them
loss.json                  what the polygons lose
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np

from ...base.types import BoolMask
from .polygons import Loss, Points, center_rings, joined
from .segmented_video import SeenObject, SegmentedVideo

# Points are centres of pixels. Some readers cut what they scale back to pixels and others round it: with a quarter of a
# pixel added both come back to the same pixel.
SHIFT = 0.25
LEAST_POINTS = 3  # a line with fewer is read as a box


def write(video: SegmentedVideo, folder: Path) -> list[str]:
    """Write `data.yaml`, `labels/train/` and, where the result has frames, `images/train/`."""
    labels, images, frames = folder / "labels" / "train", folder / "images" / "train", video.folder / "frames"
    labels.mkdir(parents=True)
    images.mkdir(parents=True)
    number = {each.id: video.classes.index(each.label) for each in video.objects}
    loss, linked = Loss(), 0
    for frame in video.frames():
        lines = [
            f"{number[each.id]}{_polygon(each, loss, f'frame {frame.seq}, object {each.id}')}" for each in frame.seen
        ]
        name = Path(frame.file_name)
        (labels / f"{name.stem}.txt").write_text("".join(f"{line}\n" for line in lines), "ascii")
        if (frames / name.name).is_file():
            _link(frames / name.name, images / name.name)
            linked += 1
    (folder / "loss.json").write_text(json.dumps(loss.plain(), indent=2) + "\n", "utf-8")
    (folder / "data.yaml").write_text(_yaml(video), "utf-8")
    missing = "" if linked == video.count else f"{video.count - linked} images are not here; put them into images/train"
    return [
        loss.line(),
        *([f"{missing}, named as the labels are (rtseg segment --frames writes them)"] if missing else []),
    ]


def _polygon(seen: SeenObject, loss: Loss, where: str) -> str:
    crop_hw = seen.crop()
    rings = center_rings(crop_hw)
    line = joined(rings)
    loss.add(crop_hw, _filled(line, crop_hw.shape), len(rings), where)
    while len(line) < LEAST_POINTS:
        line = np.concatenate([line, line[-1:]])
    shares = (line + np.array(seen.box[:2]) + SHIFT) / np.array([seen.width, seen.height])
    return "".join(f" {x:.5f} {y:.5f}" for x, y in shares.tolist())


def _filled(line: Points, shape: tuple[int, ...]) -> BoolMask:
    """A polygon as ultralytics and supervision fill it."""
    filled_hw = np.zeros(shape, np.uint8)
    cv2.fillPoly(filled_hw, [line.astype(np.int32)], 1)
    return filled_hw.astype(np.bool_)


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no such links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _yaml(video: SegmentedVideo) -> str:
    names = "".join(f"  {i}: {json.dumps(name, ensure_ascii=False)}\n" for i, name in enumerate(video.classes))
    return (
        f"# {video.count} frames of one recording. They look alike: train and val of one recording measure nothing.\n"
        "# Join several recordings, and give some of them to val.\n"
        "path: .\ntrain: images/train\nval: images/train\n"
        f"names:\n{names}"
    )
