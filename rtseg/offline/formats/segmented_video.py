"""A finished result as values: its objects, and its frames one by one, read from `run.json` and `masks.json`.

masks.json of two hours has half a gigabyte, and its images come after its annotations. So it is read as the lines that
`CocoWriter` wrote, one for each annotation and image, at two places of the file at once; only one frame is in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...base.documents import read_json
from ...base.errors import ConfigError, OutputError
from ...base.rle import rle_runs
from ...base.types import BoolMask
from .runs import Runs, cropped, moments

RUN, MASKS = "run.json", "masks.json"
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class TrackedObject:
    """An object of a result. `name` is unique; `label` is its class, which it may share with others."""

    id: int
    name: str
    label: str


@dataclass(frozen=True, slots=True)
class SeenObject:
    """An object on a frame where it is visible.

    `counts`: COCO's compressed RLE of its mask; `box`: x0, y0, x1, y1, the end excluded; `area` in pixels; `iou`: the
    network's own estimate of the mask's IoU, None in results of earlier versions.
    """

    id: int
    counts: bytes
    box: Box
    area: int
    score: float
    iou: float | None
    height: int
    width: int

    def runs(self) -> Runs:
        """The run lengths of the mask, column by column; `OutputError` if they are damaged."""
        return rle_runs(self.counts, self.height, self.width)

    def crop(self) -> BoolMask:
        """The mask inside the box, bool [y1 - y0, x1 - x0]."""
        return cropped(self.runs(), self.height, self.box)

    def mask(self) -> BoolMask:
        """The whole mask, bool [H, W]."""
        mask_hw = np.zeros((self.height, self.width), np.bool_)
        x0, y0, x1, y1 = self.box
        mask_hw[y0:y1, x0:x1] = self.crop()
        return mask_hw

    def centroid(self) -> tuple[float, float]:
        """The mean x and y of the mask's pixels; the centre of pixel (0, 0) is at 0, 0."""
        return moments(self.runs(), self.height)


@dataclass(frozen=True, slots=True)
class SegmentedFrame:
    """A frame of a result.

    `index` counts the frames of the result from 0, `seq` is the frame's number in its source, `seconds` its time there;
    `unseen`: by id, the score of each object without pixels.
    """

    index: int
    seq: int
    seconds: float
    file_name: str
    mask_file: str
    seen: tuple[SeenObject, ...]
    unseen: dict[int, float]


@dataclass(slots=True)
class SegmentedVideo:
    """A result: its objects by ascending id, its size, the number of its frames; `run` is its run.json."""

    folder: Path
    run: dict[str, Any]
    objects: tuple[TrackedObject, ...]
    height: int
    width: int
    count: int
    places: tuple[int, int] = field(repr=False)  # the first annotation's and the first image's place in the file
    progress: Callable[[int, int | None], None] = lambda done, total: None

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels of the objects, each once, in the order of the ids."""
        return tuple(dict.fromkeys(each.label for each in self.objects))

    @property
    def source(self) -> str:
        """The name of the recording: its file's name without folders; of several, the first."""
        source = self.run.get("source", "")
        first = source[0] if isinstance(source, list) and source else source
        return Path(str(first)).name or "recording"

    @property
    def cuts(self) -> frozenset[int]:
        """The numbers of the frames with which another scene begins."""
        return frozenset(self.run.get("cuts") or ())

    def frames(self) -> Iterator[SegmentedFrame]:
        """Every frame, in order. Raises `OutputError` if masks.json is damaged."""
        path = self.folder / MASKS
        with path.open("rb") as first, path.open("rb") as second:
            try:
                yield from self._joined(_rows(first, self.places[0]), _rows(second, self.places[1]))
            except (ValueError, KeyError, TypeError, AttributeError) as e:
                raise _damaged(path, f"{type(e).__name__}: {e}") from e

    def _joined(
        self, annotations: Iterator[dict[str, Any]], images: Iterator[dict[str, Any]]
    ) -> Iterator[SegmentedFrame]:
        following = next(annotations, None)
        for index, image in enumerate(images):
            if (image["height"], image["width"]) != (self.height, self.width):
                raise ValueError(f"image {image['id']} has another size than the first")
            unseen = {int(key): float(score) for key, score in image.get("rtseg", {}).get("unseen", {}).items()}
            seen = []
            while following is not None and following["image_id"] == image["id"]:
                if following["area"]:
                    seen.append(_seen(following))
                else:  # earlier versions wrote these
                    unseen[following["track_id"]] = float(following["score"])
                following = next(annotations, None)
            name = image["file_name"]
            if "mask_file" not in image:  # earlier versions named the mask's file instead of the picture's
                image["mask_file"], name = name, f"{Path(name).stem}.jpg"
            yield SegmentedFrame(
                index, image["id"], float(image["seconds"]), name, image["mask_file"],
                tuple(seen), unseen,
            )  # fmt: skip
            self.progress(index + 1, self.count)
        if following is not None:
            raise ValueError(f"annotation {following['id']} is not in the order of the images")


