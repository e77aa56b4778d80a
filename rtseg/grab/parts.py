"""What a recording is made of: one file, several, or one that holds several, joined by `cat`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .place import for_ffmpeg

FLV_HEAD, FLV_TAG = 9, 11


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a file's bytes that is a recording of its own; `end` None is up to the file's end."""

    path: Path
    start: int = 0
    end: int | None = None

    @property
    def url(self) -> str:
        """For FFmpeg."""
        if not self.start and self.end is None:
            return for_ffmpeg(self.path)
        return f"subfile,,start,{self.start},end,{self.end or self.path.stat().st_size},,:{self.path}"

    @property
    def whole(self) -> bool:
        return not self.start and self.end is None


def parts_of(path: Path) -> list[Part]:
    """The recordings in a file: more than one where MP4 or FLV files were joined by `cat`, which FFmpeg passes over.

    Other formats go on by themselves.
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
    """Where a file type box is that comes after a whole movie."""
    starts, place, movie, data = [0], 0, False, False
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        length = int.from_bytes(head[8:16], "big") if length == 1 else length
        if kind == b"ftyp" and movie and data:
            starts.append(place)
            movie = data = False
        movie, data = movie or kind == b"moov", data or kind == b"mdat"
        if length < 8:
            break
        place += length
    return starts


def _starts_of_flv(file: BinaryIO, size: int) -> list[int]:
    starts, place = [0], FLV_HEAD + 4
    while place + FLV_TAG <= size:
        file.seek(place)
        head = file.read(FLV_TAG)
        if head[:4] == b"FLV\1":
            starts.append(place)
            place += FLV_HEAD + 4
            continue
        if head[0] & 0x1F not in (8, 9, 18):
            break
        place += FLV_TAG + int.from_bytes(head[1:4], "big") + 4
    return starts
