"""Results as `rtseg segment` writes them, of scenes that a test makes up: boxes that move, without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rtseg.base.rle import encode_rle
from rtseg.publish.mp4_writer import Mp4Writer

WIDTH, HEIGHT, FPS = 160, 120, 25
Box = tuple[int, int, int, int]
Seen = tuple[Box, float]  # a mask that fills a box, and its score
Scene = Callable[[int], Mapping[int, Seen | None]]  # of each object on a frame; None where it is not visible
STILL: Box = (40, 30, 80, 70)


def still(frame: int) -> Mapping[int, Seen | None]:
    """One object that never moves."""
    return {1: (STILL, 0.95)}


def write_result(
    folder: Path, scene: Scene = still, count: int = 50, *, names: Mapping[int, str] | None = None,
    seconds: Callable[[int], float] = lambda frame: 3600 + frame / FPS, overlay: bool = True, iou: float | None = None,
    **run: Any,
) -> Path:  # fmt: skip
    """Write masks.json, run.json and overlay.mp4, in which the top left pixel's red tells the frame."""
    folder.mkdir(parents=True)
    names = names or {1: "grasper", 2: "hook", 3: "clip applier"}
    counts: dict[Box, str] = {}
    images, number, ids = [], 0, set[int]()
    with (folder / "masks.json").open("w") as file:
        file.write('{"info": {"description": "rtseg segment op.mp4"},\n"annotations": [')
        for frame in range(count):
            unseen = {}
            for id_, seen in sorted(scene(frame).items()):
                ids.add(id_)
                if seen is None:
                    unseen[str(id_)] = 0.02
                    continue
                number += 1
                file.write(
                    f"{',' if number > 1 else ''}\n{json.dumps(_annotation(number, frame, id_, seen, counts, iou))}"
                )
            images.append(json.dumps(_image(frame, seconds(frame), unseen)))
        categories = [
            {"id": id_, "name": names[id_], "label": names[id_], "supercategory": "object"} for id_ in sorted(ids)
        ]
        end = ",\n".join(images)
        file.write(f'],\n"images": [\n{end}],\n"categories": {json.dumps(categories)}}}\n')
    document = {
        "complete": True, "ended": "", "faults": [], "warnings": [], "source": "ward 3/op.mp4",
        "files": [{"uri": "ward 3/op.mp4", "path": "/data/ward 3/op.mp4"}], "engine": "nano cpu",
        "frames": {"in": count, "shown": count, "dropped": {}}, "cuts": [], "source_account": {"gaps": []},
        "sha256": {"weights": "ab" * 32}, "versions": {"rtseg": "9.9"},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(document | run))
    if overlay:
        write_overlay(folder / "overlay.mp4", count, lambda frame: seconds(frame) - seconds(0))
    return folder


def write_overlay(path: Path, frames: int, seconds: Callable[[int], float] = lambda frame: frame / FPS) -> None:
    """A video whose grey level tells the frame."""
    with Mp4Writer(path, WIDTH, HEIGHT, FPS) as video:
        for frame in range(frames):
            video.write(np.full((HEIGHT, WIDTH, 3), level(frame), np.uint8), seconds(frame))


def level(frame: int) -> int:
    """The grey level of a frame of `write_overlay`."""
    return 20 + 8 * frame % 200


def _image(frame: int, seconds: float, unseen: Mapping[str, float]) -> dict[str, Any]:
    image = {
        "id": frame, "file_name": f"{frame:05d}.jpg", "width": WIDTH, "height": HEIGHT, "seconds": round(seconds, 6),
        "mask_file": f"masks/{frame:05d}.png",
    }  # fmt: skip
    return image | ({"rtseg": {"unseen": dict(unseen)}} if unseen else {})


def _annotation(
    number: int, frame: int, id_: int, seen: Seen, counts: dict[Box, str], iou: float | None
) -> dict[str, Any]:
    (x0, y0, x1, y1), score = seen
    if seen[0] not in counts:
        mask_hw = np.zeros((HEIGHT, WIDTH), np.bool_)
        mask_hw[y0:y1, x0:x1] = True
        counts[seen[0]] = encode_rle(mask_hw).decode()
    entry = {
        "id": number, "image_id": frame, "category_id": id_, "track_id": id_,
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts[seen[0]]}, "area": (x1 - x0) * (y1 - y0),
        "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score, "iscrowd": 0,
    }  # fmt: skip
    return entry if iou is None else entry | {"iou": iou}
