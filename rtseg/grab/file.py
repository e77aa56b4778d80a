"""Frames from a recording, through FFmpeg (PyAV): right colours, right way up, right times, or a clear error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import takewhile
from pathlib import Path

import av
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from ..errors import SourceError
from ..types import Frame, now_ns
from .color import color_of, to_rgb
from .deinterlace import Deinterlacer
from .source import Mode, Source
from .turn import Turn

SHORT_S = 1.0  # a file that ends this much before the end it declares was cut off


class FileSource(Source):
    """The best video stream of a file, every frame, at the times the file gives.

    `frame.interlaced` says how the file is coded, also where `deinterlace` has made the picture whole.
    """

    def __init__(self, path: Path, *, deinterlace: Mode = "off") -> None:
        self._path, self._mode = path, deinterlace
        with self._open() as (container, stream):
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            count = stream.frames or None
            first = next(self._pictures(container, stream), None)
            if first is None:
                raise SourceError(f"{path}: holds no picture that can be decoded; expected a video")
        self._turn = Turn.of(first)
        super().__init__(str(path), *self._turn.size(first), float(rate), count)
        self._rate = Fraction(rate)

    @contextmanager
    def _open(self) -> Iterator[tuple[InputContainer, av.VideoStream]]:
        try:
            container = av.open(str(self._path))
        except (av.FFmpegError, OSError) as e:
            raise SourceError(f"{self._path}: not a readable video ({e.strerror}); expected MP4, MKV, AVI, ...") from e
        with container:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise SourceError(f"{self._path}: has no video stream; expected a video")
            # Not frame threads: they hold frames back and swallow the decoder's errors.
            stream.thread_type = "SLICE"
            yield container, stream

    def frames(self) -> Iterator[Frame]:
        reformatter, whole = VideoReformatter(), Deinterlacer(self._mode)
        with self._open() as (container, stream):
            for seq, picture in enumerate(self._pictures(container, stream)):
                yield self._frame(picture, seq, reformatter, whole)

    def _pictures(self, container: InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        """Good pictures in order, then `SourceError` where the file breaks.

        What precedes the first good picture is skipped: a recording may start between two key frames. Pictures that
        the decoder still holds back at a break are not shown, since some before them may be missing.
        """
        packets = container.demux(stream)
        good, end_s = 0, 0.0
        while (step := _next_pictures(packets)) is not None:
            pictures, fault = step
            for picture in pictures:
                good += 1
                end_s = (picture.time or 0.0) + (picture.duration or 0) * float(stream.time_base or 0)
                yield picture
            if fault and good:
                raise self._broken(good, fault)
        missing_s = _declared_end_s(container, stream) - end_s
        if good and missing_s > SHORT_S:
            raise self._broken(good, f"the file was cut off {missing_s:.1f} s before the end it declares")

    def _broken(self, good: int, why: str) -> SourceError:
        return SourceError(f"{self._path}: frame {good}: {why} (the {good} frames before it are good); export it again")

    def _frame(self, picture: av.VideoFrame, seq: int, reformatter: VideoReformatter, whole: Deinterlacer) -> Frame:
        captured_ns = now_ns()
        size = self._turn.size(picture)
        if size != (self.width, self.height):
            raise self._broken(seq, f"the size changes from {self.width}x{self.height} to {size[0]}x{size[1]}")
        try:
            color = color_of(picture)
        except SourceError as e:
            raise SourceError(f"{self._path}: {e}") from e
        time_base, pts = picture.time_base, picture.pts
        if pts is None or time_base is None:
            # A bare stream, as in a .h264 file, has no clock of its own: count.
            pts, time_base = seq, 1 / self._rate
        image_hwc = self._turn.upright(to_rgb(whole(picture), color, reformatter))
        return Frame(
            image_hwc, seq, self.session, pts, time_base, captured_ns,
            color=color, interlaced=bool(picture.interlaced_frame),
        )  # fmt: skip


def _next_pictures(packets: Iterator[av.Packet[av.VideoStream]]) -> tuple[list[av.VideoFrame], str] | None:
    """The next packet's good pictures, and what was wrong, if anything; None at the end."""
    try:
        packet = next(packets, None)
        if packet is None:
            return None
        pictures = [] if packet.is_corrupt else packet.decode()
    except av.FFmpegError as e:
        return [], str(e.strerror)
    good = list(takewhile(lambda picture: not picture.is_corrupt, pictures))
    return good, "its data is damaged" if packet.is_corrupt or len(good) < len(pictures) else ""


def _declared_end_s(container: InputContainer, stream: av.VideoStream) -> float:
    """When the video ends by the container's header, in seconds; 0 if it does not say."""
    # Other formats have no such header: FFmpeg estimates, from what may be the very part that is missing.
    if not {"mov", "matroska", "avi"} & set(container.format.name.split(",")):
        return 0.0
    if stream.duration and stream.time_base:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    alone = len(container.streams) == 1
    return container.duration / av.time_base if container.duration and alone else 0.0
