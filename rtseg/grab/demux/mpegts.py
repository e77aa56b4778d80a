"""Lost packets in MPEG-TS: its packets carry a continuity counter, so a missing packet leaves a gap in the count.

FFmpeg sees the gap too, but flags the wrong picture, because its parser is one picture late. So the counters are
checked here, and matched to pictures by the file position that FFmpeg states for each.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ...base.types import ImageU8

PACKET = 188
SIZES = (188, 192, 204)  # bare, with a clock before it (Blu-ray, AVCHD), with parity behind it
CHUNK = 1 << 20
LOST, GARBLED = "packets of the stream are missing", "packets of the stream are garbled"
Rows = npt.NDArray[np.int64]


class TsScanner:
    """Finds the pictures of one stream (`pid`) that lost packets.

    It reads `file` up to the position of each call; without a file, `scan` takes the bytes that another object reads.
    TS packets of 188 bytes hold pieces of PES packets; a PES packet is usually one picture.
    """

    def __init__(self, file: BinaryIO | None, pid: int) -> None:
        self._file, self._pid = file, pid
        self._rest, self._at = b"", 0  # bytes of an incomplete packet, and their position in the file
        self._size = 0
        self._count = -1  # continuity counter of the stream's latest packet; -2: unknown after a loss
        self._has_stuffing = False  # the latest packet has stuffing, so it is the last of its picture
        self._starts: list[int] = []  # positions where pictures (PES packets) start
        self._damaged: dict[int, str] = {}  # why a picture is damaged, by its start
        self._gaps_before: dict[int, str] = {}  # why something is missing before a picture, by its start
        self._truncated: set[int] = set()  # starts of pictures whose end may be missing
        self._aligned = True
        self._others: dict[int, tuple[int, int]] = {}  # counter and position of the latest packet of each other stream
        # The latest loss in another stream: its pid, and between which positions.
        self._missed: tuple[int, int, int] | None = None
        # Ranges of positions in which several other streams lost packets.
        self._lost_by_others: list[tuple[int, int]] = []
        self._gaps: list[tuple[int, int]] = []  # ranges of positions in which this stream lost packets
        self._at_last = 0  # position of its latest packet
        self._open = False  # nothing shows that the latest picture is complete
        self.ended = self.cut = False

    def damage(self, start: int, end: int | None) -> str:
        """Why the picture that starts at byte `start` is damaged, "" if it is not; the next picture starts at `end`."""
        self._read_to(end)
        for begin, stop in self._lost_by_others:
            known = any(before < stop and begin < place for before, place in self._gaps)
            if not known and start < stop and (end is None or end > begin):
                return LOST
        if not self._aligned and end is not None:
            end += 1  # pictures do not start with PES packets: this one reaches into the next packet
        first, last = bisect_left(self._starts, start), len(self._starts)
        last = last if end is None else bisect_left(self._starts, end)
        return next((why for s in self._starts[first:last] if (why := self._damaged.get(s))), "")

    def maybe_truncated(self, start: int, end: int | None) -> bool:
        """Whether the end of the picture that starts at byte `start` may be missing."""
        self._read_to(end)
        return any(start <= s and (end is None or s < end) for s in self._truncated)

    def gap_before(self, start: int, last_start: int | None) -> str:
        """Why something is missing between the picture at `start` and the one before it; "" if nothing is."""
        self._read_to(start + 1)
        first = 0 if last_start is None else bisect_right(self._starts, last_start)
        among = self._starts[first : bisect_right(self._starts, start)]
        if last_start is not None and len(among) > 1:
            return GARBLED  # a picture that starts between the two was not demuxed
        return next((why for s in among if (why := self._gaps_before.get(s))), "")

    def _read_to(self, end: int | None) -> None:
        """Read beyond the PES packet that starts at `end`; the whole file if that is None."""
        while (
            self._file is not None and not self.ended and (end is None or not self._starts or self._starts[-1] <= end)
        ):
            data = self._file.read(CHUNK)
            self.scan(data)
        if len(self._starts) > 4096 and end is not None:  # forget old pictures, so that memory stays bounded
            self._forget(self._starts[bisect_left(self._starts, end) // 2])

    def _forget(self, place: int) -> None:
        self._starts = self._starts[bisect_left(self._starts, place) :]
        self._damaged = {s: why for s, why in self._damaged.items() if s >= place}
        self._gaps_before = {s: why for s, why in self._gaps_before.items() if s >= place}
        self._lost_by_others = [pair for pair in self._lost_by_others if pair[1] >= place]
        self._truncated = {s for s in self._truncated if s >= place}
        self._gaps = [pair for pair in self._gaps if pair[1] >= place]

    def scan(self, data: bytes) -> None:
        """Scan the next bytes; no bytes mean the end."""
        self.ended = len(data) == 0
        data = self._rest + data
        if not self._size:
            self._size = _packet_size(data)
        lead = self._size - PACKET if self._size == 192 else 0
        while len(data) >= self._size:
            number = len(data) // self._size
            rows = np.frombuffer(data, np.uint8, number * self._size).reshape(number, -1)[:, lead : lead + PACKET]
            good = int(np.argmin(rows[:, 0] == 0x47)) if (rows[:, 0] != 0x47).any() else number
            self._packets(rows[:good], self._at + lead)
            data, self._at = data[good * self._size :], self._at + good * self._size
            if good < number:  # bytes are missing or inserted: find the next packet
                skip = _next_sync(data, self._size, lead)
                data, self._at, self._count = data[skip:], self._at + skip, -2
        self._rest = data
        self.cut = self.ended and bool(data)
        if self.cut and self._starts:
            self._damaged.setdefault(self._starts[-1], "the file was cut off")
        if self.ended and self._starts and self._open:
            self._truncated.add(self._starts[-1])

    def _packets(self, rows: ImageU8, at: int) -> None:
        """Note where the stream's pictures start among these packets, and where packets are missing."""
        pid = ((rows[:, 1] & 0x1F).astype(np.int64) << 8) | rows[:, 2]
        self._watch_others(rows, pid, at)
        ours = np.flatnonzero((pid == self._pid) & ((rows[:, 3] & 0x10) > 0))  # packets with a payload
        if not len(ours):
            return
        mine = rows[ours]
        counts = (mine[:, 3] & 15).astype(np.int64)
        steps = (counts - np.concatenate([[self._count if self._count >= 0 else counts[0] - 1], counts[:-1]])) & 15
        filled = (mine[:, 3] & 0x20) > 0
        announced = filled & (mine[:, 4] > 0) & ((mine[:, 5] & 0x80) > 0)  # a discontinuity that the sender announces
        garbled = (mine[:, 1] & 0x80) > 0
        odd = ((steps != 1) & ~announced) | garbled
        # A duplicate packet, which the standard allows.
        odd[1:] &= ~((steps[1:] == 0) & (mine[1:, 4:] == mine[:-1, 4:]).all(axis=1))
        odd[0] |= self._count == -2
        begins = (mine[:, 1] & 0x40) > 0
        for i in np.flatnonzero(odd | begins).tolist():
            place = int(ours[i]) * self._size + at
            if odd[i]:
                stuffed = self._has_stuffing if i == 0 else _is_last_of_picture(mine[i - 1])
                self._gaps.append((int(ours[i - 1]) * self._size + at if i else self._at_last, place))
                self._gap(place, bool(begins[i]), stuffed, GARBLED if garbled[i] else LOST)
            if begins[i]:
                self._starts.append(place)
                self._aligned &= _is_aligned(mine[i])
                if garbled[i]:
                    self._damaged[place] = GARBLED
                self._open = not _says_its_length(mine[i])
        self._count, self._has_stuffing = int(counts[-1]), _is_last_of_picture(mine[-1])
        self._open = self._open and not self._has_stuffing
        self._at_last = int(ours[-1]) * self._size + at

    def _watch_others(self, rows: ImageU8, pid: Rows, at: int) -> None:
        """Find losses that the counter cannot show: it has four bits, so 16 lost packets leave no gap.

        Such a loss hits other streams too. One other stream alone proves nothing: it may be the only one that lost
        packets.
        """
        carry = (pid != self._pid) & (pid != 0x1FFF) & ((rows[:, 3] & 0x10) > 0)
        for i in np.flatnonzero(carry).tolist():
            key, count, place = int(pid[i]), int(rows[i, 3] & 15), i * self._size + at
            last = self._others.get(key)
            self._others[key] = (count, place)
            if last is None or count in (last[0], (last[0] + 1) & 15):
                continue
            missed, self._missed = self._missed, (key, last[1], place)
            if missed and missed[0] != key and missed[1] < place and last[1] < missed[2]:
                self._lost_by_others.append((max(missed[1], last[1]), min(missed[2], place)))

    def _gap(self, place: int, begins: bool, stuffed: bool, why: str) -> None:
        if begins:
            self._gaps_before[place] = why
            if not stuffed and self._starts:
                self._truncated.add(self._starts[-1])
        elif self._starts:
            self._damaged.setdefault(self._starts[-1], why)


