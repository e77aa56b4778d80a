"""Whether the masks kept within their budget over the last seconds, and by how much they failed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from ..base.types import now_ns
from .ipc.board import Board

LOOK_NS = 500_000_000  # between two measurements
_LOOKS = 6  # intervals that make up the last seconds
_ENOUGH = 10  # frames with masks that a judgement needs
FRESH, FRESH_AGAIN = 0.9, 0.95  # shares of fresh masks: too few below the first, enough again from the second on


@dataclass(frozen=True, slots=True)
class _Look:
    """A measurement: counts of the board at one time."""

    at_ns: int
    frames: int
    segmented: int
    fresh: int
    masked: int
    worked_ms: float


@dataclass(frozen=True, slots=True)
class Lag:
    """Masks that do not keep up: rates per second, share of fresh masks, mean time of a step, over the last seconds."""

    segmented_fps: float
    wanted_fps: float
    fresh: float
    step_ms: float

    def plain(self) -> dict[str, Any]:
        """For the status."""
        return {
            "segmented_fps": round(self.segmented_fps, 1), "wanted_fps": round(self.wanted_fps, 1),
            "fresh": round(self.fresh, 2), "step_ms": round(self.step_ms, 1),
        }  # fmt: skip

    def __str__(self) -> str:
        rates = f"{self.segmented_fps:.0f} of {self.wanted_fps:.0f} frames/s segmented"
        return f"{self.fresh:.0%} of the masks are fresh; {rates}"


class DelayMonitor:
    """Measures a board twice a second. `lag` is None while the masks keep up; `since_ns`: when they last kept up.

    `worst` is the lag with the smallest share of fresh masks.
    """

    def __init__(self, board: Board) -> None:
        self._board, self.since_ns = board, now_ns()
        self._looks: deque[_Look] = deque(maxlen=_LOOKS + 1)
        self.lag: Lag | None = None
        self.worst: Lag | None = None

    def restart(self) -> None:
        """Discard the measurements, because masks are being restored, or another engine makes them."""
        self._looks.clear()
        self.since_ns = now_ns()

    def look(self, frames: int, target_fps: float) -> None:
        """Measure, if that is due; `frames` is the number of frames that came in so far."""
        at_ns = now_ns()
        if self._looks and at_ns - self._looks[-1].at_ns < LOOK_NS:
            return
        board, step = self._board, self._board.stages["segment"]
        fresh, old = board["masks fresh"], board["masks stale"] + board["masks expired"]
        self._looks.append(_Look(at_ns, frames, board["segmented"], fresh, fresh + old, step.total))
        if len(self._looks) <= _LOOKS:
            return
        seen = self._between(self._looks[0], self._looks[-1], target_fps)
        if seen is not None and seen.fresh < (FRESH if self.lag is None else FRESH_AGAIN):
            self.lag = seen
            if self.worst is None or seen.fresh < self.worst.fresh:
                self.worst = seen
        else:
            self.lag, self.since_ns = None, at_ns

    @staticmethod
    def _between(old: _Look, new: _Look, target_fps: float) -> Lag | None:
        seconds, steps = (new.at_ns - old.at_ns) / 1e9, new.segmented - old.segmented
        masked = new.masked - old.masked
        if masked < _ENOUGH:
            return None
        wanted_fps = min(target_fps, (new.frames - old.frames) / seconds)
        step_ms = (new.worked_ms - old.worked_ms) / steps if steps else 1e3 * seconds
        return Lag(steps / seconds, wanted_fps, (new.fresh - old.fresh) / masked, step_ms)
