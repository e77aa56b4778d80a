"""Whether a slice of H.264 was decoded to its end: the one sign of a byte that was changed, where none else is left.

Arithmetic coding (CABAC) goes on after damage, with pictures of noise; FFmpeg stops at the last macroblock and does
not ask whether all data was used. So a second decoder is given each slice without its last bytes: of a whole slice
it misses them, and says so; of a damaged one, that took less than there is, it does not.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import av
import av.logging
import numpy as np

from .demux import Unit
from .whole import DAMAGED, Packet, PacketNumber

CUTS = (6, 8, 7, 9, 10)  # bytes; some slices end in what a decoder does without
SLICES, PARAMETERS = (1, 5), 8  # types of unit
# Bytes of a slice that is asked about: shorter ones hold a still picture, which decodes the same, cut or not.
LEAST = 100
MOST_GROUP = 300  # pictures between key frames that are kept to be decoded again; those after are not asked
AHEAD, TRIAL = 3, 10  # packets that are asked before they are needed; the same until the stream is trusted
# What a slice's last bytes are replaced by: a picture that stays the same with each of them does not depend on them.
TAILS = (b"\xff" * 6, b"\x55" * 6, b"\xaa" * 6, b"\x01" * 6, b"\xf0\x0d\x96" * 2)


def proven(units: Iterator[Unit], stream: av.VideoStream) -> Iterator[Unit]:
    """The same units, those marked as broken that do not hold; asked in a thread, a few ahead.

    A stream whose first pictures mostly do not hold is not damaged, but padded: it is not asked.
    """
    proof = Proof(stream)
    ahead: deque[tuple[Unit, Future[bool | None] | None]] = deque()
    trusted = False
    with ThreadPoolExecutor(1, "rtseg-proof") as pool:
        for unit in units:
            ahead.append((unit, None if unit.broken else pool.submit(proof.holds, unit.packet)))
            if not trusted and len(ahead) == TRIAL:
                trusted = _is_trusted([future.result() for _, future in ahead if future])
                if not trusted:
                    break
            if len(ahead) > (AHEAD if trusted else TRIAL):
                yield _answered(*ahead.popleft())
        trusted = trusted or _is_trusted([future.result() for _, future in ahead if future])
        while ahead:
            unit, future = ahead.popleft()
            yield _answered(unit, future if trusted else None)
    yield from units


def _is_trusted(answers: list[bool | None]) -> bool:
    asked = [answer for answer in answers if answer is not None]
    return sum(asked) >= 0.7 * len(asked)


def _answered(unit: Unit, answer: Future[bool | None] | None) -> Unit:
    if answer is not None and answer.result() is False:
        unit.broken = DAMAGED
    return unit


def can_prove(stream: av.VideoStream) -> bool:
    """Whether slices of this stream can be asked: those of H.264 with arithmetic coding."""
    if stream.codec_context.name != "h264":
        return False
    found = list(_parameters(stream.codec_context.extradata or b""))
    return not found or any(_is_arithmetic(unit) for unit in found)


def _parameters(extradata: bytes) -> Iterator[bytes]:
    """The picture parameter sets."""
    if extradata[:1] != b"\1":
        yield from (unit for unit in extradata.split(b"\0\0\1") if unit and unit[0] & 31 == PARAMETERS)
        return
    if len(extradata) < 7:
        return
    place = 6
    for _ in range(extradata[5] & 31):  # sequence parameter sets
        place += 2 + int.from_bytes(extradata[place : place + 2], "big")
    place += 1
    for _ in range(extradata[place - 1] if place <= len(extradata) else 0):
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
        self._arithmetic = any(_is_arithmetic(unit) for unit in _parameters(data))
        self._group: list[bytes] = []  # since the latest key frame
        self._askers = self._fresh()
        self._held: tuple[list[bytes], int] = ([], 0)  # the group of the latest picture that held, and how far

    def holds(self, packet: Packet) -> bool | None:
        """Whether the decoder needs the last bytes of a picture, as it does of a whole one; None: it was not asked."""
        data = bytes(packet)
        if packet.is_keyframe:
            self._begin(data)
        if not self._arithmetic or len(self._group) == MOST_GROUP or not (self._group or packet.is_keyframe):
            return None
        self._group.append(data)
        slices = self._slices(data)
        if not slices or any(end - start < LEAST for start, end in slices):
            return None
        if self._missed(self._group, slices, self._askers):
            self._held = (self._group, len(self._group))
            return True
        if self._matters(data, slices[-1]):
            return True
        # A false alarm costs good pictures: fresh decoders are asked, too, and whether FFmpeg's log still reaches us.
        if self._missed(self._group, slices, self._fresh()) or not self._hears():
            return None
        return False

    def _fresh(self) -> list[_Asker]:
        return [_Asker(self._extradata) for _ in CUTS]

    def _missed(self, group: list[bytes], slices: list[tuple[int, int]], askers: Sequence[_Asker]) -> bool:
        """Whether a decoder misses the last bytes of each slice of the group's last picture."""
        for cut, asker in zip(CUTS, askers, strict=True):
            asker.follow(group)
            if asker.misses(self._shortened(group[-1], slices, cut)) >= len(slices):
                return True
        return False

    def _hears(self) -> bool:
        """Whether the latest picture that held still does: somebody may have silenced FFmpeg's log since."""
        pictures, count = self._held
        if not count:
            return True
        group = pictures[:count]
        return self._missed(group, self._slices(group[-1]), self._fresh())

    def _slices(self, data: bytes) -> list[tuple[int, int]]:
        return [(start, end) for start, end in self._units(data) if data[start] & 31 in SLICES]

    def _begin(self, data: bytes) -> None:
        self._group = []
        for asker in self._askers:
            asker.at = 0
        found = [] if self._length_size else list(_parameters(data))
        if found:
            self._arithmetic = any(_is_arithmetic(unit) for unit in found)

    def _matters(self, data: bytes, last: tuple[int, int]) -> bool:
        """Whether the picture changes with the last bytes of its last slice: slow, and sure."""
        start, end = last[1] - 1 - len(TAILS[0]), last[1] - 1
        plain = self._pictured(data)
        if not plain.size:
            return True
        for tail in TAILS:
            changed = data[:start] + tail[: end - start] + data[end:]
            seen = self._pictured(changed)
            if not np.array_equal(plain, seen):
                # Blocks that were not decoded at all hold whatever was in memory, and differ by themselves.
                return np.array_equal(plain, self._pictured(data)) and np.array_equal(seen, self._pictured(changed))
        return False

    def _pictured(self, data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The values of the group's last picture, if its data were `data`."""
        decoder = av.CodecContext.create("h264", "r")
        assert isinstance(decoder, av.VideoCodecContext)
        decoder.extradata, decoder.copy_opaque, decoder.thread_count = self._extradata, True, 1
        decoder.options = {"err_detect": "explode", "ec": "0"}  # concealment may well repeat what was there
        picture: av.VideoFrame | None = None
        for number, coded in enumerate([*self._group[:-1], data, None]):
            packet = None if coded is None else av.Packet(coded)
            if packet is not None:
                packet.opaque = PacketNumber(number)
            with suppress(av.FFmpegError):
                for shown in decoder.decode(packet):
                    picture = shown if shown.opaque == len(self._group) - 1 else picture
        planes = [] if picture is None else picture.planes  # a slice often ends in the chroma of its last block
        return np.frombuffer(b"".join(bytes(plane) for plane in planes), np.uint8)

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
    """A second decoder, which conceals no damage; it has decoded the first `at` pictures of the group."""

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
