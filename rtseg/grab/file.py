"""Frames from a recording, through FFmpeg (PyAV): right colours, right way up, right times, or a clear error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from ..errors import SourceError
from ..types import Color, Frame, ImageU8, now_ns
from .deinterlace import Deinterlacer
from .source import Mode, Source

# FFmpeg's numbers (ITU-T H.273) and names, and the swscale matrix that undoes each.
MATRICES = {1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc"}
SWSCALE = {
    "bt709": Colorspace.ITU709,
    "fcc": Colorspace.FCC,
    "bt470bg": Colorspace.ITU601,
    "smpte170m": Colorspace.ITU601,
    "smpte240m": Colorspace.SMPTE240M,
    "bt2020nc": Colorspace.BT2020,
}
RGB, UNSPECIFIED, LIMITED, FULL = 0, 2, 1, 2
PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020",
             11: "smpte431", 12: "smpte432", 22: "ebu3213"}  # fmt: skip
TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear",
             11: "iec61966-2-4", 13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084",
             18: "arib-std-b67"}  # fmt: skip
HD_HEIGHT = 720  # from here on an unmarked video is taken as BT.709, below as BT.601
# Without these two, swscale is off by up to 3 of 255 and repeats chroma instead of interpolating it.
SCALING = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
SHORT_S = 1.0  # a file that ends this much before the end it declares was cut off
EXPAND = np.clip(np.round((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)


def color_of(picture: av.VideoFrame) -> Color:
    """How a decoded picture is coded, where unmarked by default: BT.709 or 601 by height; limited, but grey full."""
    name, components = picture.format.name, picture.format.components
    # yuvj420p and its kin are full-range by definition, whatever else the stream says.
    full = name.startswith("yuvj") or picture.color_range == FULL
    primaries = PRIMARIES.get(picture.color_primaries, "unknown")
    transfer = TRANSFERS.get(picture.color_trc, "unknown")
    if picture.format.is_rgb or name.startswith("pal"):
        return Color("rgb", "full", primaries, transfer)
    if len(components) == 1:
        full = picture.color_range != LIMITED
    number = picture.colorspace
    if number in (RGB, UNSPECIFIED):
        number = 1 if picture.height >= HD_HEIGHT else 6
    if number not in MATRICES:
        raise SourceError(f"colour matrix {number} (ITU-T H.273) is not supported; convert the video to BT.709")
    return Color(MATRICES[number], "full" if full else "limited", primaries, transfer)


def to_rgb(picture: av.VideoFrame, color: Color, reformatter: VideoReformatter) -> ImageU8:
    """Full-range RGB, uint8 [H, W, 3], of a picture coded as `color` says."""
    limited = color.range == "limited"
    matrix = SWSCALE.get(color.matrix, Colorspace.ITU709)
    # swscale writes planes twice as fast as it writes pixels, and OpenCV makes pixels of them in a tenth of the time.
    planar = not picture.format.is_rgb and color.matrix != "rgb"
    rgb = reformatter.reformat(
        picture, format="gbrp" if planar else "rgb24", interpolation=SCALING, threads=1,
        src_colorspace=matrix, dst_colorspace=matrix,
        src_color_range=LIMITED if limited else FULL, dst_color_range=FULL,
    )  # fmt: skip
    image_hwc = _merged(rgb) if planar else np.asarray(rgb.to_ndarray(), np.uint8)
    # swscale takes every grey as full-range, whatever it is told.
    return EXPAND[image_hwc] if limited and len(picture.format.components) == 1 else image_hwc


def _merged(planes: av.VideoFrame) -> ImageU8:
    """A picture in planes (green, blue, red) as pixels, uint8 RGB [H, W, 3]."""
    green_hw, blue_hw, red_hw = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in planes.planes
    )
    return np.asarray(cv2.merge([red_hw, green_hw, blue_hw]), np.uint8)


@dataclass(frozen=True, slots=True)
class Turn:
    """A display matrix in quarter turns: swap the axes, then mirror y, mirror x."""

    swap: bool = False
    mirror_y: bool = False
    mirror_x: bool = False

    @classmethod
    def of(cls, picture: av.VideoFrame) -> Turn:
        # Not for every picture: PyAV's side_data and its picture hold each other, so that only the garbage
        # collector frees them, and hundreds of megabytes wait for it.
        try:
            data = picture.side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]  # PyAV's stub knows one name only
        except KeyError:
            return cls()
        # Shown x = a*x + c*y, shown y = b*x + d*y.
        a, b, _, c, d = (int(v) for v in np.frombuffer(bytes(data), np.int32)[:5])
        swap = abs(b) > abs(a)
        return cls(swap, (b if swap else d) < 0, (c if swap else a) < 0)

    def size(self, picture: av.VideoFrame) -> tuple[int, int]:
        """(width, height) of a picture once upright."""
        return (picture.height, picture.width) if self.swap else (picture.width, picture.height)

    def upright(self, image_hwc: ImageU8) -> ImageU8:
        """The image as it is meant to be seen."""
        turned_hwc = image_hwc.transpose(1, 0, 2) if self.swap else image_hwc
        return np.ascontiguousarray(turned_hwc[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1])


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
