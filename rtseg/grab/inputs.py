"""Where the bytes of a recording come from: a part of a file, a web server, or a pipe that can be read only once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Protocol

from ..base.errors import SourceError
from .demux.demuxer import Demuxer
from .demux.frame_count import count_frames
from .demux.http_file import WebFile
from .demux.parts import Part
from .demux.pipe import readable
from .demux.stated_length import missing_bytes as stated_missing_bytes
from .demux.tee import Tee
from .paths import kind_of
from .redact import scrub

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
        """How many frames it holds; None if only decoding tells."""

    def missing_bytes(self) -> int:
        """How many bytes it is shorter than its container states."""


@dataclass(frozen=True)
class FileInput:
    part: Part
    name: str
    gpu: Gpu | None = None  # the GPU that decodes it
    once = False

    def open(self) -> Demuxer:
        if self.gpu is None:
            return Demuxer(self.part, self.name)
        from . import nvdec

        with self.gpu.current():
            return Demuxer(self.part, self.name, nvdec.accelerated(self.gpu))

    def count(self, *, interlaced: bool) -> int | None:
        return count_frames(self.part, interlaced=interlaced)

    def missing_bytes(self) -> int:
        return stated_missing_bytes(self.part.path) if self.part.end is None else 0


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

    def missing_bytes(self) -> int:
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

    def missing_bytes(self) -> int:
        return 0
