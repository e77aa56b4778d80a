"""Whether a slice of H.264 was decoded to its end: the one sign of a byte that was changed, where none else is left.

Arithmetic coding (CABAC) goes on after damage, with pictures of noise; FFmpeg stops at the last macroblock and does
not ask whether all data was used. So a second decoder is given each slice without its last bytes: of a whole slice
it misses them, and says so; of a damaged one, that took less than there is, it does not.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import av
import av.logging
import numpy as np

from .demux import Unit
from .whole import Packet

CUTS = (16, 8, 32, 6, 12, 48)  # bytes; some slices end in what a decoder does without
SLICES, PARAMETERS = (1, 5), 8  # types of unit
LEAST = (
    100  # bytes of a slice that is asked about: shorter ones hold a still picture, which decodes the same cut or not
)
MOST_GROUP = 300
AHEAD = 3
WHY = "its data is damaged"
TAILS = (b"\xff" * 12, b"\x55" * 12, b"\xaa" * 12, b"\x01" * 12, b"\xf0\x0d" * 6)


def proven(units: Iterator[Unit], stream: av.VideoStream) -> Iterator[Unit]:
    """The same units, those marked as broken that do not hold; asked in a thread, a few ahead."""
    proof = Proof(stream)
    ahead: deque[tuple[Unit, Future[bool] | None]] = deque()
    with ThreadPoolExecutor(1, "rtseg-proof") as pool:
        for unit in units:
            ahead.append((unit, None if unit.broken else pool.submit(proof.holds, unit.packet)))
            if len(ahead) > AHEAD:
                yield _answered(*ahead.popleft())
        while ahead:
            yield _answered(*ahead.popleft())


def _answered(unit: Unit, answer: Future[bool] | None) -> Unit:
    if answer is not None and not answer.result():
        unit.broken = WHY
    return unit


def can_prove(stream: av.VideoStream) -> bool:
    """Whether slices of this stream can be asked: those of H.264 with arithmetic coding."""
    if stream.codec_context.name != "h264":
        return False
    return any(_is_arithmetic(unit) for unit in _parameters(stream.codec_context.extradata or b""))


def _parameters(extradata: bytes) -> Iterator[bytes]:
    """The picture parameter sets."""
    if extradata[:1] != b"\1":
        yield from (unit for unit in extradata.split(b"\0\0\1") if unit and unit[0] & 31 == PARAMETERS)
        return
    place = 6
    for _ in range(extradata[5] & 31):  # sequence parameter sets
        place += 2 + int.from_bytes(extradata[place : place + 2], "big")
    for _ in range(extradata[place] if place < len(extradata) else 0):
        place += 1 if _ == 0 else 0
        length = int.from_bytes(extradata[place : place + 2], "big")
        yield extradata[place + 2 : place + 2 + length]
        place += 2 + length


def _is_arithmetic(unit: bytes) -> bool:
    bits = "".join(f"{byte:08b}" for byte in unit[1:9])
    place = 0
    for _ in range(2):  # two numbers in Exp-Golomb code
        zeros = bits.find("1", place) - place
        if zeros < 0:
            return False
        place += 2 * zeros + 1
    return bits[place : place + 1] == "1"


class Proof:
    """Asks each picture of one stream, in the order of decoding. Its own decoders, one for each cut that is needed."""

    def __init__(self, stream: av.VideoStream) -> None:
        _hear()
        self._extradata = stream.codec_context.extradata
        data = self._extradata or b""
        self._length_size = (data[4] & 3) + 1 if data[:1] == b"\1" else 0  # 0: start codes
        self._group: list[bytes] = []  # since the latest key frame
        self._askers = [_Asker(self._extradata) for _ in CUTS]

    def holds(self, packet: Packet) -> bool:
        """Whether the decoder needs the last bytes of the picture, as it does where nothing is damaged."""
        if packet.is_keyframe or len(self._group) > MOST_GROUP:
            self._group.clear()
            for asker in self._askers:
                asker.at = 0
        data = bytes(packet)
        self._group.append(data)
        slices = [(start, end) for start, end in self._units(data) if data[start] & 31 in SLICES]
        if not slices or any(end - start < LEAST for start, end in slices):
            return True
        for cut, asker in zip(CUTS, self._askers, strict=True):
            asker.follow(self._group)
            if asker.misses(self._shortened(data, slices, cut)) >= len(slices):
                return True
        return self._matters(data, slices[-1])

    def _matters(self, data: bytes, last: tuple[int, int]) -> bool:
        """Whether the picture changes with the last bytes of its last slice: slow, and sure."""
        start, end = max(last[0] + LEAST // 2, last[1] - 2 - len(TAILS[0])), last[1] - 2
        plain = self._pictured(data)
        for tail in TAILS:
            changed = data[:start] + tail[: end - start] + data[end:]
            if not np.array_equal(plain, self._pictured(changed)):
                return True
        return False

    def _pictured(self, data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The brightness of the group's last picture, if its data were `data`."""
        decoder = av.CodecContext.create("h264", "r")
        assert isinstance(decoder, av.VideoCodecContext)
        decoder.extradata, decoder.copy_opaque, decoder.thread_count = self._extradata, True, 1
        picture: av.VideoFrame | None = None
        for number, coded in enumerate([*self._group[:-1], data, None]):
            packet = None if coded is None else av.Packet(coded)
            if packet is not None:
                packet.opaque = number
            with suppress(av.FFmpegError):
                for shown in decoder.decode(packet):
                    picture = shown if shown.opaque == len(self._group) - 1 else picture
        return np.frombuffer(b"" if picture is None else bytes(picture.planes[0]), np.uint8)

    def _units(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where the units of a picture begin and end."""
        if self._length_size:
            place = 0
            while place + self._length_size < len(data):
                start = place + self._length_size
                place = start + int.from_bytes(data[place:start], "big")
                yield start, min(place, len(data))
            return
        start = data.find(b"\0\0\1") + 3
        while 3 <= start < len(data):
            following = data.find(b"\0\0\1", start)
            yield start, len(data) if following < 0 else following
            start = following + 3

    def _shortened(self, data: bytes, slices: list[tuple[int, int]], cut: int) -> bytes:
        parts, place, size = [], 0, self._length_size
        for start, end in slices:
            parts.append(data[place : start - size])
            parts.append((end - start - cut).to_bytes(size, "big") if size else b"")
            parts.append(data[start : end - cut])
            place = end
        return b"".join([*parts, data[place:]])


def _hear() -> None:
    """Have FFmpeg say what it finds, to us alone: where nobody asked for its log, nobody gets it."""
    if av.logging.get_level() is None:
        logging.getLogger("libav").setLevel(logging.CRITICAL + 1)
        av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)


class _Asker:
    """A decoder that is told of damage, and conceals nothing; it has decoded the group's pictures up to `at`."""

    def __init__(self, extradata: bytes | None) -> None:
        self.at = 0
        self._decoder = av.CodecContext.create("h264", "r")
        self._decoder.extradata = extradata
        self._decoder.thread_count = 1  # what is logged is told from others' by its thread
        self._decoder.options = {"skip_loop_filter": "all", "skip_idct": "all", "ec": "0", "flags2": "+fast"}

    def follow(self, group: list[bytes]) -> None:
        """Decode what came before the group's last picture, since a picture is read with those before it in mind."""
        if self.at == 0 and self._decoder.is_open:
            self._decoder.flush_buffers()
        for data in group[self.at : -1]:
            self.misses(data)
        self.at = len(group)

    def misses(self, data: bytes) -> int:
        """How many slices ended before their picture did."""
        with av.logging.Capture(local=True) as lines:
            try:
                self._decoder.decode(av.Packet(data))
            except av.FFmpegError:
                return 1 << 30
        return sum("MB" in line[2] or "failed" in line[2] for line in lines)
