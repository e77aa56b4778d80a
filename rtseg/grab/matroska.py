"""Matroska's clusters, some seconds of a recording each: whether their blocks follow one another, and their checksums.

FFmpeg passes over what it cannot read, without a word, up to the next cluster; it does not check the checksums.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO

from .complete import EBML, SEGMENT, number

CLUSTER, CRC = 0x1F43B675, b"\xbf\x84"
MARK = CLUSTER.to_bytes(4, "big")
# SeekHead, Info, Tracks, Cues, Chapters, Attachments, Tags, Void, CRC-32
BESIDE = (0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1043A770, 0x1941A469, 0x1254C367, 0xEC, 0xBF)
# Timestamp, SilentTracks, Position, PrevSize, SimpleBlock, BlockGroup, EncryptedBlock, Void, CRC-32
INSIDE = (0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF)
MOST = 1 << 28  # bytes of a cluster that are read at once
BROKEN = "a part of the file cannot be read"


class Clusters:
    """Which clusters of a file are damaged; reads on its own, as far as it is asked about."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self._place = file, size, 0
        self._end = -1  # of the latest element
        self._fails = False
        self._breaks: list[int] = []  # places where no element is, though one should be

    def fails(self, place: int) -> bool:
        """Whether the cluster around byte `place` is not as it was written; asked in the order of the file."""
        while self._end <= place and self._place < self._size:
            self._read_element()
        return self._fails and place < self._end

    def broken_before(self, place: int) -> bool:
        """Whether something before `place` cannot be read, that was not told before; ask `fails` first."""
        passed = [each for each in self._breaks if each < place]
        self._breaks = self._breaks[len(passed) :]
        return bool(passed)

    def broken_between(self, place: int, end: int | None) -> bool:
        """Whether something behind the block at `place` cannot be read, before `end`: maybe a part of it."""
        return any(place < each and (end is None or each < end) for each in self._breaks)

    def broken_after(self, place: int) -> bool:
        """Whether something cannot be read behind `place`, where the last block is."""
        self.fails(self._size)
        return any(place < each for each in self._breaks)

    def _read_element(self) -> None:
        self._file.seek(self._place)
        head = self._file.read(32)
        name, used = number(head, keep=True)
        length, more = number(head[used:], keep=False)
        start = self._place + used + more
        if not more or name not in (EBML, SEGMENT, CLUSTER, *BESIDE):
            self._find_next(self._place)
        elif name == SEGMENT:
            self._place = start
        elif length == (1 << (7 * more)) - 1:
            self._place = self._size  # unknown: a recorder that could not go back, and wrote no checksum
        elif name == CLUSTER:
            self._place = self._end = start + length
            self._check(start, length, head[used + more :])
        else:
            self._fails, self._place = False, start + length
            self._end = self._place

    def _find_next(self, place: int) -> None:
        """No element is at `place`: go on at the next cluster."""
        self._breaks.append(place)
        self._fails, self._end = False, place
        while place < self._size:
            self._file.seek(place)
            data = self._file.read(1 << 20)
            found = data.find(MARK)
            if found >= 0 or len(data) < len(MARK):
                break
            place += len(data) - len(MARK) + 1
        self._place = place + found if found >= 0 else self._size
        self._end = max(self._end, self._place)

    def _check(self, start: int, length: int, head: bytes) -> None:
        self._fails = False
        if length >= MOST:
            return
        self._file.seek(start)
        data = self._file.read(length)
        if head[:2] == CRC and 6 < length == len(data):
            self._fails = zlib.crc32(memoryview(data)[6:]) != int.from_bytes(head[2:6], "little")
        place = 0
        while place < len(data):  # that the file was cut off is said elsewhere
            name, used = number(data[place : place + 8], keep=True)
            size, more = number(data[place + used : place + used + 8], keep=False)
            if name not in INSIDE or not more or place + used + more + size > length:
                self._find_next(start + place)
                return
            place += used + more + size
