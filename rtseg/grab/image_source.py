"""Frames from image files: those of a folder, or the pictures in one file."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from ..base.errors import SourceError
from ..base.types import Frame, now_ns
from .decode.image_file import ImageReader, load
from .image_order import SUFFIXES, frames_in, missing_in
from .still_source import StillSource


class ImageSource(StillSource):
    """Images of one size, as 8-bit RGB at a given rate; each frame has the name of its file.

    `pictures` are files, each with the number of a picture in it (None: the file holds one). `bits` is how many bits of
    a 16-bit value are used, if the files do not say so. The pixel aspect ratio of PNG and JPEG is meant for printers,
    and is ignored.
    """

    def __init__(
        self, uri: str, pictures: Sequence[tuple[Path, int | None]], rate: Fraction | None, bits: int | None
    ) -> None:
        self._pictures, self._bits = pictures, bits
        super().__init__(uri, 0, 0, rate, len(pictures))
        self._stills = ImageReader(self.account, bits)
        self.height, self.width, _ = self._stills.read(*pictures[0]).shape

    def frame(self, seq: int) -> Frame:
        """Frame number `seq`; frames can be read in any order. `SourceError` if it is of another size."""
        path, number = self._pictures[seq]
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
        return Frame(image_hwc, seq, self.session, seq, self._time_base, captured_ns, name=name)


class FolderSource(ImageSource):
    """The images of one folder, in the order of their names; image_order.py says which of them are frames."""

    def __init__(self, folder: Path, rate: Fraction | None, bits: int | None = None) -> None:
        try:
            paths, left_out = frames_in(list(folder.iterdir()))
        except OSError as e:
            raise SourceError(f"{folder}: cannot be listed ({e.strerror}); check the folder's permissions") from e
        if not paths:
            raise SourceError(f"{folder}: no images in this folder; expected files ending in {', '.join(SUFFIXES)}")
        super().__init__(str(folder), [(path, None) for path in paths], rate, bits)
        if missing := missing_in(paths):
            self.account.assumed["numbers"] = f"none are missing, though there is no {missing}"
        if left_out:
            self.account.assumed["pictures"] = f"{left_out} are not frames and were left out"


def image_file_source(path: Path, rate: Fraction | None, bits: int | None) -> ImageSource:
    """All pictures of one file: a TIFF or a JPEG (MPO) may hold several."""
    _, header = load(path)
    count = len(header.starts)
    if header.kind == "WebP" and count > 1:
        raise SourceError(f"{path}: holds {count} pictures, and animated WebP is not read; convert it to a video")
    return ImageSource(str(path), [(path, number if count > 1 else None) for number in range(count)], rate, bits)