def open_result(folder: Path, incomplete: bool = False) -> SegmentedVideo:
    """Open the folder that `rtseg segment` wrote.

    `incomplete`: also one whose run ended early. Raises `ConfigError` if it is none, or incomplete, or has no frames.
    """
    expected = "expected the folder that rtseg segment wrote"
    if not (folder / RUN).is_file() or not (folder / MASKS).is_file():
        found = "no such folder" if not folder.is_dir() else f"there is no {MASKS} with a {RUN} in it"
        raise ConfigError(f"{folder}: {found}; {expected}")
    run = read_json(folder / RUN, expected, ConfigError)
    if not isinstance(run, dict):
        raise ConfigError(f"{folder / RUN}: not a map; {expected}")
    if run.get("complete", True) is not True and not incomplete:  # earlier versions wrote complete results only
        why = " ".join(str(run.get("ended") or "the run did not finish").split())
        raise ConfigError(f"{folder}: is incomplete ({why}); to take the frames that are whole, add --incomplete")
    try:
        categories, count, first, places = _survey(folder / MASKS)
        objects = [
            TrackedObject(each["id"], each["name"], each.get("label", each["name"]) or "object") for each in categories
        ]
        height, width = int(first["height"]), int(first["width"])
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ConfigError(str(_damaged(folder / MASKS, f"{type(e).__name__}: {e}"))) from e
    objects.sort(key=lambda each: each.id)
    return SegmentedVideo(folder, run, tuple(objects), height, width, count, places)


def _survey(path: Path) -> tuple[list[dict[str, Any]], int, dict[str, Any], tuple[int, int]]:
    """The categories, the number of images, the first of them, and where annotations and images begin in the file."""
    places: dict[bytes, int] = {}
    count, first, categories, place = 0, None, None, 0
    with path.open("rb") as file:
        for line in file:
            place += len(line)
            if line.startswith(b"{"):
                if b"images" in places:
                    first = first or _parsed(line)
                    count += 1
            elif line.startswith((b'"annotations": [', b'"images": [')):
                places[line.split(b'"')[1]] = place
            elif line.startswith(b'"categories": '):
                categories = json.loads(b"{" + line)["categories"]
    if categories is None or first is None:
        raise ValueError("it ends early" if categories is None else "it has no frame")
    return categories, count, first, (places[b"annotations"], places[b"images"])


def _rows(file: BinaryIO, place: int) -> Iterator[dict[str, Any]]:
    """The objects of an array, which begins with the line at `place`, until a line that begins with none."""
    file.seek(place)
    for line in file:
        if not line.startswith(b"{"):
            return
        yield _parsed(line)


def _parsed(line: bytes) -> dict[str, Any]:
    """The object on a line: `{...},`, or `{...}],` at the end of an array."""
    found = json.loads(line.rstrip(b"\r\n\t ,]"))
    if not isinstance(found, dict):
        raise ValueError("a line is no object")
    return found


def _seen(entry: dict[str, Any]) -> SeenObject:
    x, y, width, height = (int(value) for value in entry["bbox"])
    rows, columns = entry["segmentation"]["size"]
    iou = entry.get("iou")
    return SeenObject(
        entry["track_id"], entry["segmentation"]["counts"].encode("ascii"), (x, y, x + width, y + height),
        int(entry["area"]), float(entry["score"]), None if iou is None else float(iou), rows, columns,
    )  # fmt: skip


def _damaged(path: Path, why: str) -> OutputError:
    return OutputError(f"{path}: not as rtseg segment writes it ({why}); copy it again, or segment again")
