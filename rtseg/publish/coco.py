"""Masks of a whole video as one COCO-style JSON file, written frame by frame: memory does not grow with masks.

There is one annotation for each object on each frame since its first prompt, also where nothing of it is seen (its
`area` is then 0, and its `score` says how sure that is). `track_id` is the object's id; so is `category_id`, because
every tracked object is a class of its own here.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..types import Masks
from .rle import encode_rle
from .shown import measure


class CocoWriter:
    """Writes `path` as frames come; used as a context. The file is valid JSON only after a clean exit."""

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self._file = path.open("w", encoding="ascii")
        self._file.write(f'{{"info": {json.dumps(info)},\n"annotations": [')
        self._images: list[dict[str, Any]] = []
        self._names: dict[int, str] = {}
        self._count = 0

    def add(self, masks: Masks, seconds: float, file_name: str) -> None:
        """One image, and an annotation for each object on it."""
        image = {"id": masks.seq, "file_name": file_name, "width": masks.width, "height": masks.height}
        self._images.append({**image, "seconds": round(seconds, 6)})
        for object_id in masks.ids:
            self._names[object_id] = masks.label(object_id) or f"object {object_id}"
            self._annotate(masks, object_id)

    def _annotate(self, masks: Masks, object_id: int) -> None:
        mask_hw, seen = measure(masks, object_id)
        x0, y0, x1, y1 = seen.box
        self._count += 1
        entry = {
            "id": self._count,
            "image_id": masks.seq,
            "category_id": object_id,
            "track_id": object_id,
            "segmentation": {"size": [masks.height, masks.width], "counts": encode_rle(mask_hw).decode("ascii")},
            "area": seen.area,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "score": round(seen.score, 6),
            "iscrowd": 0,
        }
        self._file.write(f"{',' if self._count > 1 else ''}\n{json.dumps(entry)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                names = [{"id": id_, "name": name} for id_, name in sorted(self._names.items())]
                self._file.write(f'],\n"images": {json.dumps(self._images)},\n"categories": {json.dumps(names)}}}\n')
