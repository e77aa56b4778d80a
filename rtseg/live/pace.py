"""Which frames are shown at a target rate, and how evenly they leave.

Nothing is held back to make it even: a frame is shown at once, or not at all. So the latency stays what it is, and what
unevenness there is gets measured.
"""

from __future__ import annotations

from collections import OrderedDict

_SPLICE_S = 1.0  # a step in the source's times that is no interval between two frames


class Pace:
    """`target_fps` in frames per second; times are the source's own, in seconds."""

    def __init__(self, target_fps: float) -> None:
        self._period = 1 / target_fps
        self._next_s = -float("inf")
        self._sent: tuple[float, int] | None = None
        self._times: OrderedDict[int, float] = OrderedDict()

    def is_early(self, seconds: float) -> bool:
        """Whether this frame comes sooner after the last one shown than the target rate allows."""
        if self._next_s - 2 * self._period < seconds < self._next_s:  # a pts that jumps back is no early frame
            return True
        # Half a period of tolerance: a 25 fps source with jitter in its pts stays 25 fps.
        on_time = abs(seconds - self._next_s) < 2 * self._period
        self._next_s = max(self._next_s + self._period if on_time else 0.0, seconds + self._period / 2)
        return False

    def shown(self, captured_ns: int, seconds: float) -> None:
        """A frame goes out: its capture, by which `jitter_ms` knows it again, and its time at the source."""
        self._times[captured_ns] = seconds
        while len(self._times) > 16:
            self._times.popitem(last=False)

    def jitter_ms(self, captured_ns: int, sent_ns: int) -> float | None:
        """How far the time since the frame sent before is from what lies between the two at the source.

        None for the first frame, and where the source's times jump.
        """
        seconds = self._times.get(captured_ns)
        if seconds is None:
            return None
        before, self._sent = self._sent, (seconds, sent_ns)
        if before is None or not 0 < seconds - before[0] < _SPLICE_S:
            return None
        return abs((sent_ns - before[1]) / 1e6 - (seconds - before[0]) * 1e3)
