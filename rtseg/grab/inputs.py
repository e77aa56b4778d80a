"""What a recording is read from: a part of a file, a recording on a web server, or a pipe that is read once."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..base.errors import SourceError
from ..base.source import Damaged, Mode, Source
from .complete import missing_bytes
from .count import count_frames
from .demux import Demuxer
from .parts import Part, parts_of
from .pipe import readable
from .place import kind_of
from .secret import redact, scrub
from .tee import Tee
from .web import WebFile

if TYPE_CHECKING:
    from .nvdec import Gpu


class Input(Protocol):
    """One of the files that a recording is made of."""

    @property
    def name(self) -> str: ...

    @property
    def once(self) -> bool:
        """Whether it can be opened only once."""

    def open(self) -> Demuxer: ...

    def count(self, *, interlaced: bool) -> int | None:
        """How many frames it will show, None if only decoding tells."""

    def lacks(self) -> int:
        """Bytes that are missing of the length that it states."""


@dataclass(frozen=True)
class FileInput:
    part: Part
    name: str
    gpu: Gpu | None = None  # that decodes it
    once = False

    def open(self) -> Demuxer:
        if self.gpu is None:
            return Demuxer(self.part, self.name)
        from . import nvdec

        with self.gpu.current():
            return Demuxer(self.part, self.name, nvdec.accelerated(self.gpu))

    def count(self, *, interlaced: bool) -> int | None:
        return count_frames(self.part, interlaced=interlaced)

    def lacks(self) -> int:
        return missing_bytes(self.part.path) if self.part.end is None else 0


@dataclass(frozen=True)
class WebInput:
    url: str
    name: str
    once = False

    def open(self) -> Demuxer:
        try:
            file = WebFile(self.url)
        except (OSError, HTTPException) as e:
            raise SourceError(
                f"{self.name}: cannot be opened ({scrub(e, self.url)}); check it and the network"
            ) from None
        return Demuxer(Tee(file), self.name)

    def count(self, *, interlaced: bool) -> int | None:
        return None

    def lacks(self) -> int:
        return 0


@dataclass(frozen=True)
class PipeInput:
    name: str
    once = True

    def open(self) -> Demuxer:
        number = os.open(self.name, os.O_RDONLY) if kind_of(self.name) else os.dup(0)
        return Demuxer(Tee(readable(os.fdopen(number, "rb"))), self.name)

    def count(self, *, interlaced: bool) -> int | None:
        return None

    def lacks(self) -> int:
        return 0


def open_video(
    paths: Sequence[Path], deinterlace: Mode, damaged: Damaged, rate: Fraction | None = None, gpu: Gpu | None = None
) -> Source:
    """All recordings in these files, in order, as one source; `gpu` decodes them (nvdec.py)."""
    from .file import FileSource

    inputs = [FileInput(part, str(path), gpu) for path in paths for part in parts_of(path)]
    return FileSource(inputs, deinterlace=deinterlace, damaged=damaged, rate=rate, gpu=gpu)


def open_read_through(uri: str, deinterlace: Mode, damaged: Damaged, rate: Fraction | None) -> Source:
    """A recording that we read for FFmpeg: on a web server, or from a pipe."""
    from .file import FileSource

    web = re.match("https?:", uri, re.IGNORECASE) and not kind_of(uri)
    each: Input = WebInput(uri, redact(uri)) if web else PipeInput(uri)
    return FileSource([each], deinterlace=deinterlace, damaged=damaged, rate=rate)
