"""The index of an AVI file: it lists each chunk with its size, so one that is missing or changed is known."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import av

HEAD = 8  # bytes before a chunk's data
MISSING, CHANGED = "pictures that the file's index lists are missing", "its size is not what the file's index says"


class Listed:
    """The chunks of one stream as the index lists them, without empty ones; read on as packets come."""

    def __init__(self, stream: av.VideoStream) -> None:
        entries = [(entry.pos, entry.size, entry.timestamp) for entry in stream.index_entries if entry.size > 0]
        self._places = [place for place, _, _ in entries]
        self._sizes = [size for _, size, _ in entries]
        self._times = [time for _, _, time in entries]
        self._next = 0
        self._trusted = True
        self.time: int | None = None  # of the latest packet, as the index says

    def before(self, place: int, sizes: Sequence[int]) -> int:
        """How many pictures are missing before the packet at `place`; `sizes`: its own, and the following one's.

        -1: its size is not what the index says.
        """
        first, self.time = self._next, None
        if not self._trusted or first >= len(self._sizes):
            return 0
        found = self._found(place - HEAD, list(sizes))
        if first == 0 and found is None:
            self._trusted = False  # an index of something else
            return 0
        at = first if found is None else found
        self._next, self.time = at + 1, self._times[at]
        return -1 if self._sizes[at] != sizes[0] else at - first

    def _found(self, place: int, sizes: list[int]) -> int | None:
        first = self._next
        at = bisect_left(self._places, place, first)
        if at < len(self._places) and self._places[at] == place:
            return at
        if self._sizes[first] == sizes[0]:
            return first
        # Where bytes are missing, places are of no use behind them; sizes are.
        at_most = len(self._sizes) - len(sizes) + 1
        return next((at for at in range(first, at_most) if self._sizes[at : at + len(sizes)] == sizes), None)

    @property
    def left(self) -> int:
        """How many pictures did not come by the end."""
        return len(self._sizes) - self._next if self._trusted and self._next else 0
