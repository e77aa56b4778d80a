"""Writes pictures to a fragmented MP4, which plays up to its last complete fragment if its writer is killed.

A fragment is about one second, starts with a key frame, and is written to the file at once. So a killed process loses
only the pictures since the last key frame; on a full disk, an incomplete fragment is removed again. Nothing waits for
the disk: a power cut also loses what the kernel has not written yet, on Linux about 30 s.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.frame import PictureType

from ..base.errors import OutputError
from ..base.files import unwritable
from ..base.types import ImageU8
from .event_log import check_not_replaced, write_all_or_nothing
from .mp4_writer import FAILURES, SQUARE, TICK, add_stream, as_yuv, codec_of

# Fast rather than small, without delayed pictures, because a network runs beside it. 720p takes 8 ms, 30 MB a minute.
_CODECS = {
    "libx264": {"preset": "ultrafast", "tune": "zerolatency", "crf": "23", "forced-idr": "1"},
    "libopenh264": {"b": "6000000"},
    "mpeg4": {"qscale": "3", "flags": "qscale"},
}
_MUXER = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
_FRAGMENT = round(1 / TICK)  # ticks between the key frames that are requested
_NO_KEY = 500  # frames after which the encoder makes a key frame itself; requested ones come earlier


@dataclass(frozen=True, slots=True)
class Seal:
    """A range of bytes that is final, with its number of pictures and its hash; `end` is excluded."""

    start: int
    end: int
    frames: int
    sha256: str
    closed: bool = False  # it is the end of the file


class _Sink:
    """The muxer's output. It cannot seek, so every byte is final."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


class FragmentedMp4:
    """Writes pictures of one size to a new file, with the times of their capture as timestamps.

    MP4; H.264 if FFmpeg has an encoder; yuv420p, BT.709, limited range, and tagged so. An odd side gets one more row or
    column. `sealed` is called with each range as soon as it is in the file. Only the owner may read the file.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        fps: float | Fraction,
        sealed: Callable[[Seal], None],
        sample_aspect: Fraction = SQUARE,
    ) -> None:
        """Create the file; `OutputError` if it exists already or cannot be made."""
        self.path, self._sealed = path, sealed
        codec = codec_of(path, _CODECS)
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as e:
            raise unwritable(path, e) from e
        self._sink, self._bytes, self._open = _Sink(), 0, True
        self._container = av.open(self._sink, "w", format="mp4", options=_MUXER)
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = add_stream(self._container, codec, _CODECS[codec], (width, height), rate, sample_aspect)
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.gop_size = _NO_KEY
        self._first_ns, self._pts, self._key_pts = 0, -1, -_FRAGMENT

    def write(self, image_hwc: ImageU8, captured_ns: int) -> None:
        """Append a picture, uint8 RGB [H, W, 3]; if it cannot be written, the file is closed, with an `OutputError`.

        A picture that was captured no later than the previous one gets the next tick.
        """
        if self._pts < 0:
            self._first_ns = captured_ns
        self._pts = max(self._pts + 1, round(Fraction(captured_ns - self._first_ns, 10**9) / TICK))
        try:
            frame = as_yuv(image_hwc, self._pts)
            if self._pts - self._key_pts >= _FRAGMENT:
                frame.pict_type, self._key_pts = PictureType.I, self._pts
            self._container.mux(self._stream.encode(frame))
            self._commit()
        except FAILURES as e:
            self.abort()
            raise unwritable(self.path, e) from e

    def _commit(self, closed: bool = False) -> None:
        """Write what the muxer has finished to the file; on an `OSError`, nothing of it remains."""
        data = self._sink.take()
        if not data:
            return
        start = self._bytes
        write_all_or_nothing(self._file, data, start)
        self._bytes += len(data)
        self._sealed(Seal(start, self._bytes, count_frames(data), hashlib.sha256(data).hexdigest(), closed))

    def check(self) -> None:
        """`OutputError` if the file is no longer there under its name."""
        check_not_replaced(self._file, self.path)

    def close(self) -> None:
        """Write the rest, and wait for the disk; `OutputError` if that fails. May be called again."""
        if not self._open:
            return
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._commit(closed=True)
            os.fsync(self._file)
        except FAILURES as e:
            raise unwritable(self.path, e) from e
        finally:
            self.abort()

    def abort(self) -> None:
        """Stop. The file stays as it is, without the fragment that was begun."""
        if self._open:
            self._open = False
            os.close(self._file)
            with suppress(*FAILURES):
                self._container.close()  # into the sink, which is no longer read


def _boxes(data: bytes | memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The complete boxes of an MP4, in order: type and content. A truncated or invalid box ends them."""
    view = memoryview(data)
    while len(view) >= 8:
        size = int.from_bytes(view[:4], "big")
        if not 8 <= size <= len(view):
            return
        yield bytes(view[4:8]), view[8:size]
        view = view[size:]


def count_frames(data: bytes | memoryview) -> int:
    """How many pictures the complete fragments in these bytes hold."""
    frames = waiting = 0
    for kind, content in _boxes(data):
        if kind == b"moof":
            tracks = (track for inner, track in _boxes(content) if inner == b"traf")
            runs = (run for track in tracks for inner, run in _boxes(track) if inner == b"trun")
            waiting = sum(int.from_bytes(run[4:8], "big") for run in runs)
        elif kind == b"mdat":
            frames, waiting = frames + waiting, 0
    return frames


def seal_rest(path: Path, start: int) -> Seal | None:
    """A seal of the bytes after `start` in a file whose writer died; None if there are none.

    `OutputError` if the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise OutputError(f"{path}: cannot be read ({e.strerror}); expected the video of a recording") from e
    return Seal(start, start + len(data), count_frames(data), hashlib.sha256(data).hexdigest()) if data else None
