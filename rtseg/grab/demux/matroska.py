"""Damage in Matroska files: broken clusters (some seconds of a recording each), and wrong checksums.

FFmpeg silently skips what it cannot read, up to the next cluster, and does not verify checksums.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO

from .stated_length import EBML, SEGMENT, read_number

CLUSTER, CRC = 0x1F43B675, b"\xbf\x84"
MARK = CLUSTER.to_bytes(4, "big")
# SeekHead, Info, Tracks, Cues, Chapters, Attachments, Tags, Void, CRC-32
TOP_LEVEL = (0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1043A770, 0x1941A469, 0x1254C367, 0xEC, 0xBF)
# Timestamp, SilentTracks, Position, PrevSize, SimpleBlock, BlockGroup, EncryptedBlock, Void, CRC-32
IN_CLUSTER = (0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF)
MAX_CLUSTER = 1 << 28  # bytes; a larger cluster is not checked
BROKEN = "a part of the file cannot be read"


class Clusters:
    """Finds damaged clusters. It reads the file up to the position of each call; call it in the order of the file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self._position = file, size, 0
        self._end = -1  # end of the latest element
        self._checksum_fails = False
        self._unreadable: list[int] = []  # positions that should hold an element, and do not

    def checksum_fails(self, position: int) -> bool:
        """Whether the checksum of the cluster around byte `position` is wrong."""
        while self._end <= position and self._position < self._size:
            self._read_element()
        return self._checksum_fails and position < self._end

    def broken_before(self, position: int) -> bool:
        """Whether something before `position`, not reported yet, cannot be read; call `checksum_fails` first."""
        passed = [each for each in self._unreadable if each < position]
        self._unreadable = self._unreadable[len(passed) :]
        return bool(passed)

    def broken_between(self, position: int, end: int | None) -> bool:
        """Whether something after the start of the block at `position`, and before `end`, cannot be read."""
        return any(position < each and (end is None or each < end) for each in self._unreadable)

    def broken_after(self, position: int) -> bool:
        """Whether something after the last block, at `position`, cannot be read."""
        self.checksum_fails(self._size)
        return any(position < each for each in self._unreadable)

    def _read_element(self) -> None:
        self._file.seek(self._position)
        head = self._file.read(32)
        name, used = read_number(head, keep=True)
        length, more = read_number(head[used:], keep=False)
        start = self._position + used + more
        if not more or name not in (EBML, SEGMENT, CLUSTER, *TOP_LEVEL):
            self._find_next(self._position)
        elif name == SEGMENT:
            self._position = start
        elif length == (1 << (7 * more)) - 1:
            self._position = self._size  # unknown length: the recorder could not seek back, and wrote no checksum
        elif name == CLUSTER:
            self._position = self._end = start + length
            self._check(start, length, head[used + more :])
        else:
            self._checksum_fails, self._position = False, start + length
            self._end = self._position

    def _find_next(self, position: int) -> None:
        """There is no element at `position`: continue at the next cluster."""
        self._unreadable.append(position)
        self._checksum_fails, self._end = False, position
        while position < self._size:
            self._file.seek(position)
            data = self._file.read(1 << 20)
            found = data.find(MARK)
            if found >= 0 or len(data) < len(MARK):
                break
            position += len(data) - len(MARK) + 1
        self._position = position + found if found >= 0 else self._size
        self._end = max(self._end, self._position)

    def _check(self, start: int, length: int, head: bytes) -> None:
        self._checksum_fails = False
        if length >= MAX_CLUSTER:
            return
        self._file.seek(start)
        data = self._file.read(length)
        if head[:2] == CRC and 6 < length == len(data):
            self._checksum_fails = zlib.crc32(memoryview(data)[6:]) != int.from_bytes(head[2:6], "little")
        position = 0
        while position < len(data):  # a file that was cut off is detected elsewhere
            name, used = read_number(data[position : position + 8], keep=True)
            size, more = read_number(data[position + used : position + used + 8], keep=False)
            if name not in IN_CLUSTER or not more or position + used + more + size > length:
                self._find_next(start + position)
                return
            position += used + more + size
