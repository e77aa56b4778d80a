"""What the files of a frame are called: by its number, or as the source calls it, and never twice the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from ..base.types import FrameId

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".dib", ".ppm", ".pgm", ".pnm"}
MOST = 200  # bytes of a name that are kept: a suffix and a number have to fit into the 255 of a file system


@dataclass(frozen=True, slots=True)
class Named:
    """`stem` is that of the frame's own files, `picture` the name of its picture: of the source's, where it has one."""

    stem: str
    picture: str


class Names:
    """Names frames, one after another.

    A frame that has a name of its own, as an image of a folder, keeps it: `t1.25.png` is `t1.25`. Of two with one
    stem (`a.jpg` and `a.png`; on some file systems also `A.png`) the later ones are told apart by a number.
    """

    def __init__(self, count: int | None, suffix: str, own_suffix: bool = True) -> None:
        """`count`: how many frames are expected, if that is known; `suffix`: of pictures without a file, as `.jpg`.

        `own_suffix` is False where all pictures are written anew, and so have that suffix.
        """
        self._own_suffix = own_suffix
        self._digits, self._suffix = max(5, len(str(count or 0))), suffix  # names sort in order, also after an hour
        self._taken: set[str] = set()
        self._pictures: set[str] = set()

    def of(self, frame: FrameId) -> Named:
        """The names of the next frame."""
        if not frame.name:
            stem = f"{frame.seq:0{self._digits}d}"
            return Named(stem, stem + self._suffix)
        own = PurePosixPath(frame.name.replace("\\", "/")).name
        suffix = _suffix(own)
        stem = self._free(_cut(own.removesuffix(suffix)) or f"{frame.seq:0{self._digits}d}")
        keeps = bool(suffix) and self._own_suffix and own.casefold() not in self._pictures
        picture = own if keeps else stem + (suffix if self._own_suffix and suffix else self._suffix)
        self._pictures.add(picture.casefold())
        return Named(stem, picture)

    def _free(self, stem: str) -> str:
        free, number = stem, 2
        while free.casefold() in self._taken:
            free, number = f"{stem}-{number}", number + 1
        self._taken.add(free.casefold())
        return free


def _suffix(name: str) -> str:
    """The suffix of a picture's file, "" where the name is of something else: `t1.25` has none."""
    suffix = PurePosixPath(name).suffix
    return suffix if suffix.lower() in PICTURES else ""


def _cut(stem: str) -> str:
    return stem.encode("utf-8", "surrogateescape")[:MOST].decode("utf-8", "ignore")
