"""Pictures into an MP4 that any player shows in the right colours, and that is there whole or not at all; or, where
the folder that it lies in says whether it is whole, at once, so that it plays up to wherever its writer came.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from ..base.errors import OutputError
from ..base.files import commit, discard, part_of, unwritable
from ..base.types import ImageU8

# The first that this build of FFmpeg has. All are near-transparent, and faster than real time at 720p on one core.
# No B-frames: by them FFmpeg misjudges how long a video is whose pictures come at uneven times, as after damage.
_CODECS = {
    "libx264": {"preset": "superfast", "crf": "20", "bf": "0"},
    "libopenh264": {"b": "12000000"},
    "mpeg4": {"qscale": "2", "flags": "qscale"},
}
_BT709 = 1  # FFmpeg's number for its primaries and its transfer; PyAV names them only in late versions
TICK = Fraction(
    1, 60_000
)  # seconds; whole for 25, 30, 50, 60 and 59.94 fps, and the finest that MPEG-4 takes is 1/65,535
FAILURES = (OSError, av.FFmpegError)
# In fragments of half a second until it is closed, which makes a plain file of it. FFmpeg has it since 7.1.
_HYBRID = {"movflags": "hybrid_fragmented", "frag_duration": "500000", "flush_packets": "1"}
_HYBRID_SINCE = (61, 7)  # libavformat
SQUARE = Fraction(1)


def codec_of(path: Path, codecs: Mapping[str, dict[str, str]]) -> str:
    """The first of `codecs` that this build of FFmpeg can encode; `OutputError` about `path` if there is none."""
    codec = next((name for name in codecs if name in av.codecs_available), None)
    if codec is None:
        raise OutputError(f"{path}: FFmpeg has no encoder of {', '.join(codecs)}; pip install av")
    return codec


def add_stream(
    container: OutputContainer,
    codec: str,
    options: dict[str, str],
    size: tuple[int, int],
    rate: Fraction,
    sample_aspect: Fraction = SQUARE,
) -> VideoStream:
    """A video stream of (width, height) `size`, made even: yuv420p, BT.709 limited range, and flagged so.

    `sample_aspect` is how wide a pixel is shown, for its height.
    """
    stream = container.add_stream(codec, rate=rate, options=options)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = (side + side % 2 for side in size)
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = TICK
    context.sample_aspect_ratio = sample_aspect
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.color_primaries = context.color_trc = _BT709
    return stream


def as_yuv(image_hwc: ImageU8, pts: int) -> av.VideoFrame:
    """A picture, uint8 RGB [H, W, 3], as such a stream takes it, `pts` ticks from its beginning.

    An odd side gets one more row or column, a repeat of the last.
    """
    bottom, right = image_hwc.shape[0] % 2, image_hwc.shape[1] % 2
    if bottom or right:
        image_hwc = np.asarray(cv2.copyMakeBorder(image_hwc, 0, bottom, 0, right, cv2.BORDER_REPLICATE), np.uint8)
    frame = av.VideoFrame.from_ndarray(image_hwc, format="rgb24").reformat(
        format="yuv420p",
        src_color_range=ColorRange.JPEG,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation="AREA",
    )
    frame.pts, frame.time_base = pts, TICK
    return frame


class Tape:
    """A file that a muxer writes to; after a failure, or when it is `over`, it takes no byte more."""

    def __init__(self, path: Path) -> None:
        self._file, self.over = path.open("wb", buffering=0), False
        self.seek, self.tell = self._file.seek, self._file.tell

    def write(self, data: bytes) -> int:
        if self.over:
            raise OSError(errno.EIO, "nothing more is written after a failure")
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError:
            self.over = True
            raise
        return len(data)

    def close(self) -> None:
        self._file.close()


def whole_bytes(path: Path) -> int:
    """Where the last whole fragment, or piece of data, of an MP4 ends; `OSError` if it cannot be read."""
    start = end = 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while len(head := file.read(16)) >= 8:
            length = int.from_bytes(head[:4], "big")
            if length == 1:  # it does not fit into four bytes, and follows
                length = int.from_bytes(head[8:], "big")
            start += length
            if length < 8 or start > size:
                break
            end = start if head[4:8] == b"mdat" else end
            file.seek(start)
    return end


class Mp4Writer:
    """Writes pictures of one size, one after another, at a fixed rate; a context manager.

    Nothing lies under `path` before `close`; a failure, or `abort`, leaves nothing. With `at_once` it lies there from
    the beginning, and plays up to its last whole half second whatever becomes of its writer. MP4, H.264 where FFmpeg
    can, yuv420p, BT.709 limited range, and flagged so. An odd side gets one more row or column, a repeat of the last.
    `sample_aspect` is how wide a pixel is shown, for its height.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        fps: float | Fraction,
        *,
        sample_aspect: Fraction = SQUARE,
        at_once: bool = False,
    ) -> None:
        """Open the file, or raise `OutputError`."""
        self.path, self._width, self._height = path, width, height
        try:
            if path.is_dir():
                raise OutputError(f"{path}: is a folder; expected the name of a video file; add one, as overlay.mp4")
            codec = codec_of(path, _CODECS)
            self._rate, self._last_pts = Fraction(fps).limit_denominator(1001), -1
            self._at_once = at_once
            self._part = path if at_once else part_of(path)
            self._tape = Tape(self._part)
            muxer = _HYBRID if at_once and av.library_versions["libavformat"] >= _HYBRID_SINCE else {}
            self._container = av.open(self._tape, "w", format="mp4", options=muxer)
            options, size = _CODECS[codec], (width, height)
            self._stream = add_stream(self._container, codec, options, size, self._rate, sample_aspect)
        except FAILURES as e:
            if hasattr(self, "_tape"):
                self._tape.close()
                discard(self._part)
            raise unwritable(path, e) from e
        self._held: av.Packet[VideoStream] | None = None
        self._open = True
        self.frames = 0

    def write(self, image_hwc: ImageU8, seconds: float | None = None) -> None:
        """Append one picture, uint8 RGB [H, W, 3]; `OutputError` if it has another size or cannot be written.

        `seconds` is when it is to be shown, for pictures that come at uneven times; without it, at the fixed rate.
        """
        if not self._open:
            raise OutputError(f"{self.path}: the recording is closed; expected an open one; begin another")
        if image_hwc.shape != (self._height, self._width, 3):
            size = "x".join(map(str, image_hwc.shape[1::-1]))
            raise OutputError(f"{self.path}: picture {self.frames} is {size}; expected {self._width}x{self._height}")
        try:
            due = self.frames / self._rate if seconds is None else Fraction(seconds)
            self._last_pts = max(self._last_pts + 1, round(due / TICK))
            frame = as_yuv(image_hwc, self._last_pts)
            self._mux(self._stream.encode(frame))
        except FAILURES as e:
            self.abort()
            raise unwritable(self.path, e) from e
        self.frames += 1

    def close(self) -> None:
        """Finish the file and give it its name; `OutputError`, and no file, if that fails. May be called again.

        Without a picture there is no file.
        """
        if not self._open:
            return
        if not self.frames:
            self.abort()
            return
        try:
            self._mux(self._stream.encode(None), last=True)
            self._container.close()
            self._tape.close()
            commit(self._part, self.path)
            self._open = False
        except FAILURES as e:
            raise unwritable(self.path, e) from e
        finally:
            self.abort()

    def _mux(self, packets: Iterable[av.Packet[VideoStream]], last: bool = False) -> None:
        """Write packets, each as long as it is till the next one; the last is as long as the rate says."""
        for packet in [*packets, None] if last else packets:
            if self._held is not None:
                shown = round(1 / self._rate / TICK) if packet is None else (packet.pts or 0) - (self._held.pts or 0)
                self._held.duration = max(1, shown)
                self._container.mux(self._held)
            self._held = packet

    def abort(self) -> None:
        """Stop, and leave nothing behind; with `at_once`, what is whole."""
        if not self._open:
            return
        self._open = False
        self._tape.over = True  # an index that cannot be written whole would hide what plays without it
        with suppress(*FAILURES):
            self._container.close()
        self._tape.close()
        if self._at_once and self.frames:
            with suppress(OSError):
                os.truncate(self._part, whole_bytes(self._part))
        else:
            discard(self._part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
