"""Frames from a recording, through FFmpeg (PyAV): right colours, right way up, right times, or a clear error."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from ..errors import SourceError
from ..types import Frame, now_ns
from .account import Account
from .convert import Converter, checked_color
from .count import count_frames
from .demux import Demuxer
from .reading import Broken, Reading, Timed, broken
from .source import Damaged, Mode, Source
from .turn import Turn


class FileSource(Source):
    """The best video stream of a file, every frame that is whole, at the times the file gives.

    `frame.interlaced` says how the file is coded, also where `deinterlace` has made the picture whole. `damaged` says
    what is done where pictures are damaged or missing: `skip` leaves them out, with what was predicted from them, and
    `account` says so; `stop` is a `SourceError` there. A file that was cut off is one at its end, either way.
    """

    def __init__(self, path: Path, *, deinterlace: Mode = "off", damaged: Damaged = "skip") -> None:
        self._path, self._mode, self._damaged, self._any_start = path, deinterlace, damaged, False
        with self._open() as demuxer:
            stream = demuxer.stream
            self._rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            declared, coded_aspect = stream.frames or None, stream.sample_aspect_ratio
        first = self._first()
        checked_color(str(path), first)
        self._turn = Turn.of(first)
        super().__init__(str(path), *self._turn.size(first), float(self._rate), None)
        self.sample_aspect = self._turn.aspect(coded_aspect)
        self.account.declared = declared
        self.account.count = self.frame_count = count_frames(path, interlaced=bool(first.interlaced_frame))

    def _open(self) -> Demuxer:
        return Demuxer(self._path)

    def _first(self) -> av.VideoFrame:
        """The first whole picture."""
        why = ""
        for self._any_start in (False, True):  # some files mark no key frame at all
            with self._open() as demuxer:
                reading = Reading(demuxer, self._rate, Account(), any_start=self._any_start)
                first = next((picture for picture, _, _ in reading.pictures()), None)
            if first is not None:
                return first
            if reading.why_none:
                why = f" ({reading.why_none})"
                break
        raise SourceError(f"{self._path}: holds no picture that can be decoded{why}; expected a video")

    def frames(self) -> Iterator[Frame]:
        self.account.begin()
        convert = Converter(str(self._path), self._mode, self.account, self._turn)
        with self._open() as demuxer:
            reading = Reading(demuxer, self._rate, self.account, self._damaged, self._any_start)
            try:
                for seq, timed in enumerate(reading.pictures()):
                    yield self._frame(timed, seq, convert)
            except Broken as e:
                raise SourceError(f"{self._path}: {e}") from None

    def _frame(self, timed: Timed, seq: int, convert: Converter) -> Frame:
        captured_ns = now_ns()
        picture, pts, time_base = timed
        size = convert.size(picture)
        if size != (self.width, self.height):
            why = f"the size changes from {self.width}x{self.height} to {size[0]}x{size[1]}"
            raise broken(self.account, seq, why)
        image_hwc, color = convert(picture)
        return Frame(
            image_hwc, seq, self.session, pts, time_base, captured_ns,
            color=color, interlaced=bool(picture.interlaced_frame), sample_aspect=self.sample_aspect,
        )  # fmt: skip
