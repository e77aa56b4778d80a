"""When the network begins its next step: at once, or with the next frame, if that comes soon enough.

A network that is slower than its source is done at any time between two frames. If it began at once, its masks would
often be of a frame that is almost a whole interval old, and yet be drawn no earlier than those of the next frame: then
it waits for that one. So where every second frame can be segmented it is every second, and not one, two, one, two.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

_SPARE_MS = 2.0  # from the end of a step until its masks are where they are drawn
_LATE_MS = 5.0  # a frame that is later than this after its time is not waited for any longer


class Rhythm:
    """Knows how long the last steps took, and how far apart the last frames came."""

    def __init__(self) -> None:
        self._steps_ms: deque[float] = deque(maxlen=6)
        self._apart_ms: deque[float] = deque(maxlen=8)
        self._last: tuple[int, int] | None = None

    def stepped(self, seq: int, captured_ns: int, took_ms: float) -> None:
        """A frame was segmented."""
        if self._last is not None and seq > self._last[0]:
            self._apart_ms.append((captured_ns - self._last[1]) / 1e6 / (seq - self._last[0]))
        self._last = seq, captured_ns
        self._steps_ms.append(took_ms)

    def wait_s(self, age_ms: float) -> float:
        """How long to wait for the next frame, the newest being `age_ms` old; 0: begin with this one."""
        if len(self._steps_ms) < 4 or len(self._apart_ms) < 4:
            return 0.0
        apart_ms = median(self._apart_ms)
        left_ms = apart_ms - age_ms
        if not 0 < left_ms < apart_ms:
            return 0.0
        soonest = _frames((min(self._steps_ms) + _SPARE_MS - left_ms) / apart_ms)
        latest = _frames((max(self._steps_ms) + _SPARE_MS) / apart_ms)
        return (left_ms + _LATE_MS) / 1e3 if latest <= soonest else 0.0


def _frames(intervals: float) -> int:
    """After how many frames, from the next one on, masks are drawn that are done after so many intervals."""
    return max(0, math.ceil(intervals))
