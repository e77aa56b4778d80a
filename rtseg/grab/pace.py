"""Play a recording in real time, as if it were live."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..base.source import Source
from ..base.types import Frame, now_ns

SPARE, SPARE_S = 1.5, 0.004  # the next frame may take this much longer to read than the last one
GAP_S = 10.0  # seconds: a longer gap in the timestamps is not waited for


class _Paced(Source):
    def __init__(self, source: Source, fps: float | None) -> None:
        super().__init__(source.uri, source.width, source.height, fps or source.fps, source.frame_count)
        self.session, self.account, self.sample_aspect = source.session, source.account, source.sample_aspect
        self._source, self._fps = source, fps

    def frames(self) -> Iterator[Frame]:
        start_ns, start_s, last_s = 0, 0.0, -float("inf")
        frames = iter(self._source)
        while True:
            if self._closed.wait(self._idle_s(start_ns, last_s - start_s)):
                return
            frame = next(frames, None)
            if frame is None:
                return
            due_s = frame.seq / self._fps if self._fps else frame.seconds
            if not 0 <= due_s - last_s < GAP_S:  # the first frame, or a jump: timestamps count from here
                start_ns, start_s = now_ns(), due_s
            last_s = due_s
            ahead_s = due_s - start_s - (now_ns() - start_ns) / 1e9
            if ahead_s > 0 and self._closed.wait(ahead_s):
                return
            yield replace(frame, captured_ns=now_ns())

    def _idle_s(self, start_ns: int, last_s: float) -> float:
        """How long to wait before the next frame is read, so that it is decoded just before it is due.

        Decoding it at once would take CPU time from the processes that still work on the frame before.
        """
        if not start_ns:
            return 0.0
        due_s = last_s + 1 / self.fps - (now_ns() - start_ns) / 1e9
        return max(0.0, due_s - SPARE * self.grab_ms / 1e3 - SPARE_S)

    @property
    def grab_ms(self) -> float:
        return self._source.grab_ms  # without the wait for its due time

    def close(self) -> None:
        super().close()
        self._source.close()


def paced(source: Source, fps: float | None = None) -> Source:
    """`source` in real time: each frame is yielded at its due time, and that moment is its `captured_ns`.

    Due times come from the frames' timestamps, or from `seq / fps` if `fps` is given. They count from the first frame,
    on the monotonic clock. A jump back, or forward by over ten seconds, is not waited for. A consumer that is late gets
    the next frame at once: no frame is dropped here, because drops are counted in one place. Closing it closes
    `source`, also during a wait.
    """
    return _Paced(source, fps)
