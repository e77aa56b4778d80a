"""MPEG-2, H.264 and HEVC in a DICOM file: the bytes of a video, in one or several fragments."""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from ...base.errors import SourceError
from ...base.source import Damaged, Mode, Source
from ..demux.demuxer import Demuxer
from ..demux.parts import Part
from ..demux.tee import Tee
from ..inputs import FileInput, Input
from .dicom_file import DicomFile, end_of_header

PIXELS, ITEM, END = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"

Fragment = tuple[int, int]  # the positions of its first byte and after its last


@dataclass(frozen=True)
class FragmentsInput:
    """A video in several fragments of a file."""

    path: Path
    fragments: list[Fragment]
    name: str
    once = False

    def open(self) -> Demuxer:
        return Demuxer(Tee(_Joined(self.path.open("rb"), self.fragments)), self.name)

    def count(self, *, interlaced: bool) -> int | None:
        return None

    def missing_bytes(self) -> int:
        return 0


class _Joined:
    """Fragments of a file as one file that can be read and searched."""

    def __init__(self, file: BinaryIO, fragments: list[Fragment]) -> None:
        self._file, self._fragments, self._position = file, fragments, 0
        self._size = sum(end - start for start, end in fragments)

    def read(self, size: int, /) -> bytes:
        before = 0
        for start, end in self._fragments:
            inside = self._position - before
            before += end - start
            if inside < end - start:
                self._file.seek(start + inside)
                data = self._file.read(min(size, end - start - inside))
                self._position += len(data)
                return data
        return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def close(self) -> None:
        self._file.close()


def open_dicom_video(file: DicomFile, uri: str, rate: Fraction | None, deinterlace: Mode, damaged: Damaged) -> Source:
    """The video in a DICOM file as a source. A bare stream without times has the rate that the header states."""
    from ..video_file import FileSource

    fragments = _fragments(file.path)
    each: Input = FragmentsInput(file.path, fragments, uri)
    if len(fragments) == 1:
        each = FileInput(Part(file.path, *fragments[0]), uri)
    source = FileSource([each], deinterlace=deinterlace, damaged=damaged, rate=rate)
    times_ms = file.times_ms()
    if rate is None and "rate" in source.account.assumed and times_ms and len(times_ms) > 1:
        stated = Fraction(1000 / times_ms[1]).limit_denominator(1001)
        source.close()
        source = FileSource([each], deinterlace=deinterlace, damaged=damaged, rate=stated)
    return source


def _fragments(path: Path) -> list[Fragment]:
    """The fragments of a file's pixels, without the table of offsets before them."""
    found: list[Fragment] = []
    with path.open("rb") as file:
        at = _items(file, path)
        while len(head := _read(file, at, 8)) == 8 and head[:4] == ITEM:
            length = int.from_bytes(head[4:], "little")
            found.append((at + 8, at + 8 + length))
            at += 8 + length
        size = os.fstat(file.fileno()).st_size
    fragments = [(start, end) for start, end in found[1:] if end > start]
    if not fragments:
        raise SourceError(f"{path}: its pixels hold no video; expected MPEG-2, H.264 or HEVC; copy it again")
    if fragments[-1][1] > size or head[:4] != END:
        missing = f", of which {fragments[-1][1] - size} bytes are missing" if fragments[-1][1] > size else ""
        raise SourceError(f"{path}: ends inside its video{missing}; copy it again")
    return fragments


def _items(file: BinaryIO, path: Path) -> int:
    """The position of the first item of the pixels."""
    at = end_of_header(file, path)
    if _read(file, at, len(PIXELS)) != PIXELS:
        raise SourceError(f"{path}: its pixels are not in fragments, as those of a video are; copy it again")
    return at + len(PIXELS)


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)
