"""`coco-video`: the JSON of YouTube-VIS, which detectron2, MMTracking, Mask2Former and others train from.

`instances.json` has one video, and an annotation for each object: `segmentations`, `bboxes` and `areas` are lists with
an entry for each frame, null where the object is not seen. Objects of one label are annotations of one category.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, BinaryIO

from .segmented_video import SegmentedVideo, TrackedObject
from .spool import Spool, spool

LISTS = ("segmentations", "bboxes", "areas")


def write(video: SegmentedVideo, folder: Path) -> list[str]:
    """Write `instances.json`."""
    scores: dict[int, list[float]] = {each.id: [0.0, 0.0] for each in video.objects}  # sum, number
    with spool(folder) as texts, (folder / "instances.json").open("wb") as out:
        for frame in video.frames():
            comma = "," if frame.index else ""
            texts.add(f"{comma}{json.dumps(frame.file_name)}", "names")
            found = {each.id: each for each in frame.seen}
            for each in video.objects:
                seen = found.get(each.id)
                entries: tuple[Any, ...] = (None, None, None)
                if seen:
                    rle = {"size": [video.height, video.width], "counts": seen.counts.decode("ascii")}
                    x0, y0, x1, y1 = seen.box
                    entries = rle, [x0, y0, x1 - x0, y1 - y0], seen.area
                    scores[each.id][0] += seen.score
                    scores[each.id][1] += 1
                for name, entry in zip(LISTS, entries, strict=True):
                    texts.add(f"{comma}{json.dumps(entry)}", name, each.id)
        _join(video, texts, out, scores)
    return []


def _join(video: SegmentedVideo, texts: Spool, out: BinaryIO, scores: dict[int, list[float]]) -> None:
    size = {"width": video.width, "height": video.height}
    about = {
        "description": f"rtseg segment {video.source}",
        "version": str(video.run.get("versions", {}).get("rtseg", "")),
    }
    head = {"id": 1, **size, "length": video.count, "name": video.source}
    out.write(f'{{"info": {json.dumps(about)},\n"videos": [{json.dumps(head)[:-1]}, "file_names": ['.encode())
    texts.copy(out, "names")
    out.write(b']}],\n"annotations": [')
    for i, each in enumerate(video.objects):
        out.write(f"{',' if i else ''}\n{json.dumps(_about(video, each, scores[each.id]) | size)[:-1]}".encode())
        for name in LISTS:
            out.write(f', "{name}": ['.encode())
            texts.copy(out, name, each.id)
            out.write(b"]")
        out.write(b"}")
    classes = [{"id": i, "name": name, "supercategory": "object"} for i, name in enumerate(video.classes, 1)]
    out.write(f'],\n"categories": {json.dumps(classes)}}}\n'.encode())


def _about(video: SegmentedVideo, each: TrackedObject, scores: list[float]) -> dict[str, Any]:
    mean = round(scores[0] / scores[1], 6) if scores[1] else 0.0
    return {
        "id": each.id, "video_id": 1, "category_id": video.classes.index(each.label) + 1, "iscrowd": 0, "length": 1,
        "score": mean,
    }  # fmt: skip
