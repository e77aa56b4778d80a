"""A ring buffer in shared memory, with one writer and any number of readers, none of which ever waits.

The memory is a memfd: it has no name, so it is freed when the processes end. Entries are numbered from 0 without end,
also when the writer dies and another takes over. Their payloads lie in an arena that is reused in a circle. An entry is
marked invalid before its first byte is overwritten; a reader that is overtaken gets None.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...base.types import ImageU8
from .wakeup import WakeUp

_HEAD_BYTES = 64
_FIELDS = 4  # of an entry: index + 1 (0: invalid), start, payload bytes, header bytes
_BARRIER = threading.Lock()


def _fence() -> None:
    """Order the loads and stores before this call before those after it: ARM needs a lock's barrier, x86 nothing."""
    with _BARRIER:
        pass


@dataclass(frozen=True, slots=True)
class RingSize:
    """The size of a ring: at most `entries` values, `arena` bytes for all payloads, `header` bytes for each header.

    The kernel allocates bytes when they are first written.
    """

    entries: int
    arena: int
    header: int = 1024

    def with_arena_of(self, fd: int) -> RingSize:
        """The size of the ring in the memory `fd`, which differs from this at most in its arena."""
        return replace(self, arena=os.fstat(fd).st_size - self.table_end)

    @property
    def entry(self) -> int:
        return 8 * _FIELDS + self.header

    @property
    def table_end(self) -> int:
        return _HEAD_BYTES + self.entries * self.entry

    @property
    def total(self) -> int:
        """Bytes of shared memory."""
        return self.table_end + self.arena


class Ring:
    """A ring in the memory `fd`, which `create` made. The writer sets `wake_ups`, one for each reader."""

    def __init__(self, fd: int, size: RingSize, wake_ups: Sequence[WakeUp] = ()) -> None:
        self.fd, self._size, self._wake_ups = fd, size, tuple(wake_ups)
        self._map = mmap.mmap(fd, size.total)
        whole = np.frombuffer(self._map, np.uint8)
        self._head = whole[:16].view(np.int64)  # the next index, and its start in bytes since entry 0
        rows = whole[_HEAD_BYTES : size.table_end].reshape(size.entries, size.entry)
        self._fields = rows[:, : 8 * _FIELDS].view(np.int64)
        self._headers = rows[:, 8 * _FIELDS :]
        self._arena = whole[size.table_end :]

    @staticmethod
    def create(name: str, size: RingSize) -> int:
        """New shared memory, all zero, which is an empty ring; returns its descriptor."""
        fd = os.memfd_create(f"rtseg-{name}")
        os.ftruncate(fd, size.total)
        return fd

    @property
    def entries(self) -> int:
        """The most entries that it holds at once."""
        return self._size.entries

    @property
    def head(self) -> int:
        """The index of the next entry, which is the number of entries written so far."""
        return int(self._head[0])

    def write(self, header: bytes, payload: ImageU8) -> int:
        """Add an entry: a header and the bytes of a contiguous array; returns its index.

        `ValueError` if it is larger than the ring.
        """
        flat = payload.reshape(-1)
        if len(header) > self._size.header or flat.size > self._size.arena:
            most = f"{self._size.header} + {self._size.arena}"
            raise ValueError(f"{len(header)} + {flat.size} bytes; expected at most {most}")
        index, start = int(self._head[0]), int(self._head[1])
        if start % self._size.arena + flat.size > self._size.arena:
            start += -start % self._size.arena  # a payload lies in one piece
        row = index % self._size.entries
        overwritten = (self._fields[:, 0] > 0) & (self._fields[:, 1] + self._size.arena < start + flat.size)
        self._fields[overwritten, 0] = 0
        self._fields[row, 0] = 0
        _fence()
        at = start % self._size.arena
        self._arena[at : at + flat.size] = flat
        self._headers[row, : len(header)] = np.frombuffer(header, np.uint8)
        self._fields[row, 1:4] = start, flat.size, len(header)
        _fence()
        self._fields[row, 0] = index + 1
        self._head[1] = start + flat.size
        self._head[0] = index + 1
        for wake_up in self._wake_ups:
            wake_up.set()
        return index

    def read(self, index: int) -> tuple[bytes, ImageU8] | None:
        """The header and a copy of the payload, uint8 [N]; None if the entry is overwritten or not written yet."""
        row = index % self._size.entries
        if not self.holds(index):
            return None
        _fence()  # the entry is read after the index was seen,
        _, start, size, header_size = (int(n) for n in self._fields[row])
        at = start % self._size.arena
        header = self._headers[row, :header_size].tobytes()
        flat = self._arena[at : at + size].copy()
        _fence()  # and before the index is checked again
        return (header, flat) if self.holds(index) else None

    def header(self, index: int) -> bytes | None:
        """The header alone; None as for `read`."""
        row = index % self._size.entries
        if not self.holds(index):
            return None
        _fence()
        header = self._headers[row, : int(self._fields[row, 3])].tobytes()
        _fence()
        return header if self.holds(index) else None

    def holds(self, index: int) -> bool:
        """Whether an entry can be read now."""
        return index >= 0 and int(self._fields[index % self._size.entries, 0]) == index + 1