def _packet_size(data: bytes) -> int:
    for size in SIZES:
        lead = 4 if size == 192 else 0
        heads = data[lead : lead + 20 * size : size]
        if heads and heads.count(0x47) >= 0.9 * len(heads):
            return size
    return PACKET


def _next_sync(data: bytes, size: int, lead: int) -> int:
    """How many bytes to skip until three packets in a row seem to start."""
    place = data.find(b"\x47", lead + 1)
    while place >= 0 and any(data[p] != 0x47 for p in range(place, min(place + 3 * size, len(data)), size)):
        place = data.find(b"\x47", place + 1)
    return place - lead if place >= 0 else len(data)


def _is_last_of_picture(packet: ImageU8) -> bool:
    """Whether a packet has stuffing, as only the last packet of a picture has."""
    if not packet[3] & 0x20:
        return False
    length, flags = int(packet[4]), int(packet[5])
    if length == 0:
        return True
    needed = 1 + 6 * (flags >> 4 & 1) + 6 * (flags >> 3 & 1) + (flags >> 2 & 1)
    return not flags & 3 and length > needed


def _says_its_length(packet: ImageU8) -> bool:
    """Whether a PES packet states its length. If so, FFmpeg itself finds that it is truncated."""
    data = bytes(packet[4 + (1 + int(packet[4]) if packet[3] & 0x20 else 0) :])
    return len(data) > 5 and data[4:6] != b"\0\0"


def _is_aligned(packet: ImageU8) -> bool:
    """Whether a PES packet starts with the start of a picture."""
    data = bytes(packet[4 + (1 + int(packet[4]) if packet[3] & 0x20 else 0) :])
    payload = data[9 + data[8] :] if len(data) > 8 else b""
    return len(payload) < 4 or payload.startswith((b"\0\0\1", b"\0\0\0\1"))
