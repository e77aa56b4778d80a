"""How the synthetic instruments move: a pure function of time, so that any frame can be drawn first.

Time is cut into periods. In each, both tools work apart, cross, part again; then one leaves the picture for a
while and comes back. Where exactly, is drawn anew for each period.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..types import Float32

PERIOD = 11.0  # seconds; with events under 5 s, any 20 s hold one whole exit and return, and one crossing
KEY_TIMES = (0.0, 0.13, 0.28, 0.38, 0.50, 0.63, 0.76, 0.88, 1.0)  # of a period


@dataclass(frozen=True)
class Pose:
    """Where a tool is: wrist (x, y), shaft direction, bend of the wrist, half-opening of the jaws (radians), scale."""

    x: float
    y: float
    heading: float
    bend: float
    opening: float
    scale: float


class Choreography:
    """Poses of two tools of given lengths (wrist to tip, pixels) in a round picture; `unit` is its short side."""

    def __init__(
        self, centre: tuple[float, float], radius: float, unit: float, lengths: tuple[float, float], seed: int
    ) -> None:
        rng = np.random.default_rng((seed, 2))
        self._centre, self._unit, self._lengths, self._seed = np.array(centre), unit, lengths, seed
        middle, between = rng.uniform(0, math.tau), math.radians(rng.uniform(80, 165))
        angles = np.array([middle - between / 2, middle + between / 2])
        self._outward = np.stack([np.cos(angles), np.sin(angles)], 1)
        self._trocars = self._centre + (radius + 0.65 * unit) * self._outward
        self._exits = self._centre + (radius + 0.42 * unit) * self._outward
        self._phase = rng.uniform(0, math.tau, (2, 4))
        self._first = int(rng.integers(2))
        self._keys = lru_cache(maxsize=8)(self._draw_keys)

    def _draw_keys(self, period: int, tool: int) -> Float32:
        """Key poses of one period, [9, 4]: x, y, bend, scale. The last is the next period's first."""
        shared = np.random.default_rng((self._seed, 3, period))
        rng = np.random.default_rng((self._seed, 4, period, tool))
        meeting = self._centre + self._unit * shared.uniform(-0.07, 0.07, 2)
        back = self._trocars[tool] - meeting
        back /= np.hypot(*back)
        side = np.array([-back[1], back[0]])

        def at(distance: float, spread: float) -> list[float]:
            """A pose so far from the meeting point towards the trocar (pixels), so far aside at most (units)."""
            x, y = meeting + distance * back + rng.uniform(-spread, spread) * self._unit * side
            return [x, y, rng.uniform(-0.55, 0.55), rng.uniform(0.92, 1.10)]

        def apart() -> list[float]:
            return at(self._lengths[tool] + rng.uniform(0.06, 0.15) * self._unit, 0.04)

        def across() -> list[float]:
            return at(-rng.uniform(0.03, 0.2) * self._unit, 0.02)

        away = [*self._exits[tool], 0.0, 1.0]
        working = [at(rng.uniform(0.05, 0.3) * self._unit, 0.2) for _ in range(2)]
        leaves = tool == (period + self._first) % 2
        keys = [apart(), apart(), across(), across(), apart(), *([away, away] if leaves else working), apart()]
        return np.array(keys, np.float32)

    def on_top(self, seconds: float) -> int:
        """Which tool (0 or 1) is nearer to the camera in this period."""
        return int(np.random.default_rng((self._seed, 5, int(seconds // PERIOD))).integers(2))

    def pose(self, tool: int, seconds: float) -> Pose:
        """Pose of tool 0 or 1 at a time."""
        period, fraction = divmod(seconds / PERIOD, 1.0)
        keys = np.concatenate([self._keys(int(period), tool), self._keys(int(period) + 1, tool)[:1]])
        step = int(np.searchsorted(KEY_TIMES, fraction, side="right")) - 1
        part = (fraction - KEY_TIMES[step]) / (KEY_TIMES[step + 1] - KEY_TIMES[step])
        ease = part**3 * (part * (6 * part - 15) + 10)
        x, y, bend, scale = (float(v) for v in keys[step] + ease * (keys[step + 1] - keys[step]))
        phase = self._phase[tool]
        x += self._unit * (0.012 * math.sin(2.3 * seconds + phase[0]) + 0.0015 * math.sin(17 * seconds + phase[1]))
        y += self._unit * (0.012 * math.sin(1.9 * seconds + phase[1]) + 0.0015 * math.sin(15 * seconds + phase[0]))
        heading = math.atan2(y - self._trocars[tool][1], x - self._trocars[tool][0])
        opening = 0.05 + 0.42 * max(0.0, math.sin(1.7 * seconds + phase[2])) ** 2
        bend += 0.10 * math.sin(1.1 * seconds + phase[3])
        return Pose(x, y, heading, bend, opening, scale)
