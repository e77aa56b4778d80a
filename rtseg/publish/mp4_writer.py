"""Writes pictures to an MP4 that any player shows in the right colours. The file appears when it is complete.

With `at_once` it appears from the start, and plays as far as it was written. Use that in a folder with its own record
of whether its files are complete.
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

# The first encoder that this build of FFmpeg has is used. All are visually near-lossless (laparoscopies: a mean error
# of 0.9 levels, of which 0.3 are the colours at half resolution), and faster than real time at 720p on one core. No
# B-frames: with them FFmpeg misjudges the duration of a video with uneven timestamps.
_CODECS = {
    "libx264": {"preset": "superfast", "crf": "17", "bf": "0"},
    "libopenh264": {"b": "12000000"},
    "mpeg4": {"qscale": "2", "flags": "qscale"},
}
_BT709 = 1  # FFmpeg's number of its primaries and transfer function; only late versions of PyAV name them
# Seconds; whole for 25, 30, 50, 60 and 59.94 fps, and the finest that MPEG-4 takes is 1/65,535.
TICK = Fraction(1, 60_000)
FAILURES = (OSError, av.FFmpegError)
# In fragments of half a second until it is closed; closing makes it a plain MP4. In FFmpeg since 7.1.
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
    """Add a video stream of (width, height) `size`, rounded up to even: yuv420p, BT.709, limited range, tagged so.

    `sample_aspect`: the aspect ratio (width / height) of a pixel.
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
    """A picture, uint8 RGB [H, W, 3], as a frame of such a stream, `pts` ticks from its start.

    An odd side gets one more row or column, a copy of the last.
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


class OutputFile:
    """The muxer's output file. After a failed write, or once `over` is set, it accepts no more bytes."""

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
    """The position after the last complete fragment or data box of an MP4; `OSError` if it cannot be read."""
    start = end = 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while len(head := file.read(16)) >= 8:
            length = int.from_bytes(head[:4], "big")
            if length == 1:  # a 64-bit length follows
                length = int.from_bytes(head[8:], "big")
            start += length
            if length < 8 or start > size:
                break
            end = start if head[4:8] == b"mdat" else end
            file.seek(start)
    return end


class Mp4Writer:
    """Writes pictures of one size to an MP4; a context manager.

    The file appears under `path` when it is closed; a failure, or `abort`, leaves nothing. With `at_once` it is there
    from the start, and plays up to its last complete half second if the writer is killed. H.264 if FFmpeg has an
    encoder; yuv420p, BT.709, limited range, and tagged so. An odd side gets one more row or column, a copy of the last.
    `sample_aspect`: the aspect ratio (width / height) of a pixel.
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
            self._file_out = OutputFile(self._part)
            muxer = _HYBRID if at_once and av.library_versions["libavformat"] >= _HYBRID_SINCE else {}
            self._container = av.open(self._file_out, "w", format="mp4", options=muxer)
            options, size = _CODECS[codec], (width, height)
            self._stream = add_stream(self._container, codec, options, size, self._rate, sample_aspect)
        except FAILURES as e:
            if hasattr(self, "_file_out"):
                self._file_out.close()
                discard(self._part)
            raise unwritable(path, e) from e
        self._last_packet: av.Packet[VideoStream] | None = None
        self._open = True
        self.frames = 0

    def write(self, image_hwc: ImageU8, seconds: float | Fraction | None = None) -> None:
        """Append one picture, uint8 RGB [H, W, 3]; `OutputError` if it has another size or cannot be written.

        `seconds`: its timestamp, for pictures at uneven intervals; without it, the fixed rate applies.
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

        If no picture was written, there is no file.
        """
        if not self._open:
            return
        if not self.frames:
            self.abort()
            return
        try:
            self._mux(self._stream.encode(None), last=True)
            self._container.close()
            self._file_out.close()
            commit(self._part, self.path)
            self._open = False
        except FAILURES as e:
            raise unwritable(self.path, e) from e
        finally:
            self.abort()

    def _mux(self, packets: Iterable[av.Packet[VideoStream]], last: bool = False) -> None:
        """Write packets, each with its duration up to the next one; the last with the duration of one frame."""
        for packet in [*packets, None] if last else packets:
            if self._last_packet is not None:
                shown = (
                    round(1 / self._rate / TICK) if packet is None else (packet.pts or 0) - (self._last_packet.pts or 0)
                )
                self._last_packet.duration = max(1, shown)
                self._container.mux(self._last_packet)
            self._last_packet = packet

    def abort(self) -> None:
        """Stop, and leave no file; with `at_once`, leave what is complete."""
        if not self._open:
            return
        self._open = False
        self._file_out.over = True  # an incomplete index would make a playable file unplayable
        with suppress(*FAILURES):
            self._container.close()
        self._file_out.close()
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
