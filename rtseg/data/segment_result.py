"""The output folder of `rtseg segment` as a recording with maps.

run.json records the source and its options, masks.json the frame of each mask. The source is opened again with the
recorded options, so that frame t is the same image. If the source is gone, as after a pipe, the images that segment
wrote on request (frames/) replace it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence as Series
from pathlib import Path
from typing import Any

from ..base.errors import SourceError
from .files import MAPS, files, read_json
from .frame_reader import Recording

RUN, MASKS, FRAMES, INDEX = "run.json", "masks", "frames", "masks.json"


class SegmentResult:
    """An output folder of `rtseg segment`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, read_json(folder / RUN, dict)
        index = read_json(folder / INDEX, dict) if (folder / INDEX).is_file() else {}
        images = index.get("images", [])
        self._images: list[dict[str, Any]] = images if isinstance(images, list) else []

    @property
    def count(self) -> int | None:
        """The number of segmented frames; None if run.json does not record it."""
        shown = self.run.get("frames", {}).get("shown") if isinstance(self.run.get("frames"), dict) else None
        return shown if isinstance(shown, int) and shown > 0 else None

    def maps(self) -> dict[int, Path]:
        """The mask files by frame."""
        there = {path.name: path for path in files(self.folder / MASKS, MAPS)}
        named = {}
        for image in self._images:
            # In earlier versions of masks.json, `file_name` was the name of the mask's file.
            name = Path(str(image.get("mask_file", image.get("file_name", "")))).name
            if isinstance(image.get("id"), int) and name in there:
                named[image["id"]] = there[name]
        return named or {_number(path): path for path in there.values()}

    def pictures(self) -> list[Path]:
        """The images that segment wrote, if it wrote all of them; else empty."""
        folder = self.folder / FRAMES
        found = [folder / Path(str(image.get("file_name", ""))).name for image in self._images]
        return found if found and all(path.is_file() for path in found) else []

    def video(self) -> Recording | None:
        """The source with the recorded options; None if it is gone. Raises `SourceError` if it is another file now."""
        source = self.run.get("source", "")
        uris = [str(uri) for uri in source] if isinstance(source, list) else [str(source)]
        known = {file.get("uri"): file for file in self.run.get("files", []) if isinstance(file, dict)}
        found = [self._find(uri, known.get(uri)) for uri in uris]
        if not all(found):
            return None
        reading = self.run.get("reading", {})
        # Without `decoder`, because the CPU decodes it now, whichever decoder was used then.
        options = {
            key: value
            for key, value in reading.items()
            if value is not None and (key, value) != SKIP and key != "decoder"
        }
        return Recording(tuple(uri for uri in found if uri), tuple(sorted(options.items())))

    def missing(self) -> SourceError:
        """The error that the source is gone."""
        source = self.run.get("source", "")
        shown = ", ".join(map(str, source)) if isinstance(source, list) else source
        remedy = f"copy it next to {self.folder.name}/, or segment it again with --frames"
        return SourceError(f"{self.folder / RUN}: its source {str(shown)!r} is not found; {remedy}")

    def _find(self, uri: str, known: dict[str, Any] | None) -> str | None:
        """The present place of one file of the source, or None."""
        places = [Path(str(known["path"]))] if known else []
        places += [Path(uri), self.folder.parent / Path(uri).name] if uri not in ("", "-") else []
        there = [place for place in places if _is_readable(place)]
        size = known.get("bytes") if known else None
        same = [place for place in there if size is None or not place.is_file() or place.stat().st_size == size]
        if there and not same:
            raise SourceError(
                f"{there[0]}: has {there[0].stat().st_size} bytes; expected the segmented file of {size} bytes "
                f"({self.folder / RUN}): copy it next to {self.folder.name}/"
            )
        if same:
            return str(same[0])
        return uri if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", uri) and not uri.startswith("pipe:") else None


SKIP = ("damaged", "skip")  # the default, which run.json records too


def _is_readable(path: Path) -> bool:
    """Whether a path is a file or a folder, which can be read again, unlike a pipe."""
    try:
        return path.is_file() or path.is_dir()
    except OSError:
        return False


def _number(path: Path) -> int:
    if not path.stem.isdecimal():
        raise SourceError(f"{path}: expected a frame number as its name, such as 00000.png")
    return int(path.stem)


def numbered(maps: Series[Path]) -> dict[int, Path]:
    """Label maps by the frame number in their name. Raises `SourceError` for a name that is not a number."""
    return {_number(path): path for path in maps}
