"""Any frame of a recording by its number: of a video file through an index of its packets, of images, of a drawn scene.

A frame has the number that the same picture has for `open_source`, as long as no frame of the file is damaged. Where
one is, `open_source` leaves it out and counts on; here it keeps its number and cannot be had.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Protocol

import av

from ..base.account import Account
from ..base.errors import SourceError
from ..base.types import Frame
from .decode.bitstream import is_disposable, length_size
from .decode.convert import Converter
from .decode.decoder import Decoder
from .decode.image_header import holds_images
from .decode.orientation import Orientation
from .demux.demuxer import Demuxer
from .demux.packet import Packet, PacketInfo
from .demux.parts import Part, parts_of
from .demux.timestamps import INDEX_ONLY
from .drawn_frames import DrawnFrames, check_number
from .medical import is_medical
from .opening import open_source
from .packet_index import PacketIndex, read_index
from .paths import kind_of

CACHED_BYTES = 64 << 20  # of decoded pictures that a reader keeps
BACKWARD_BYTES = 256 << 20  # and one that goes backward: 85 pictures of 1080p; a longer GOP is decoded again
LEAST_CACHED = 8
LENIENT = "crccheck"  # the decoder's strictest check takes a missing reference for damage
BEFORE = 8  # pictures before the wanted one that are decoded too, for steps back


class Frames(Protocol):
    """A recording whose frames are read in any order. Each reader belongs to one thread at a time."""

    uri: str
    width: int
    height: int
    fps: float
    count: int
    sample_aspect: Fraction
    session: str

    def frame(self, number: int) -> Frame:
        """Frame `number`, from 0; `SourceError` if there is none, or if it is damaged."""

    def near(self, number: int) -> int:
        """The number of a frame at or before `number` that is read fast: it is decoded already, or a key frame."""

    def approach(self, number: int, go_on: Callable[[], bool]) -> bool:
        """Decode up to frame `number`, asking `go_on` after each packet; whether `frame` has no more to decode."""

    def stretches(self) -> Iterator[tuple[int, int]]:
        """From each frame at which decoding can start, up to the next one: the first, and the one after the last."""

    def seconds(self, number: int) -> float:
        """The source's own time of a frame, in seconds."""

    def number_at(self, seconds: float) -> int | None:
        """The number of the frame with exactly this time; None if there is none."""

    def again(self, *, backward: bool = False) -> Frames:
        """Another reader of the same recording, for another thread; the index is shared.

        `backward`: it will go from later frames to earlier ones, and keeps all the pictures on its way to one.
        """

    def close(self) -> None:
        """Close the file."""


def open_frames(uri: str | Path, **how: Any) -> Frames:
    """Open a recording for reading in any order: a video file, an image file, a folder of images, or `synthetic:`.

    `how`: `fps`, `bits`, `window`, `plane` and such of `open_source`; None is the default. Raises `SourceError` if it
    cannot be read so.
    """
    uri = str(uri)
    path = Path(uri)
    with suppress(RuntimeError):  # that user has no home folder here
        path = path.expanduser() if uri.startswith("~") and not kind_of(uri) else path
    is_video = kind_of(str(path)) == "file" and not holds_images(path) and not is_medical(path)
    if is_video and not any(how.values()):
        return VideoFrames(path)
    source = open_source(uri, **how)
    if not hasattr(source, "frame") or not source.frame_count:
        source.close()
        raise SourceError(f"{source.uri}: its frames come in order only; expected a file or a folder of images")
    return DrawnFrames(source)


