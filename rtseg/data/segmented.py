"""What `rtseg segment` wrote: its run.json says what was read and how, its masks.json which mask is of which frame.

The source is opened again as it was read then, so that frame t is the same picture. Where it cannot be, as after a
pipe, the pictures that segment wrote on request (frames/) stand for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence as Series
from pathlib import Path
from typing import Any

from ..base.errors import SourceError
from .files import MAPS, files, read_json
from .player import Video

RUN, MASKS, FRAMES, INDEX = "run.json", "masks", "frames", "masks.json"


class Segmented:
    """A result folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, read_json(folder / RUN, dict)
        index = read_json(folder / INDEX, dict) if (folder / INDEX).is_file() else {}
        images = index.get("images", [])
        self._images: list[dict[str, Any]] = images if isinstance(images, list) else []

    @property
    def count(self) -> int | None:
        """How many frames were segmented; None for a run.json that does not say."""
        shown = self.run.get("frames", {}).get("shown") if isinstance(self.run.get("frames"), dict) else None
        return shown if isinstance(shown, int) and shown > 0 else None

    def maps(self) -> dict[int, Path]:
        """The masks that are there, by frame."""
        there = {path.name: path for path in files(self.folder / MASKS, MAPS)}
        named = {}
        for image in self._images:
            # Before masks.json named pictures, `file_name` was the mask's.
            name = Path(str(image.get("mask_file", image.get("file_name", "")))).name
            if isinstance(image.get("id"), int) and name in there:
                named[image["id"]] = there[name]
        return named or {_number(path): path for path in there.values()}

    def pictures(self) -> list[Path]:
        """The frames that segment wrote, if it wrote all of them; else none."""
        folder = self.folder / FRAMES
        found = [folder / Path(str(image.get("file_name", ""))).name for image in self._images]
        return found if found and all(path.is_file() for path in found) else []

    def video(self) -> Video | None:
        """The source, to be read as it was; None where it is not there. `SourceError` where it is not the same file."""
        said = self.run.get("source", "")
        uris = [str(uri) for uri in said] if isinstance(said, list) else [str(said)]
        known = {file.get("uri"): file for file in self.run.get("files", []) if isinstance(file, dict)}
        found = [self._find(uri, known.get(uri)) for uri in uris]
        if not all(found):
            return None
        reading = self.run.get("reading", {})
        # Whoever decoded it then, the CPU does now.
        options = {
            key: value
            for key, value in reading.items()
            if value is not None and (key, value) != SKIP and key != "decoder"
        }
        return Video(tuple(uri for uri in found if uri), tuple(sorted(options.items())))

    def missing(self) -> SourceError:
        said = self.run.get("source", "")
        shown = ", ".join(map(str, said)) if isinstance(said, list) else said
        way = f"put what was segmented beside {self.folder.name}/, or segment it again with --frames"
        return SourceError(f"{self.folder / RUN}: there is no {str(shown)!r}; {way}")

    def _find(self, uri: str, known: dict[str, Any] | None) -> str | None:
        """Where a part of the source is now."""
        places = [Path(str(known["path"]))] if known else []
        places += [Path(uri), self.folder.parent / Path(uri).name] if uri not in ("", "-") else []
        there = [place for place in places if _is_readable(place)]
        size = known.get("bytes") if known else None
        same = [place for place in there if size is None or not place.is_file() or place.stat().st_size == size]
        if there and not same:
            raise SourceError(
                f"{there[0]}: has {there[0].stat().st_size} bytes, and what was segmented had {size} "
                f"({self.folder / RUN}); put that beside {self.folder.name}/"
            )
        if same:
            return str(same[0])
        return uri if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", uri) and not uri.startswith("pipe:") else None


SKIP = ("damaged", "skip")  # as it is anyway


def _is_readable(path: Path) -> bool:
    """Whether it can be read again: a pipe cannot."""
    try:
        return path.is_file() or path.is_dir()
    except OSError:
        return False


def _number(path: Path) -> int:
    if not path.stem.isdecimal():
        raise SourceError(f"{path}: expected the number of a frame for a name, like 00000.png")
    return int(path.stem)


def numbered(maps: Series[Path]) -> dict[int, Path]:
    """Maps by the numbers that they are called by; `SourceError` for another name."""
    return {_number(path): path for path in maps}
