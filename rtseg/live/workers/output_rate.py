"""Which frames are shown at a target rate, and how evenly they are sent.

A frame is shown at once or dropped; delaying it would make the rate more even, and the latency worse. The jitter is
measured.
"""

from __future__ import annotations

from collections import OrderedDict

_SPLICE_S = 1.0  # a longer step in the source's times is a jump
_KEPT = 16  # frames that may be on their way to being sent


class OutputRate:
    """Limits a stream to `target_fps` frames per second. Times in seconds are the source's own."""

    def __init__(self, target_fps: float) -> None:
        self._period_s = 1 / target_fps
        self._next_s = -float("inf")
        self._sent: tuple[float, int] | None = None
        self._source_s: OrderedDict[int, float] = OrderedDict()

    def is_early(self, seconds: float) -> bool:
        """Whether this frame follows the last one shown sooner than the target rate allows."""
        # Only within two periods: a pts that jumps back does not make a frame early.
        if self._next_s - 2 * self._period_s < seconds < self._next_s:
            return True
        # Half a period of tolerance: a 25 fps source with jitter in its pts stays 25 fps.
        on_time = abs(seconds - self._next_s) < 2 * self._period_s
        self._next_s = max(self._next_s + self._period_s if on_time else 0.0, seconds + self._period_s / 2)
        return False

    def shown(self, captured_ns: int, seconds: float) -> None:
        """Note a frame that will be sent, with its capture time, by which `jitter_ms` finds it."""
        self._source_s[captured_ns] = seconds
        while len(self._source_s) > _KEPT:
            self._source_s.popitem(last=False)

    def jitter_ms(self, captured_ns: int, sent_ns: int) -> float | None:
        """The difference in ms between the time since the previous frame was sent, and their distance at the source.

        None for the first frame, and where the source's times jump.
        """
        seconds = self._source_s.get(captured_ns)
        if seconds is None:
            return None
        before, self._sent = self._sent, (seconds, sent_ns)
        if before is None or not 0 < seconds - before[0] < _SPLICE_S:
            return None
        return abs((sent_ns - before[1]) / 1e6 - (seconds - before[0]) * 1e3)
