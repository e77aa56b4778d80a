"""The index of an AVI file. It lists each chunk with its size, so a missing or changed chunk shows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import av

HEADER = 8  # bytes before a chunk's data
MISSING, CHANGED = "pictures that the file's index lists are missing", "its size is not what the file's index says"


class AviIndex:
    """The chunks of one stream in the index, without empty ones; compared with the packets as they are read."""

    def __init__(self, stream: av.VideoStream) -> None:
        entries = [(entry.pos, entry.size, entry.timestamp) for entry in stream.index_entries if entry.size > 0]
        self._positions = [position for position, _, _ in entries]
        self._sizes = [size for _, size, _ in entries]
        self._times = [time for _, _, time in entries]
        self._next = 0
        self._trusted = True
        self.time: int | None = None  # timestamp of the latest packet, by the index

    def before(self, position: int, sizes: Sequence[int]) -> int:
        """How many pictures are missing before the packet at byte `position`; -1: its size differs from the index.

        `sizes`: the size of this packet, and of the following one.
        """
        first, self.time = self._next, None
        if not self._trusted or first >= len(self._sizes):
            return 0
        found = self._found(position - HEADER, list(sizes))
        if first == 0 and found is None:
            self._trusted = False  # not the index of this stream
            return 0
        at = first if found is None else found
        self._next, self.time = at + 1, self._times[at]
        return -1 if self._sizes[at] != sizes[0] else at - first

    def _found(self, position: int, sizes: list[int]) -> int | None:
        first = self._next
        at = bisect_left(self._positions, position, first)
        if at < len(self._positions) and self._positions[at] == position:
            return at
        if self._sizes[first] == sizes[0]:
            return first
        # After missing bytes, positions no longer agree with the index, but sizes do.
        last = len(self._sizes) - len(sizes) + 1
        return next((at for at in range(first, last) if self._sizes[at : at + len(sizes)] == sizes), None)

    @property
    def left(self) -> int:
        """How many pictures of the index were not read, at the end of the file."""
        return len(self._sizes) - self._next if self._trusted and self._next else 0