class VideoFrames:
    """The frames of a video file, decoded from the nearest key frame on. It keeps some decoded pictures."""

    width: int
    height: int
    sample_aspect: Fraction
    session: str
    _index: PacketIndex
    _orientation: Orientation

    def __init__(self, path: Path, first: VideoFrames | None = None, *, backward: bool = False) -> None:
        """`first`: a reader of the same file, whose index is used. `backward`: see `Frames.again`."""
        self.uri = str(path)
        self._lock, self._path = threading.Lock(), path
        self._demuxer = Demuxer(_only_part(path))
        stream = self._demuxer.stream
        try:
            if self._demuxer.format & set(INDEX_ONLY) or self._demuxer.bare:
                raise SourceError(f"{path}: has no timestamps; put it into MKV: ffmpeg -i {path.name} -c copy new.mkv")
            self._index = first._index if first else read_index(self._demuxer)
            self._decoder = Decoder(stream)
            if not self._index.clean:
                stream.codec_context.options = {"err_detect": LENIENT}
            self._codec = stream.codec_context.name
            self._length_size = length_size(self._codec, stream.codec_context.extradata)
            self._packets: Iterator[PacketInfo] = iter(())
            self._kept: OrderedDict[int, av.VideoFrame] = OrderedDict()
            self._backward, self._most = backward, LEAST_CACHED
            self._at = -1  # number of the latest decoded picture; -1: the next read seeks
            self._begin = 0  # the key frame at which decoding began: what is shown before it lacks its references
            self._finished = False
            self._measure(first)
        except BaseException:
            self._demuxer.close()
            raise

    def _measure(self, first: VideoFrames | None) -> None:
        """Learn size, shape and turn from the first picture."""
        stream, index = self._demuxer.stream, self._index
        self.count = index.count
        self.fps = float(stream.average_rate or stream.guessed_rate or 25)
        if first is not None:
            self._orientation, self.session = first._orientation, first.session
            self.width, self.height, self.sample_aspect = first.width, first.height, first.sample_aspect
        else:
            picture = self._picture(0)
            self._orientation, self.session = Orientation.from_picture(picture), index.session
            self.width, self.height = self._orientation.size(picture)
            self.sample_aspect = self._orientation.aspect(stream.sample_aspect_ratio)
        kept = BACKWARD_BYTES if self._backward else CACHED_BYTES
        self._most = max(LEAST_CACHED, kept // max(1, self.width * self.height * 3 // 2))
        self._convert = Converter(self.uri, "off", Account(), self._orientation)

    def frame(self, number: int) -> Frame:
        check_number(self.uri, number, self.count)
        with self._lock:
            picture = self._picture(number)
            size = self._convert.size(picture)
            if size != (self.width, self.height):
                found = f"{size[0]}x{size[1]}"
                raise SourceError(f"{self.uri}: frame {number} is {found}; expected {self.width}x{self.height}")
            image_hwc, color = self._convert(picture)
            pts, time_base = self._index.pts[number], self._index.time_base
            return Frame(
                image_hwc, number, self.session, int(pts), time_base,
                color=color, interlaced=bool(picture.interlaced_frame), sample_aspect=self.sample_aspect,
            )  # fmt: skip

    def near(self, number: int) -> int:
        with self._lock:
            if number in self._kept or 0 <= number - self._at <= BEFORE:
                return number
            return self._index.key_before(number)

    def approach(self, number: int, go_on: Callable[[], bool]) -> bool:
        check_number(self.uri, number, self.count)
        with self._lock:
            if number not in self._kept:
                self._begin_before(number)
        while True:
            with self._lock:
                if number in self._kept or not self._has_more(number):
                    return True
                self._read(number)
            if not go_on():
                return False

    def stretches(self) -> Iterator[tuple[int, int]]:
        return pairwise([*map(int, self._index.keys), self.count])

    def seconds(self, number: int) -> float:
        return float(int(self._index.pts[number]) * self._index.time_base)

    def number_at(self, seconds: float) -> int | None:
        return self._index.number_of(round(Fraction(seconds) / self._index.time_base))

    def again(self, *, backward: bool = False) -> VideoFrames:
        return VideoFrames(self._path, self, backward=backward)

    def close(self) -> None:
        with self._lock:
            self._kept.clear()
            self._demuxer.close()

    def _picture(self, number: int) -> av.VideoFrame:
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        self._begin_before(number)
        while self._has_more(number):
            self._read(number)
        if number not in self._kept:
            self._at = -1
            raise SourceError(f"{self.uri}: frame {number} is damaged; go to another one")
        return self._kept[number]

    def _begin_before(self, number: int) -> None:
        """Go to where decoding has to begin for a frame, unless it is on the way there already."""
        key = self._index.key_before(number)
        if not (self._at < number and self._at >= key) or self._finished:
            self._seek(key)

    def _has_more(self, number: int) -> bool:
        return not self._finished and self._at < number

    def _seek(self, key: int) -> None:
        """Go to a key frame. Where a container lands behind it, go to an earlier one."""
        list(self._decoder.finish())
        self._decoder.loss = None
        container, stream = self._demuxer.container, self._demuxer.stream
        begin = key
        while True:
            container.seek(self._index.seek_to[begin], stream=stream, backward=True, any_frame=False)
            packets = self._demuxer.packets()
            first = next(packets, None)
            pts = None if first is None else first.packet.pts
            if first is not None and pts is not None and (pts <= self._index.pts[key] or begin == 0):
                break
            if begin == 0:
                raise SourceError(f"{self.uri}: its key frames cannot be found again; put it into MKV")
            begin = self._index.key_before(begin - 1)
        self._packets, self._at, self._finished = chain((first,), packets), -1, False
        self._begin = self._index.number_of(pts) or 0

    def _read(self, wanted: int) -> None:
        """Decode one more packet on the way to a picture."""
        info = next(self._packets, None)
        if info is None:
            self._finished = True
            self._keep(self._decoder.finish())
            return
        packet = info.packet
        number = None if packet.pts is None else self._index.number_of(packet.pts)
        if number is None or number < self._begin or self._may_skip(packet, number, wanted):
            return
        self._keep(self._decoder.feed(packet, info.damage, info.gap, info.missing_pictures))

    def _may_skip(self, packet: Packet, number: int, wanted: int) -> bool:
        """Whether a packet's picture is needed neither by itself nor for others."""
        far = number < wanted - (self._most if self._backward else BEFORE)
        return far and not packet.is_keyframe and is_disposable(self._codec, bytes(packet), self._length_size)

    def _keep(self, pictures: Iterator[av.VideoFrame]) -> None:
        for picture in pictures:
            number = None if picture.pts is None else self._index.number_of(picture.pts)
            if number is None:
                continue
            self._at = number
            self._kept[number] = picture
            self._kept.move_to_end(number)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)


def _only_part(path: Path) -> Part:
    try:
        parts = parts_of(path)
    except OSError as e:
        raise SourceError(f"{path}: cannot be read ({e.strerror}); check the file") from e
    if len(parts) > 1:
        raise SourceError(f"{path}: {len(parts)} recordings in one file; join them: ffmpeg -f concat ... -c copy")
    return parts[0]
