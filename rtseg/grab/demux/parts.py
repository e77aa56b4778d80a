"""The recordings in one file: usually one, several if files were joined by `cat`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..paths import for_ffmpeg

FLV_HEAD, FLV_TAG = 9, 11


@dataclass(frozen=True, slots=True)
class Part:
    """A range of a file's bytes that is a recording of its own; `end` None: to the end of the file."""

    path: Path
    start: int = 0
    end: int | None = None

    @property
    def url(self) -> str:
        """Its uri for FFmpeg."""
        if not self.start and self.end is None:
            return for_ffmpeg(self.path)
        return f"subfile,,start,{self.start},end,{self.end or self.path.stat().st_size},,:{self.path}"

    @property
    def is_whole_file(self) -> bool:
        return not self.start and self.end is None


def parts_of(path: Path) -> list[Part]:
    """The recordings in a file: several if MP4 or FLV files were joined by `cat`; FFmpeg reads only the first of them.

    Files of other formats can be joined and are still one recording.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if head[4:8] == b"ftyp":
            starts = _starts_of_mp4(file, size)
        elif head[:3] == b"FLV":
            starts = _starts_of_flv(file, size)
        else:
            starts = [0]
    ends = [*starts[1:], None]
    return [Part(path, start, end) for start, end in zip(starts, ends, strict=True)]


def _starts_of_mp4(file: BinaryIO, size: int) -> list[int]:
    """The positions of file type boxes: the first, and each that follows a complete movie."""
    starts, position, movie, data = [0], 0, False, False
    while position + 8 <= size:
        file.seek(position)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        length = int.from_bytes(head[8:16], "big") if length == 1 else length
        if kind == b"ftyp" and movie and data:
            starts.append(position)
            movie = data = False
        movie, data = movie or kind == b"moov", data or kind == b"mdat"
        if length < 8:
            break
        position += length
    return starts


def _starts_of_flv(file: BinaryIO, size: int) -> list[int]:
    starts, position = [0], FLV_HEAD + 4
    while position + FLV_TAG <= size:
        file.seek(position)
        head = file.read(FLV_TAG)
        if head[:4] == b"FLV\1":
            starts.append(position)
            position += FLV_HEAD + 4
            continue
        if head[0] & 0x1F not in (8, 9, 18):
            break
        position += FLV_TAG + int.from_bytes(head[1:4], "big") + 4
    return starts
