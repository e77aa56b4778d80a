"""Masks of a whole video as one COCO-style JSON file, written frame by frame, in constant memory.

    images       one for each frame: `file_name` of its picture, `mask_file` of its mask, `seconds`: its timestamp in
                 the source; `rtseg.unseen`: by id, the score of each object without pixels on this frame
    annotations  one for each object with pixels on a frame. `track_id` is the object's id, and so is `category_id`,
                 because each tracked object is its own category. `iou`: the network's own estimate of the mask's IoU
    categories   the objects, each with a unique name; `label` is the one that it was given, which others may share

An object without pixels has no annotation: evaluation and training code would read an empty one as an object.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..base.errors import OutputError
from ..base.files import unwritable
from ..base.rle import encode_rle
from ..base.types import BoolMask, Masks
from .event_log import write_all_or_nothing
from .mask_state import ObjectSummary, measure

_BLOCK = 1 << 20


class CocoWriter:
    """Writes `path` frame by frame; a context manager. The file is valid JSON only once it is closed.

    A frame that does not fit on the disk is removed again, so that the file can be closed with the frames before it.
    """

    def __init__(self, path: Path, info: dict[str, Any], begun: dict[str, Any] | None = None) -> None:
        """Begin the file, or go on with the one whose `state` was `begun`, without what came later.

        Raises `OutputError` if it cannot be written, or is not what it was then.
        """
        self.path = path
        if begun is not None:
            self._go_on(begun)
            return
        # The images come last in the file. Until then they are in a second file, so that their disk space is reserved.
        self._main, self._rows = _TextFile(path, path), _TextFile(path.with_name(f".{path.name}.images"), path)
        self._labels: dict[int, str] = {}
        self._images = self._count = 0
        self._open = True
        self._main.append(f'{{"info": {json.dumps(info)},\n"annotations": [')

    def _go_on(self, begun: dict[str, Any]) -> None:
        rows = self.path.with_name(f".{self.path.name}.images")
        self._main, self._rows = (
            _TextFile(path, self.path, begun[name]) for path, name in ((self.path, "main"), (rows, "rows"))
        )
        self._labels = {int(id_): label for id_, label in begun["labels"].items()}
        self._images, self._count, self._open = begun["images"], begun["count"], True

    def state(self) -> dict[str, Any]:
        """What it takes to go on from here, as plain values, once everything so far is on the disk."""
        return {
            "main": self._main.state(),
            "rows": self._rows.state(),
            "labels": {str(id_): label for id_, label in self._labels.items()},
            "images": self._images,
            "count": self._count,
        }

    def images(self) -> list[dict[str, Any]]:
        """The images so far."""
        found: list[dict[str, Any]] = json.loads(f"[{self._rows.read()}]")
        return found

    def add(self, masks: Masks, seconds: float, file_name: str, mask_file: str) -> None:
        """Add one image, and an annotation for each object with pixels on it; with an `OutputError`, nothing is added.

        `file_name`: of the frame's picture; `mask_file`: the path of its mask, relative to this file.
        """
        seen: list[dict[str, Any]] = []
        unseen: dict[str, float] = {}
        for object_id, iou in zip(masks.ids, masks.ious, strict=True):
            self._labels[object_id] = masks.label(object_id)
            mask_hw, found = measure(masks, object_id)
            if found.area:
                seen.append(_annotation(self._count + len(seen) + 1, masks.seq, mask_hw, found, iou))
            else:
                unseen[str(object_id)] = round(found.score, 6)
        image = {
            "id": masks.seq,
            "file_name": file_name,
            "width": masks.width,
            "height": masks.height,
            "seconds": round(seconds, 6),
            "mask_file": mask_file,
        }
        row = json.dumps(image | ({"rtseg": {"unseen": unseen}} if unseen else {}))
        before = self._rows.size
        self._rows.append(f",\n{row}" if self._images else f"\n{row}")
        try:
            self._main.append("".join(f"{',' if entry['id'] > 1 else ''}\n{json.dumps(entry)}" for entry in seen))
        except OutputError:
            self._rows.truncate(before)
            raise
        self._count, self._images = self._count + len(seen), self._images + 1

    def _categories(self) -> list[dict[str, Any]]:
        """Every object with a unique name, because some readers tell categories by name: equal labels get their ids."""
        names = {id_: label or f"object {id_}" for id_, label in self._labels.items()}
        uses = Counter(names.values())
        named: dict[str, int] = {}
        for id_, name in sorted(names.items()):
            own = name if uses[name] == 1 else f"{name} {id_}"
            while own in named or (own != name and own in uses):
                own += "_"
            named[own] = id_
        return [
            {"id": id_, "name": name, "supercategory": "object", "label": self._labels[id_]}
            for name, id_ in named.items()
        ]

    def close(self, keep: bool = False) -> None:
        """Finish the file with the frames added so far; `OutputError` if that fails. May be called again.

        `keep`: leave what it takes to go on from an earlier `state`.
        """
        if not self._open:
            return
        self._open = False
        with self._main, self._rows:
            images = self._rows.read() if keep else self._rows.read_and_delete()
            end = f'],\n"images": [{images}],\n"categories": {json.dumps(self._categories())}}}\n'
            self._main.append(end)

    def abort(self) -> None:
        """Close the file as it is: not valid JSON."""
        self._open = False
        self._main.close()
        self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()


def _annotation(number: int, image: int, mask_hw: BoolMask, seen: ObjectSummary, iou: float) -> dict[str, Any]:
    x0, y0, x1, y1 = seen.box
    return {
        "id": number,
        "image_id": image,
        "category_id": seen.id,
        "track_id": seen.id,
        "segmentation": {"size": list(mask_hw.shape), "counts": encode_rle(mask_hw).decode("ascii")},
        "area": seen.area,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "score": round(seen.score, 6),
        "iou": round(iou, 6),
        "iscrowd": 0,
    }


class _TextFile:
    """A file for appending text. A text that does not fit is not written at all, and raises `OutputError`."""

    def __init__(self, path: Path, final: Path, begun: dict[str, Any] | None = None) -> None:
        """`begun`: the `state` of an earlier file, to go on from there."""
        self._path, self._final, self.size = path, final, 0
        self._digest, self._hashed = sha256(), 0
        try:
            self._file = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_TRUNC if begun is None else 0), 0o666)
            if begun is not None:
                self.size = begun["bytes"]
                os.ftruncate(self._file, self.size)
                if self._hash() != begun["sha256"]:
                    raise OutputError(f"{final}: is not what it was; begin again with --force")
        except OSError as e:
            raise unwritable(final, e) from e

    def state(self) -> dict[str, Any]:
        """The size and the hash of the text, once it is on the disk."""
        try:
            os.fsync(self._file)
            return {"bytes": self.size, "sha256": self._hash()}
        except OSError as e:
            raise unwritable(self._final, e) from e

    def _hash(self) -> str:
        while self._hashed < self.size:
            block = os.pread(self._file, min(_BLOCK, self.size - self._hashed), self._hashed)
            if not block:
                break
            self._digest.update(block)
            self._hashed += len(block)
        return self._digest.hexdigest()

    def append(self, text: str) -> None:
        data = text.encode("ascii")
        try:
            write_all_or_nothing(self._file, data, self.size)
        except OSError as e:
            raise unwritable(self._final, e) from e
        self.size += len(data)

    def truncate(self, size: int) -> None:
        with suppress(OSError):
            os.ftruncate(self._file, size)
        self.size = size

    def read(self) -> str:
        """The whole text."""
        try:
            return self._path.read_text("ascii")
        except OSError as e:
            raise unwritable(self._final, e) from e

    def read_and_delete(self) -> str:
        """Return the whole text, and delete the file, which frees its disk space."""
        text = self.read()
        try:
            self._path.unlink()
        except OSError as e:
            raise unwritable(self._final, e) from e
        self.close()
        return text

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
