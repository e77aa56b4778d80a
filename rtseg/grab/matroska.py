"""The checksums of Matroska: each cluster, some seconds of a recording, may carry one, which FFmpeg does not check."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from .complete import EBML, SEGMENT, number

CLUSTER, CRC = 0x1F43B675, b"\xbf\x84"
MOST = 1 << 28  # bytes of a cluster that are read at once


class Checksums:
    """Which clusters of a file fail theirs; reads on its own, as far as it is asked about."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self._place = file, size, 0
        self._end = -1  # of the latest cluster
        self._fails = False

    def fails(self, place: int) -> bool:
        """Whether the cluster around byte `place` is not as it was written; asked in the order of the file."""
        while self._end <= place and self._place < self._size:
            self._file.seek(self._place)
            head = self._file.read(32)
            name, used = number(head, keep=True)
            length, more = number(head[used:], keep=False)
            if not more or (length == (1 << (7 * more)) - 1 and name != SEGMENT):
                self._place = self._size  # unknown: a recorder that could not go back, and wrote no checksum
                return False
            start = self._place + used + more
            self._place = start if name == SEGMENT else start + length
            if name == CLUSTER:
                self._fails, self._end = self._checked(start, length, head[used + more :]), start + length
            elif name not in (EBML, SEGMENT):
                self._fails, self._end = False, start + length
        return self._fails and place < self._end

    def _checked(self, start: int, length: int, head: bytes) -> bool:
        if head[:2] != CRC or not 6 < length < MOST:
            return False
        self._file.seek(start + 6)
        return zlib.crc32(self._file.read(length - 6)) != int.from_bytes(head[2:6], "little")
