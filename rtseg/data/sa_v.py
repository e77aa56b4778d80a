"""SA-V (Ravi et al., arXiv 2408.00714), the videos that SAM 2 is trained and evaluated on, in its two forms.

    sav_000001.mp4 (or sav_000001/00000.jpg), sav_000001_manual.json, sav_000001_auto.json        train
    JPEGImages_24fps/VIDEO/00000.jpg, Annotations_6fps/VIDEO/000/00000.png                        val and test

as github.com/facebookresearch/sam2, sav_dataset/README.md, defines them. In the JSON, `masklet[i][k]` is the mask of
object `masklet_id[k]` in COCO's RLE, {"size": [h, w], "counts": "..."}, on frame 4 * i: videos have 24 frames per
second, six of which are annotated. `counts` may also be a list of runs, COCO's uncompressed form. Masks drawn by people
(`manual`) are the ground truth; `auto` is read only if there is no `manual`. An object that is not visible has an empty
mask, also before it first appears. The released files hold no null instead of a mask. SAM 2's own loader
(training/dataset) treats null as a missing annotation, not as an invisible object. So the object is not scored on that
frame, and a frame with only nulls is not annotated. In val and test, each object has a folder of binary PNGs, because
objects overlap; sav_evaluator.py scores an object on the frames in its own folder.

Masklet 0, and the folder 000, is object 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import OutputError, SourceError
from ..base.prompt_schema import MAX_ID
from ..base.rle import decode_rle
from ..base.types import BoolMask, ImageU8
from .dataset import Sequence, Target, Truth
from .files import MAPS, PICTURES, files, folders, match_maps, picture_size, read_image, read_json
from .frame_reader import FrameReader, frame_size
from .id_maps import read_binary
from .lazy_sequence import LazySequence, Listing

EXPECTED = "sav_000001.mp4 with sav_000001_manual.json, or JPEGImages_24fps/ with Annotations_6fps/"
KINDS = ("_manual.json", "_auto.json")
KEYS = ("video_frame_count", "masklet", "masklet_id")
STRIDE = 4  # frames between annotations


def matches(path: Path) -> bool:
    return (path / "JPEGImages_24fps").is_dir() or bool(files(path, KINDS))


def read(path: Path) -> Listing:
    """List every annotated video. Raises `SourceError` if a file is not as expected."""
    if (path / "JPEGImages_24fps").is_dir():
        videos = folders(path / "Annotations_6fps")
        return Listing(tuple(_folder_sequence(path / "JPEGImages_24fps" / video.name, video) for video in videos))
    annotated = {file.name.removesuffix(kind): file for kind in reversed(KINDS) for file in files(path, (kind,))}
    reader, load = FrameReader(), lru_cache(maxsize=1)(lambda file: read_json(file, dict))
    return Listing(
        tuple(_json_sequence(name, Masklets(file, load), reader) for name, file in sorted(annotated.items()))
    )


def _folder_sequence(frames: Path, objects: Path) -> Sequence:
    pictures = files(frames, PICTURES)
    if not pictures:
        raise SourceError(f"{frames}: holds no images; expected the frames that {objects} annotates")
    maps = {_object(folder): match_maps(pictures, files(folder, MAPS)) for folder in folders(objects)}

    def truth(t: int) -> Truth | None:
        drawn = {i: read_binary(by_frame[t], pictures[t]) for i, by_frame in maps.items() if t in by_frame}
        return {i: mask_hw for i, mask_hw in drawn.items() if mask_hw.any()} if drawn else None

    def unknown(t: int) -> frozenset[int]:
        return frozenset(i for i, by_frame in maps.items() if t not in by_frame)

    targets = tuple(Target(i, f"object {i}") for i in sorted(maps))
    return LazySequence(objects.name, len(pictures), targets, lambda t: read_image(pictures[t]), truth, unknown=unknown)


def _object(folder: Path) -> int:
    if not folder.name.isdecimal() or int(folder.name) >= MAX_ID:
        raise SourceError(f"{folder}: expected a folder for each object, 000 to {MAX_ID - 1}")
    return int(folder.name) + 1


def _json_sequence(name: str, masklets: Masklets, reader: FrameReader) -> Sequence:
    video, pictures = masklets.file.with_name(f"{name}.mp4"), files(masklets.file.with_name(name), PICTURES)
    if not pictures and not video.is_file():
        raise SourceError(f"{masklets.file}: {video.name} and {name}/00000.jpg are missing; expected one of them")

    def image(t: int) -> ImageU8:
        return read_image(pictures[t]) if pictures else reader.image(video, t)

    @lru_cache(maxsize=1)
    def size() -> tuple[int, int]:
        return picture_size(pictures[0]) if pictures else frame_size(video)

    count = len(pictures) if pictures else lambda: masklets.count
    return LazySequence(
        name, count, masklets.targets, image, lambda t: masklets.truth(t, size()), unknown=masklets.unknown
    )


class Masklets:
    """One masklet file; `load` reads it, and caches the latest one."""

    def __init__(self, file: Path, load: Callable[[Path], Any]) -> None:
        self.file, self._load = file, load

    def _get(self, key: str) -> Any:
        content = self._load(self.file)
        if key not in content:
            raise SourceError(f"{self.file}: has no {key!r}; expected a masklet file of SA-V: {', '.join(KEYS)}")
        return content[key]

    @property
    def count(self) -> int:
        """The number of frames of the video."""
        return int(self._get("video_frame_count"))

    @cached_property
    def _ids(self) -> tuple[int, ...]:
        given = self._get("masklet_id")
        ids = tuple(i + 1 for i in given if type(i) is int and 0 <= i < MAX_ID)
        if len(set(ids)) < len(given):
            raise SourceError(f"{self.file}: masklet_id = {given}; expected different numbers, 0 to {MAX_ID - 1}")
        return ids

    def targets(self) -> tuple[Target, ...]:
        return tuple(Target(i, f"object {i}") for i in self._ids)

    def truth(self, t: int, size: tuple[int, int]) -> Truth | None:
        """The masks of frame t by id; None if it is not annotated. `size` is the video's (height, width)."""
        row = self._row(t)
        if row is None:
            return None
        drawn = {i: self._decode(rle, t, size) for i, rle in row.items() if rle is not None}
        return {i: mask_hw for i, mask_hw in drawn.items() if mask_hw.any()}

    def unknown(self, t: int) -> frozenset[int]:
        """The objects with null instead of a mask on frame t."""
        return frozenset(i for i, rle in (self._row(t) or {}).items() if rle is None)

    def _row(self, t: int) -> dict[int, Any] | None:
        """The entry of each object on frame t; None if the frame is not annotated."""
        number, between = divmod(t, STRIDE)
        masklets, ids = self._get("masklet"), self._ids
        row = masklets[number] if not between and number < len(masklets) else None
        if row is None or (row and all(rle is None for rle in row)):
            return None
        if len(row) != len(ids):
            raise SourceError(f"{self.file}: frame {t}: {len(row)} masks; expected one for each of {len(ids)} masklets")
        return dict(zip(ids, row, strict=True))

    def _decode(self, rle: Any, t: int, size: tuple[int, int]) -> BoolMask:
        try:
            (height, width), counts = (int(n) for n in rle["size"]), rle["counts"]
            if isinstance(counts, list):
                mask_hw = _fill(counts, height, width)
            else:
                mask_hw = decode_rle(counts.encode("ascii"), height, width)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OutputError) as e:
            raise SourceError(f"{self.file}: frame {t}: a mask is not COCO's RLE; copy it again") from e
        if (height, width) != size:
            video = f"{size[1]}x{size[0]}"
            raise SourceError(
                f"{self.file}: frame {t}: a mask is {width}x{height}, the video {video}; expected one size"
            )
        return mask_hw


def _fill(runs: list[int], height: int, width: int) -> BoolMask:
    """The mask, bool [height, width], of COCO's uncompressed counts: alternating runs of 0 and 1, down the columns.

    Raises `ValueError` or `OverflowError` unless they are whole numbers that fill the mask exactly.
    """
    if any(type(run) is not int or run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError("the runs do not fill the mask")
    value = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(value, runs).reshape(width, height).T)
