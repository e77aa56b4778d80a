"""The names of a frame's files: from its number, or from the name that the source gives it; never the same twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from ..base.types import FrameId

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".dib", ".ppm", ".pgm", ".pnm"}
MAX_BYTES = 200  # bytes of a name that are kept, so that a suffix and a number fit into the 255 of a file system


@dataclass(frozen=True, slots=True)
class FrameFiles:
    """`stem`: of the files made for the frame.

    `picture`: the name of its picture file, the source's own if it has one.
    """

    stem: str
    picture: str


class FrameNames:
    """Gives names to frames, one after another.

    A frame with a name, such as an image of a folder, keeps it: `t1.25.png` is `t1.25`. If two have the same stem
    (`a.jpg` and `a.png`; on some file systems also `A.png`), the later one gets a number.
    """

    def __init__(self, count: int | None, suffix: str, own_suffix: bool = True) -> None:
        """`count`: the expected number of frames, if known; `suffix`: for pictures that have no file, such as `.jpg`.

        `own_suffix`: False if all pictures are written anew, and so have `suffix`.
        """
        self._own_suffix = own_suffix
        self._digits, self._suffix = max(5, len(str(count or 0))), suffix  # enough digits that names sort in order
        self._taken: set[str] = set()
        self._pictures: set[str] = set()

    def next_for(self, frame: FrameId) -> FrameFiles:
        """The names of the next frame."""
        if not frame.name:
            stem = f"{frame.seq:0{self._digits}d}"
            return FrameFiles(stem, stem + self._suffix)
        own = PurePosixPath(frame.name.replace("\\", "/")).name
        suffix = _suffix(own)
        stem = self._free(_shortened(own.removesuffix(suffix)) or f"{frame.seq:0{self._digits}d}")
        keeps = bool(suffix) and self._own_suffix and own.casefold() not in self._pictures
        picture = own if keeps else stem + (suffix if self._own_suffix and suffix else self._suffix)
        self._pictures.add(picture.casefold())
        return FrameFiles(stem, picture)

    def take(self, stem: str, picture: str) -> None:
        """Names that an earlier run has given."""
        self._taken.add(stem.casefold())
        self._pictures.add(picture.casefold())

    def _free(self, stem: str) -> str:
        free, number = stem, 2
        while free.casefold() in self._taken:
            free, number = f"{stem}-{number}", number + 1
        self._taken.add(free.casefold())
        return free


def _suffix(name: str) -> str:
    """The suffix of an image file, "" if the name has another or none: `t1.25` has none."""
    suffix = PurePosixPath(name).suffix
    return suffix if suffix.lower() in PICTURES else ""


def _shortened(stem: str) -> str:
    return stem.encode("utf-8", "surrogateescape")[:MAX_BYTES].decode("utf-8", "ignore")
