"""The health of a feed: a state and counters, from the frames that arrive and the time that passes between them.

The thread that reads the feed reports events (`opened`, `frame`, `lost`, ...). Another thread may read `state`, `hung`
and `counters` at any time: a stall shows only in the absence of events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import cv2

from ..base.types import Frame, now_ns

State = Literal["opening", "running", "stalled", "frozen", "lost", "ended"]
STALL_S, STALL_PERIODS = 0.5, 5  # seconds and frame periods: no frame for the longer of the two is a stall
FROZEN_S = 0.5
FAST_S, FAST_TIMES = 2.0, 2.0  # twice the nominal rate over two seconds is too fast; a burst after a gap is not
JUMP_S = 1.0
STRIDE = 16  # every 16th row and column is compared first, then the whole picture
PATIENCE_S = 5.0  # a call that exceeds its own time limit by this much will not return
UNKNOWN_FPS = 25.0


@dataclass(frozen=True, slots=True)
class _Last:
    """What `state` is computed from. Replaced as a whole, so that another thread never sees it half updated."""

    phase: Literal["opening", "running", "lost", "ended"]
    at_ns: int  # time of the last event
    same_since_ns: int  # since when every frame has been the same picture
    stall_ns: int


class Health:
    """A state machine for one source; `clock` is for tests."""

    def __init__(self, clock: Callable[[], int] = now_ns) -> None:
        self._clock = clock
        now = clock()
        self._last = _Last("opening", now, now, int(STALL_S * 1e9))
        self._frame: Frame | None = None
        self._recent: deque[int] = deque(maxlen=1)
        self._watch_rate = False
        self._limit_ns: int | None = None
        self.why = ""  # why the feed was last lost: one line, without secrets
        names = "frames connections losses stalls freezes too_fast pts_jumps pts_repeats resized corrupt misfits"
        self._counters = dict.fromkeys(names.split(), 0)

    def opened(self, fps: float = 0.0, *, paced: bool = True) -> None:
        """A connection was made; `fps`: its nominal rate, 0 if unknown; `paced`: frames should arrive at that rate."""
        now, rate = self._clock(), fps if fps > 0 else UNKNOWN_FPS
        self._last = _Last("running", now, now, int(max(STALL_S, STALL_PERIODS / rate) * 1e9))
        self._frame = None
        self._watch_rate = paced and fps > 0
        self._recent = deque(maxlen=max(2, round(FAST_S * FAST_TIMES * rate)))
        self._counters["connections"] += 1

    def frame(self, frame: Frame) -> None:
        """A frame arrived now."""
        now, last, before = self._clock(), self._last, self._frame
        count = self._counters
        count["frames"] += 1
        count["stalls"] += now - last.at_ns > last.stall_ns
        same = before is not None and _same(before, frame)
        since = last.same_since_ns if same else now
        edge = int(FROZEN_S * 1e9)
        count["freezes"] += now - since >= edge > last.at_ns - since
        if before is not None:
            step_s = frame.seconds - before.seconds
            count["pts_repeats"] += step_s == 0
            count["pts_jumps"] += step_s < 0 or step_s > max(JUMP_S, last.stall_ns / 1e9 + (now - last.at_ns) / 1e9)
            count["resized"] += frame.image_hwc.shape != before.image_hwc.shape
        self._recent.append(now)
        full = len(self._recent) == self._recent.maxlen
        count["too_fast"] += self._watch_rate and full and now - self._recent[0] < FAST_S * 1e9
        self._frame = frame
        self._last = _Last("running", now, since, last.stall_ns)

    def corrupt(self, number: int = 1) -> None:
        """`number` packets or pictures were damaged, and skipped."""
        self._counters["corrupt"] += number

    def misfit(self) -> None:
        """A frame was passed on uncropped, because the crop box does not fit into it."""
        self._counters["misfits"] += 1

    def lost(self, why: str) -> None:
        """The connection was lost, or could not be made; the reader will try again."""
        now, last = self._clock(), self._last
        self._counters["stalls"] += last.phase == "running" and now - last.at_ns > last.stall_ns
        self._counters["losses"] += last.phase != "lost"
        self.why = why
        self._frame = None
        self._last = _Last("lost", now, now, last.stall_ns)

    def ended(self) -> None:
        """The recording ended, or the feed was closed."""
        self._frame = None
        self._last = _Last("ended", self._clock(), 0, self._last.stall_ns)

    def calling(self, limit_s: float) -> None:
        """The reader enters a call that should return within `limit_s`."""
        self._limit_ns = self._clock() + int((limit_s + PATIENCE_S) * 1e9)

    def returned(self) -> None:
        """The call returned."""
        self._limit_ns = None

    def hung(self, now_ns: int) -> bool:
        """Whether the reader is in a call that will not return: only killing its process helps."""
        limit_ns = self._limit_ns
        return limit_ns is not None and now_ns > limit_ns

    def state(self, now_ns: int) -> State:
        """The state at a time: `stalled` when no frame arrives, `frozen` when every frame is the same picture."""
        last = self._last
        if last.phase != "running":
            return last.phase
        if now_ns - last.at_ns > last.stall_ns:
            return "stalled"
        return "frozen" if last.at_ns - last.same_since_ns >= FROZEN_S * 1e9 else "running"

    @property
    def counters(self) -> dict[str, int]:
        """How often each event happened; a copy. `losses` counts lost connections, not attempts to reopen."""
        return dict(self._counters)


def _same(a: Frame, b: Frame) -> bool:
    """Whether two pictures are exactly the same.

    Live pictures differ in the few rows that are compared first, so the comparison is cheap.
    """
    first, second = a.image_hwc, b.image_hwc
    if first is second:
        return True
    if first.shape != second.shape or (first[::STRIDE, ::STRIDE] != second[::STRIDE, ::STRIDE]).any():
        return False
    return cv2.norm(first, second, cv2.NORM_INF) == 0
