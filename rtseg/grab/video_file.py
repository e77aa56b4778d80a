"""Frames from recordings, through FFmpeg (PyAV): right colours, orientation and timestamps, or a clear error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av

from ..base.account import Account, Gap, PartStart
from ..base.errors import SourceError
from ..base.source import Damaged, Mode, Source
from ..base.types import Frame, now_ns
from .decode.convert import Converter, checked_color
from .decode.orientation import Orientation
from .demux.demuxer import Demuxer
from .demux.parts import parts_of
from .demux.timestamps import Timestamps
from .inputs import FileInput, Input, PipeInput, WebInput
from .paths import kind_of
from .redact import redact
from .video_reader import (
    MAX_CHECKED_AREA,
    MAX_CHECKED_AREA_PACED,
    RecordingEndedError,
    TimedPicture,
    VideoReader,
    ended_error,
)

if TYPE_CHECKING:
    from .nvdec import Gpu

RATE_TOLERANCE = 0.01  # the relative difference in frame rate that joined recordings may have


@dataclass(slots=True)
class _FileInfo:
    """What is known of a file after its first picture was decoded."""

    rate: Fraction
    orientation: Orientation
    size: tuple[int, int]
    aspect: Fraction
    declared: int | None
    interlaced: bool
    no_key_frames: bool
    bare: bool
    codec: str


class FileSource(Source):
    """The main video stream of a file, or of several files that are one recording: every whole frame.

    `frame.interlaced` says how the file is coded, also after deinterlacing. Where pictures are damaged or missing,
    `damaged="skip"` leaves them out, with those predicted from them, and notes it in `account`; `"stop"` raises
    `SourceError`. A file that was cut off raises `SourceError` at its end in either case. A pipe can be read only once.
    """

    def __init__(
        self, inputs: Sequence[Input], *, deinterlace: Mode = "off", damaged: Damaged = "skip",
        rate: Fraction | None = None, gpu: Gpu | None = None,
    ) -> None:  # fmt: skip
        """`rate`: the frame rate of bare streams. `gpu`: decodes the inputs, whose pictures stay in its memory."""
        self._rate, self._gpu = rate, gpu
        self._inputs, self._mode, self._damaged = inputs, deinterlace, damaged
        self._names = list(dict.fromkeys(each.name for each in inputs))
        account, self._open_input = Account(), ExitStack()
        self._open_pictures: Iterator[TimedPicture] | None = None
        self._infos = [self._open_info(each, account) for each in inputs]
        first = self._infos[0]
        self._check_same_format()
        super().__init__(" + ".join(self._names), *first.size, float(first.rate), None)
        self.account, self.sample_aspect = account, first.aspect
        if self._infos[0].bare and rate is None:
            account.assumed["rate"] = f"{self.fps:g} frames a second, for a bare stream has no times; --fps sets it"
        account.declared = None if any(info.declared is None for info in self._infos) else sum(
            info.declared or 0 for info in self._infos
        )  # fmt: skip
        counts = [each.count(interlaced=info.interlaced) for each, info in zip(inputs, self._infos, strict=True)]
        account.count = self.frame_count = None if None in counts else sum(count or 0 for count in counts)

    def _open_info(self, each: Input, account: Account) -> _FileInfo:
        """Open an input and decode its first whole picture. An input that can be read only once stays open."""
        why, demuxer = "", None
        for no_key_frames in (False, True):  # some files mark no key frame at all
            with ExitStack() as stack:
                demuxer = stack.enter_context(each.open())
                stream = demuxer.stream
                if self._rate is not None and not demuxer.bare:
                    raise SourceError(
                        f"{each.name}: fps={float(self._rate):g}, but a video has its own times; leave fps out"
                    )
                rate = self._rate or Fraction(stream.average_rate or stream.guessed_rate or 25)
                kept = account if each.once else Account()
                damaged = self._damaged if each.once else "skip"
                reading = VideoReader(
                    demuxer,
                    Timestamps(rate, counted=self._rate is not None),
                    kept,
                    damaged,
                    no_key_frames=no_key_frames,
                    max_checked_area=MAX_CHECKED_AREA if each.once else 0,
                )
                pictures = reading.pictures()
                timed = next(pictures, None)
                if timed is not None:
                    if each.once:
                        self._open_pictures = _prepend(timed, pictures)
                        self._open_input = stack.pop_all()
                    return _file_info(each.name, demuxer, timed[0], rate, no_key_frames)
                if reading.no_picture_reason or each.once:
                    why = f" ({reading.no_picture_reason})" if reading.no_picture_reason else ""
                    break
        where = "" if self._gpu is None else " by NVDEC"
        raise SourceError(f"{each.name}: holds no picture that can be decoded{where}{why}; expected a video")

    def _check_same_format(self) -> None:
        first = self._infos[0]
        for each, info in zip(self._inputs, self._infos, strict=True):
            if each.name == self._inputs[0].name:
                continue  # a change of size within one file is an error when it is reached
            alike = abs(info.rate / first.rate - 1) <= RATE_TOLERANCE
            if info.size != first.size or info.aspect != first.aspect or not alike:
                raise SourceError(
                    f"{each.name}: {_shape(info)}, but {self._inputs[0].name} is {_shape(first)}; "
                    "expected one size, one shape of pixels and one rate in files that are one recording"
                )

    def frames(self) -> Iterator[Frame]:
        account, times = self.account, Timestamps(self._infos[0].rate, counted=self._rate is not None)
        if not any(each.once for each in self._inputs):
            account.begin()
        for index, (each, info) in enumerate(zip(self._inputs, self._infos, strict=True)):
            convert = self._converter(each.name, info)
            first = True
            with ExitStack() as stack:
                pictures = self._take_open(each) if each.once else self._decode(index, times, stack)
                try:
                    for timed in pictures:
                        seq = self._checked(timed[0], convert)
                        if first and len(self._names) > 1:
                            account.parts.append(PartStart(each.name, seq, float(timed[1] * timed[2]), times.offset_s))
                        first = False
                        if seq < self.begin:
                            convert.skip(timed[0])
                        else:
                            yield self._frame(seq, timed, convert)
                except RecordingEndedError as e:
                    raise SourceError(f"{each.name}: {e}") from None
        self._finish()

    def _converter(self, name: str, info: _FileInfo) -> Converter:
        if self._gpu is None:
            return Converter(name, self._mode, self.account, info.orientation)
        from .nvdec import OnGpuConverter

        return OnGpuConverter(name, self.account, info.orientation, info.codec, self._gpu)

    def _decode(self, index: int, times: Timestamps, stack: ExitStack) -> Iterator[TimedPicture]:
        each, info = self._inputs[index], self._infos[index]
        last = index == len(self._inputs) - 1
        demuxer = stack.enter_context(each.open())
        return VideoReader(
            demuxer, times, self.account, self._damaged, no_key_frames=info.no_key_frames,
            missing_bytes=each.missing_bytes(), last=last,
            max_checked_area=MAX_CHECKED_AREA_PACED if self.paced else MAX_CHECKED_AREA,
        ).pictures()  # fmt: skip

    def _take_open(self, each: Input) -> Iterator[TimedPicture]:
        pictures, self._open_pictures = self._open_pictures, None
        if pictures is None:
            raise SourceError(f"{each.name}: a pipe can be read only once; put it into a file")
        return pictures

    def _checked(self, picture: av.VideoFrame, convert: Converter) -> int:
        """The number of the picture that has just come. Raises `RecordingEndedError` if it has another size."""
        seq, size = self.account.shown - 1, convert.size(picture)
        if size != (self.width, self.height):
            self.account.shown = seq
            why = f"the size changes from {self.width}x{self.height} to {size[0]}x{size[1]}"
            raise ended_error(self.account, seq, why)
        return seq

    def _frame(self, seq: int, timed: TimedPicture, convert: Converter) -> Frame:
        captured_ns = now_ns()
        picture, pts, time_base = timed
        image_hwc, color = convert(picture)
        return Frame(
            image_hwc, seq, self.session, pts, time_base, captured_ns,
            color=color, interlaced=bool(picture.interlaced_frame), sample_aspect=self.sample_aspect,
        )  # fmt: skip

    def _finish(self) -> None:
        """Set the number of frames, which is certain after everything was read."""
        account, counted = self.account, self.frame_count
        if counted is not None and account.shown < counted and not account.gaps:
            lost = counted - account.shown
            account.gap(Gap(account.shown, 0.0, lost, "fewer pictures came than the file lists"))
            if self._damaged == "stop":
                raise SourceError(f"{self.uri}: {account.gaps[-1].why}: {account.shown} of {counted}")
        account.count = account.shown

    def close(self) -> None:
        super().close()
        self._open_input.close()


def _prepend(first: TimedPicture, rest: Iterator[TimedPicture]) -> Iterator[TimedPicture]:
    yield first
    del first  # a reference would keep a buffer of the decoder in use
    yield from rest


def _file_info(name: str, demuxer: Demuxer, first: av.VideoFrame, rate: Fraction, no_key_frames: bool) -> _FileInfo:
    checked_color(name, first)
    orientation, stream = Orientation.from_picture(first), demuxer.stream
    return _FileInfo(
        rate, orientation, orientation.size(first), orientation.aspect(stream.sample_aspect_ratio), stream.frames or
        None, bool(first.interlaced_frame), no_key_frames, demuxer.bare, stream.codec_context.name,
    )  # fmt: skip


def _shape(info: _FileInfo) -> str:
    pixels = f" with pixels of {info.aspect.numerator}:{info.aspect.denominator}" if info.aspect != 1 else ""
    return f"{info.size[0]}x{info.size[1]}{pixels} at {float(info.rate):g} frames a second"


def open_video(
    paths: Sequence[Path], deinterlace: Mode, damaged: Damaged, rate: Fraction | None = None, gpu: Gpu | None = None
) -> Source:
    """All recordings in these files, in order, as one source; `gpu` decodes them (nvdec.py)."""
    inputs = [FileInput(part, str(path), gpu) for path in paths for part in parts_of(path)]
    return FileSource(inputs, deinterlace=deinterlace, damaged=damaged, rate=rate, gpu=gpu)


def open_videos(uris: Sequence[str], deinterlace: Mode, damaged: Damaged) -> Source:
    """Video files and recordings on web servers, in order, as one source."""
    inputs: list[Input] = []
    for uri in uris:
        inputs += (
            [WebInput(uri, redact(uri))] if _is_web(uri) else [FileInput(part, uri) for part in parts_of(Path(uri))]
        )
    return FileSource(inputs, deinterlace=deinterlace, damaged=damaged)


def open_stream(uri: str, deinterlace: Mode, damaged: Damaged, rate: Fraction | None) -> Source:
    """A recording that is read front to back in this process: from a web server, or from a pipe."""
    each: Input = WebInput(uri, redact(uri)) if _is_web(uri) else PipeInput(uri)
    return FileSource([each], deinterlace=deinterlace, damaged=damaged, rate=rate)


def _is_web(uri: str) -> bool:
    return re.match("https?:", uri, re.IGNORECASE) is not None and not kind_of(uri)
