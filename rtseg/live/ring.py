"""Values handed from one process to others through shared memory: one writer, any number of readers, nobody waits.

The memory is a memfd: it has no name, so nothing is left behind however the processes end. Its entries are numbered
from 0, for ever, also when the writer dies and another goes on. An entry's bytes lie in an arena that is written round
and round; what is overwritten is invalid before its first byte changes, and a reader that was overtaken is told so.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from ..base.types import ImageU8

_HEAD_BYTES = 64
_FIELDS = 4  # of an entry: index + 1 (0: invalid), start, payload bytes, meta bytes
_BARRIER = threading.Lock()


def _fence() -> None:
    """Keep the loads and stores before this before those after it: x86 does so anyway, ARM needs a lock's barrier."""
    with _BARRIER:
        pass


@dataclass(frozen=True, slots=True)
class Plan:
    """How large a ring is: at most `entries` values, of at most `arena` bytes together, each with `meta` bytes at most.

    Bytes that are never touched cost nothing.
    """

    entries: int
    arena: int
    meta: int = 1024

    def as_in(self, fd: int) -> Plan:
        """The plan of a ring that was made with another arena."""
        return replace(self, arena=os.fstat(fd).st_size - self.table_end)

    @property
    def entry(self) -> int:
        return 8 * _FIELDS + self.meta

    @property
    def table_end(self) -> int:
        return _HEAD_BYTES + self.entries * self.entry

    @property
    def size(self) -> int:
        return self.table_end + self.arena


class Ring:
    """A ring in the memory `fd`, which `create` made; `bells` are the eventfds of its readers, for the writer."""

    def __init__(self, fd: int, plan: Plan, bells: Sequence[int] = ()) -> None:
        self.fd, self._plan, self._bells = fd, plan, tuple(bells)
        self._map = mmap.mmap(fd, plan.size)
        whole = np.frombuffer(self._map, np.uint8)
        self._head = whole[:16].view(np.int64)  # the next index, and where in the endless arena it would start
        rows = whole[_HEAD_BYTES : plan.table_end].reshape(plan.entries, plan.entry)
        self._fields = rows[:, : 8 * _FIELDS].view(np.int64)
        self._metas = rows[:, 8 * _FIELDS :]
        self._arena = whole[plan.table_end :]

    @staticmethod
    def create(name: str, plan: Plan) -> int:
        """New shared memory, all zero: an empty ring."""
        fd = os.memfd_create(f"rtseg-{name}")
        os.ftruncate(fd, plan.size)
        return fd

    @property
    def head(self) -> int:
        """The index that the next entry will have: how many there were so far."""
        return int(self._head[0])

    def write(self, meta: bytes, payload: ImageU8) -> int:
        """Add an entry: `meta`, and the bytes of a contiguous array; returns its index.

        `ValueError` if it is larger than the ring.
        """
        flat = payload.reshape(-1)
        if len(meta) > self._plan.meta or flat.size > self._plan.arena:
            most = f"{self._plan.meta} + {self._plan.arena}"
            raise ValueError(f"{len(meta)} + {flat.size} bytes; expected at most {most}")
        index, start = int(self._head[0]), int(self._head[1])
        if start % self._plan.arena + flat.size > self._plan.arena:
            start += -start % self._plan.arena  # an entry lies in one piece
        row = index % self._plan.entries
        overtaken = (self._fields[:, 0] > 0) & (self._fields[:, 1] + self._plan.arena < start + flat.size)
        self._fields[overtaken, 0] = 0
        self._fields[row, 0] = 0
        _fence()
        at = start % self._plan.arena
        self._arena[at : at + flat.size] = flat
        self._metas[row, : len(meta)] = np.frombuffer(meta, np.uint8)
        self._fields[row, 1:4] = start, flat.size, len(meta)
        _fence()
        self._fields[row, 0] = index + 1
        self._head[1] = start + flat.size
        self._head[0] = index + 1
        for bell in self._bells:
            ring_bell(bell)
        return index

    def read(self, index: int) -> tuple[bytes, ImageU8] | None:
        """The meta and a copy of the payload, uint8 [N]; None if it is not there, any more or yet."""
        row = index % self._plan.entries
        if not self.holds(index):
            return None
        _fence()  # what is read from here on was written before the index that was seen,
        _, start, size, meta_size = (int(n) for n in self._fields[row])
        at = start % self._plan.arena
        meta = self._metas[row, :meta_size].tobytes()
        flat = self._arena[at : at + size].copy()
        _fence()  # and was read before it is asked whether it still is there
        return (meta, flat) if self.holds(index) else None

    def meta(self, index: int) -> bytes | None:
        """The meta alone."""
        row = index % self._plan.entries
        if not self.holds(index):
            return None
        _fence()
        meta = self._metas[row, : int(self._fields[row, 3])].tobytes()
        _fence()
        return meta if self.holds(index) else None

    def holds(self, index: int) -> bool:
        """Whether an entry can be read now."""
        return index >= 0 and int(self._fields[index % self._plan.entries, 0]) == index + 1


def new_bell() -> int:
    """An eventfd by which one reader is woken."""
    return os.eventfd(0, os.EFD_NONBLOCK)


def ring_bell(bell: int) -> None:
    """Wakeup its reader."""
    with suppress(BlockingIOError):  # a reader that has not looked for 2 ** 64 rings
        os.eventfd_write(bell, 1)


def quiet(bell: int) -> None:
    """Take in the wake-ups so far."""
    with suppress(BlockingIOError):
        os.eventfd_read(bell)
