"""When the engine begins its next step: at once, or with the next frame, if that comes soon enough.

A network that is slower than its source finishes at any time between two frames. If it began at once, its masks would
often belong to a frame that is almost a whole interval old, and yet be drawn no earlier than those of the next frame.
In that case it waits for the next frame. So a network that can segment every second frame segments exactly every
second one, not an uneven sequence with distances such as one, two, one, two.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

_SPARE_MS = 2.0  # from the end of a step until its masks can be drawn
_LATE_MS = 5.0  # the next frame is waited for no longer than this after its expected time
_LEAST = 4  # steps and intervals that an estimate needs


class StepSchedule:
    """Decides by the durations of the last steps and the intervals between the last frames."""

    def __init__(self) -> None:
        self._steps_ms: deque[float] = deque(maxlen=6)
        self._intervals_ms: deque[float] = deque(maxlen=8)
        self._last: tuple[int, int] | None = None

    def stepped(self, seq: int, captured_ns: int, took_ms: float) -> None:
        """Note that a frame was segmented."""
        if self._last is not None and seq > self._last[0]:
            self._intervals_ms.append((captured_ns - self._last[1]) / 1e6 / (seq - self._last[0]))
        self._last = seq, captured_ns
        self._steps_ms.append(took_ms)

    def wait_s(self, age_ms: float) -> float:
        """Seconds to wait for the next frame when the newest is `age_ms` old; 0: begin with the newest."""
        if len(self._steps_ms) < _LEAST or len(self._intervals_ms) < _LEAST:
            return 0.0
        interval_ms = median(self._intervals_ms)
        left_ms = interval_ms - age_ms
        if not 0 < left_ms < interval_ms:
            return 0.0
        drawn_now = _frames((min(self._steps_ms) + _SPARE_MS - left_ms) / interval_ms)
        drawn_then = _frames((max(self._steps_ms) + _SPARE_MS) / interval_ms)
        return (left_ms + _LATE_MS) / 1e3 if drawn_then <= drawn_now else 0.0


def _frames(intervals: float) -> int:
    """The frame, counted from the next one, on which masks are drawn that are done after `intervals`."""
    return max(0, math.ceil(intervals))
