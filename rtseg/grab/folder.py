"""Frames from picture files: those of a folder, or those in one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

from ..base.errors import SourceError
from ..base.source import Source
from ..base.types import Frame, now_ns
from .order import SUFFIXES, frames_among, missing_among
from .still import Stills, loaded

RATE = Fraction(25)


class StillSource(Source):
    """Pictures all of one size, as 8-bit RGB at a stated rate; each has the name of its file.

    `pictures` are files, and the number of a picture in each, None where it holds one. `bits` is how many of 16 a value
    has, where the files do not say so. How wide a pixel is shown is not read from PNG and JPEG: it is for printers.
    """

    def __init__(
        self, uri: str, pictures: Sequence[tuple[Path, int | None]], rate: Fraction | None, bits: int | None
    ) -> None:
        self._pictures, self._bits = pictures, bits
        super().__init__(uri, 0, 0, float(rate or RATE), len(pictures))
        self._stills = Stills(self.account, bits)
        self.height, self.width, _ = self._stills.read(*pictures[0]).shape
        if rate is None and len(pictures) > 1:
            self.account.assumed["rate"] = f"{RATE} frames a second, for pictures name none; --fps sets it"
        self._time_base = 1 / (rate or RATE)

    def frames(self) -> Iterator[Frame]:
        for seq, (path, number) in enumerate(self._pictures):
            image_hwc = self._stills.read(path, number)
            captured_ns = now_ns()
            height, width, _ = image_hwc.shape
            where = path if number is None else f"{path}: picture {number + 1}"
            if (width, height) != (self.width, self.height):
                raise SourceError(
                    f"{where}: {width}x{height}, but the first image is {self.width}x{self.height}; "
                    f"expected one size in a {'folder' if number is None else 'file'}"
                )
            name = path.name if number is None else f"{path.stem}_{number + 1:0{len(str(len(self._pictures)))}}"
            yield Frame(image_hwc, seq, self.session, seq, self._time_base, captured_ns, name=name)


class FolderSource(StillSource):
    """The images of one folder, in the order of their names; `order` says which are its frames."""

    def __init__(self, folder: Path, rate: Fraction | None, bits: int | None = None) -> None:
        try:
            paths, left_out = frames_among(list(folder.iterdir()))
        except OSError as e:
            raise SourceError(f"{folder}: cannot be listed ({e.strerror}); check the folder's permissions") from e
        if not paths:
            raise SourceError(f"{folder}: no images in this folder; expected files ending in {', '.join(SUFFIXES)}")
        super().__init__(str(folder), [(path, None) for path in paths], rate, bits)
        if missing := missing_among(paths):
            self.account.assumed["numbers"] = f"none are missing, though there is no {missing}"
        if left_out:
            self.account.assumed["pictures"] = f"no frames are {left_out}; they were left out"


def picture_file(path: Path, rate: Fraction | None, bits: int | None) -> StillSource:
    """All pictures of one file: more than one of a TIFF, or of a JPEG with several (MPO)."""
    _, header = loaded(path)
    count = len(header.starts)
    if header.kind == "WebP" and count > 1:
        raise SourceError(f"{path}: holds {count} pictures, and animated WebP is not read; convert it to a video")
    return StillSource(str(path), [(path, number if count > 1 else None) for number in range(count)], rate, bits)
