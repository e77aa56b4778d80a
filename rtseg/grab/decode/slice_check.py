"""Finds changed bytes in H.264 slices where nothing else shows them: a damaged slice is not decoded to its end.

With arithmetic coding (CABAC) a decoder continues after damage and produces noise. FFmpeg stops at the last macroblock
and does not check that all data was used. So a second decoder gets each slice without its last bytes. If the slice is
whole, the decoder reports that they are missing. If it is damaged, the decoder used less data, and reports nothing.
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

from ..demux.packet import Packet, PacketInfo, PacketNumber
from .decoder import DAMAGED

CUTS = (6, 8, 7, 9, 10)  # bytes that are cut off; the last bytes of some slices are not needed
SLICES, PARAMETERS = (1, 5), 8  # NAL unit types
# Bytes of the shortest slice that is checked: a shorter one holds a still picture, which decodes the same when cut.
MIN_SLICE = 100
MAX_GROUP = 300  # pictures since a key frame that are kept, to decode them again; later ones are not checked
LOOKAHEAD, TRIAL = 3, 10  # packets checked ahead; packets that show whether the check works for this stream
# Replacements for a slice's last bytes: a picture that is the same with each of them does not depend on those bytes.
TAILS = (b"\xff" * 6, b"\x55" * 6, b"\xaa" * 6, b"\x01" * 6, b"\xf0\x0d\x96" * 2)


def with_slice_check(packets: Iterator[PacketInfo], stream: av.VideoStream) -> Iterator[PacketInfo]:
    """The same packets, with damaged ones marked; they are checked in a thread, a few ahead.

    If the check fails for most of the first pictures, the stream is not damaged but padded, and is not checked.
    """
    check = SliceCheck(stream)
    ahead: deque[tuple[PacketInfo, Future[bool | None] | None]] = deque()
    trusted = False
    with ThreadPoolExecutor(1, "rtseg-slice-check") as pool:
        for unit in packets:
            ahead.append((unit, None if unit.damage else pool.submit(check.is_whole, unit.packet)))
            if not trusted and len(ahead) == TRIAL:
                trusted = _is_trusted([future.result() for _, future in ahead if future])
                if not trusted:
                    break
            if len(ahead) > (LOOKAHEAD if trusted else TRIAL):
                yield _marked(*ahead.popleft())
        trusted = trusted or _is_trusted([future.result() for _, future in ahead if future])
        while ahead:
            unit, future = ahead.popleft()
            yield _marked(unit, future if trusted else None)
    yield from packets


def _is_trusted(answers: list[bool | None]) -> bool:
    results = [result for result in answers if result is not None]
    return sum(results) >= 0.7 * len(results)


def _marked(unit: PacketInfo, result: Future[bool | None] | None) -> PacketInfo:
    if result is not None and result.result() is False:
        unit.damage = DAMAGED
    return unit


def can_check_slices(stream: av.VideoStream) -> bool:
    """Whether slices of this stream can be checked: those of H.264 with arithmetic coding."""
    if stream.codec_context.name != "h264":
        return False
    found = list(_parameters(stream.codec_context.extradata or b""))
    return not found or any(_uses_cabac(unit) for unit in found)


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


def _uses_cabac(unit: bytes) -> bool:
    bits = "".join(f"{byte:08b}" for byte in unit[1:9])
    place = 0
    for _ in range(2):  # two Exp-Golomb numbers precede the flag
        zeros = bits.find("1", place) - place
        if zeros < 0:
            return False
        place += 2 * zeros + 1
    return bits[place : place + 1] == "1"


class SliceCheck:
    """Checks each picture of one stream, in decoding order, with its own decoders: one for each number of cut bytes."""

    def __init__(self, stream: av.VideoStream) -> None:
        _enable_ffmpeg_log()
        self._extradata = stream.codec_context.extradata
        data = self._extradata or b""
        self._length_size = (data[4] & 3) + 1 if data[:1] == b"\1" else 0  # 0: start codes
        self._cabac = any(_uses_cabac(unit) for unit in _parameters(data))
        self._group: list[bytes] = []  # the pictures since the latest key frame
        self._probes = self._fresh()
        # The group of the latest whole picture, and how many of its pictures to decode.
        self._last_whole: tuple[list[bytes], int] = ([], 0)

    def is_whole(self, packet: Packet) -> bool | None:
        """Whether the decoder needs the last bytes of a picture, so that it is whole; None: it was not checked."""
        data = bytes(packet)
        if packet.is_keyframe:
            self._begin(data)
        if not self._cabac or len(self._group) == MAX_GROUP or not (self._group or packet.is_keyframe):
            return None
        self._group.append(data)
        slices = self._slices(data)
        if not slices or any(end - start < MIN_SLICE for start, end in slices):
            return None
        if self._detects_cut(self._group, slices, self._probes):
            self._last_whole = (self._group, len(self._group))
            return True
        if self._end_matters(data, slices[-1]):
            return True
        # A false alarm costs good pictures. So fresh decoders check again, and FFmpeg's log must still arrive here.
        if self._detects_cut(self._group, slices, self._fresh()) or not self._log_works():
            return None
        return False

    def _fresh(self) -> list[_ProbeDecoder]:
        return [_ProbeDecoder(self._extradata) for _ in CUTS]

    def _detects_cut(self, group: list[bytes], slices: list[tuple[int, int]], probes: Sequence[_ProbeDecoder]) -> bool:
        """Whether a decoder reports the last bytes of each slice of the group's last picture as missing."""
        for cut, probe in zip(CUTS, probes, strict=True):
            probe.decode_up_to(group)
            if probe.count_truncated(self._shortened(group[-1], slices, cut)) >= len(slices):
                return True
        return False

    def _log_works(self) -> bool:
        """Whether the latest whole picture still counts as whole: FFmpeg's log may have been silenced since."""
        pictures, count = self._last_whole
        if not count:
            return True
        group = pictures[:count]
        return self._detects_cut(group, self._slices(group[-1]), self._fresh())

    def _slices(self, data: bytes) -> list[tuple[int, int]]:
        return [(start, end) for start, end in self._units(data) if data[start] & 31 in SLICES]

    def _begin(self, data: bytes) -> None:
        self._group = []
        for probe in self._probes:
            probe.at = 0
        found = [] if self._length_size else list(_parameters(data))
        if found:
            self._cabac = any(_uses_cabac(unit) for unit in found)

    def _end_matters(self, data: bytes, last: tuple[int, int]) -> bool:
        """Whether the picture changes with the last bytes of its last slice: slow, but certain."""
        start, end = last[1] - 1 - len(TAILS[0]), last[1] - 1
        plain = self._decoded_picture(data)
        if not plain.size:
            return True
        for tail in TAILS:
            changed = data[:start] + tail[: end - start] + data[end:]
            seen = self._decoded_picture(changed)
            if not np.array_equal(plain, seen):
                # Blocks that were not decoded hold arbitrary memory, so they differ anyway.
                return np.array_equal(plain, self._decoded_picture(data)) and np.array_equal(
                    seen, self._decoded_picture(changed)
                )
        return False

    def _decoded_picture(self, data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The values of the group's last picture, if its data were `data`."""
        decoder = av.CodecContext.create("h264", "r")
        assert isinstance(decoder, av.VideoCodecContext)
        decoder.extradata, decoder.copy_opaque, decoder.thread_count = self._extradata, True, 1
        decoder.options = {"err_detect": "explode", "ec": "0"}  # concealment might repeat the right pixels
        picture: av.VideoFrame | None = None
        for number, coded in enumerate([*self._group[:-1], data, None]):
            packet = None if coded is None else av.Packet(coded)
            if packet is not None:
                packet.opaque = PacketNumber(number)
            with suppress(av.FFmpegError):
                for shown in decoder.decode(packet):
                    picture = shown if shown.opaque == len(self._group) - 1 else picture
        # A slice often ends in the chroma of its last block, so all planes count.
        planes = [] if picture is None else picture.planes
        return np.frombuffer(b"".join(bytes(plane) for plane in planes), np.uint8)

    def _units(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where the NAL units of a picture begin and end."""
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


def _enable_ffmpeg_log() -> None:
    """Make FFmpeg log errors so that they can be captured here, without printing them if nobody enabled its log."""
    if av.logging.get_level() is None:
        logging.getLogger("libav").setLevel(logging.CRITICAL + 1)
        av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)


class _ProbeDecoder:
    """A second decoder, without concealment. It has decoded the first `at` pictures of the group."""

    def __init__(self, extradata: bytes | None) -> None:
        self.at = 0
        self._decoder = av.CodecContext.create("h264", "r")
        self._decoder.extradata = extradata
        self._decoder.thread_count = 1  # its log lines are recognised by their thread
        self._decoder.options = {"skip_loop_filter": "all", "skip_idct": "all", "ec": "0", "flags2": "+fast"}

    def decode_up_to(self, group: list[bytes]) -> None:
        """Decode the pictures before the group's last one, which is predicted from them."""
        if self.at == 0 and self._decoder.is_open:
            self._decoder.flush_buffers()
        for data in group[self.at : -1]:
            self.count_truncated(data)
        self.at = len(group)

    def count_truncated(self, data: bytes) -> int:
        """How many slices of a picture the decoder reports as truncated."""
        with av.logging.Capture(local=True) as lines:
            try:
                self._decoder.decode(av.Packet(data))
            except av.FFmpegError:
                return 1 << 30
        return sum("MB" in line[2] or "failed" in line[2] for line in lines)
