"""Motion of the instruments, as a pure function of time, so that frames can be drawn in any order.

Every instrument pivots in a port. Time is divided into periods. In each period all instruments work apart, two of them
cross, and one leaves the picture and comes back (or is replaced by another that looks like it), while the others grasp
tissue and pull. The exact positions are drawn anew for each period.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..base.types import Float32
from .options import Options

KEY_TIMES = (0.0, 0.13, 0.25, 0.35, 0.46, 0.57, 0.67, 0.78, 0.89, 1.0)  # of a period
GRASP = (0.57, 0.78)  # the part of a period in which tissue is held
SWAP = 0.67  # the time in a period at which an instrument may have been replaced
AWAY = 1.6  # units from the centre: outside of any picture of an aspect up to 2, at any zoom
LEAVING = (0.46, 0.89)  # the part of a period in which one instrument leaves, is away and comes back
HOLD = 0.03  # share of a period that grasping and releasing take


@dataclass(frozen=True)
class Pose:
    """The pose of an instrument: `body` (which one), its tip (units), the shaft's direction, joint angles (radians).

    `bend`: between shaft and wrist; `yaw`: between wrist and jaws; each jaw opens by `opening`; `roll`: about the
    shaft. `grip` (0 to 1): how firmly tissue is grasped, since `grasped` (seconds).
    """

    body: int
    x: float
    y: float
    heading: float
    bend: float
    yaw: float
    opening: float
    roll: float
    scale: float
    grip: float
    grasped: float


def _ease(part: float) -> float:
    return part**3 * (part * (6 * part - 15) + 10)


def period_of(options: Options) -> float:
    """The length of a period in seconds."""
    return 13.0 - 7.5 * options.pace


class Moves:
    """Poses of the instruments, one in each port. Bodies numbered from `len(options.tools)` on are replacements."""

    def __init__(self, seed: int, options: Options) -> None:
        rng = np.random.default_rng((seed, 2))
        self._seed, self._options, self.ports = seed, options, len(options.tools)
        self.period = period_of(options)
        angles = self._angles(rng)
        self._outward = np.stack([np.cos(angles), np.sin(angles)], 1)
        self._pivots = self._outward * rng.uniform(AWAY + 0.35, AWAY + 1.2, (self.ports, 1))
        self._phase = rng.uniform(0, math.tau, (self.ports, 6))
        self._first = int(rng.integers(self.ports))
        self._bend = 0.75 if options.robotic else 0.45
        self._reach = float(rng.uniform(0.7, 1.3))  # distance from the centre at which instruments work
        self._keys = lru_cache(maxsize=64)(self._draw_keys)
        self._order = lru_cache(maxsize=16)(self._draw_order)

    def _angles(self, rng: np.random.Generator) -> Float32:
        """The directions from which the instruments come; robotic ones come from below, left and right."""
        if self._options.robotic:
            usual = np.radians([20.0, 160.0, 90.0, 225.0]) + rng.uniform(-0.35, 0.35, 4)
            return np.asarray(rng.permutation(usual[: max(2, self.ports)])[: self.ports], np.float32)
        gaps = rng.uniform(1.2, 2.6 if self.ports == 2 else math.tau / max(self.ports, 2), self.ports)
        return np.asarray(rng.uniform(0, math.tau) + np.cumsum(gaps), np.float32)

    def _draw_keys(self, period: int, port: int) -> Float32:
        """Key poses of one period, [9, 4]: x, y, bend, scale. The first one of the next period follows."""
        shared = np.random.default_rng((self._seed, 3, period))
        rng = np.random.default_rng((self._seed, 4, period, port))
        meeting, pair = shared.uniform(-0.1, 0.1, 2), shared.permutation(self.ports)[:2]
        out = self._outward[port]
        side = np.array([-out[1], out[0]])

        def at(low: float, high: float, spread: float) -> list[float]:
            """A pose at a random distance from the meeting point, towards the port and sideways (units)."""
            x, y = meeting + rng.uniform(low, high) * out + rng.uniform(-spread, spread) * side
            return [x, y, rng.uniform(-self._bend, self._bend), rng.uniform(0.85, 1.2)]

        far = self._reach
        apart = [at(0.12 * far, 0.26 * far, 0.08) for _ in range(2)]
        cross = [at(-0.2, -0.05, 0.03) for _ in range(2)]
        work = [at(-0.15, 0.3 * far, 0.28 * far) for _ in range(5)]
        middle = cross if self.ports > 1 and port in pair else work[:2]
        away = [*(AWAY * out + rng.uniform(-0.1, 0.1) * side), 0.0, 1.0]
        site = np.array(work[2])
        pulled = [site + rng.uniform(-0.11, 0.11, 4) for _ in range(2)]
        last = [away, away, away] if self.leaves(period, port) else [site, *pulled]
        return np.array([apart[0], work[3], *middle, apart[1], *last, work[4]], np.float32)

    def leaves(self, period: int, port: int) -> bool:
        """Whether this port's instrument leaves the picture in a period."""
        return (period + self._first) % self.ports == port

    def body(self, port: int, seconds: float) -> int:
        """Which instrument is in a port at a time."""
        period, part = divmod(seconds / self.period, 1.0)
        last = int(period) if part >= SWAP else int(period) - 1
        last -= (last + self._first - port) % self.ports  # the last period in which it left
        swapped = self._options.swap and last >= 0 and np.random.default_rng((self._seed, 7, last)).random() < 0.5
        return port + self.ports if swapped else port

    def _draw_order(self, period: int) -> tuple[int, ...]:
        return tuple(int(k) for k in np.random.default_rng((self._seed, 5, period)).permutation(self.ports))

    def order(self, seconds: float) -> tuple[int, ...]:
        """The ports from the farthest instrument to the nearest to the camera, in this period."""
        return self._order(int(seconds // self.period))

    def pose(self, port: int, seconds: float) -> Pose:
        """The pose of a port's instrument at a time."""
        number, part = divmod(seconds / self.period, 1.0)
        period, phase = int(number), self._phase[port]
        keys = np.concatenate([self._keys(period, port), self._keys(period + 1, port)[:1]])
        step = int(np.searchsorted(KEY_TIMES, part, side="right")) - 1
        ease = _ease((part - KEY_TIMES[step]) / (KEY_TIMES[step + 1] - KEY_TIMES[step]))
        x, y, bend, scale = (float(v) for v in keys[step] + ease * (keys[step + 1] - keys[step]))
        grip = 0.0 if self.leaves(period, port) else _grip(part)
        lively = 0.4 + self._options.pace
        x += lively * 0.010 * math.sin(2.3 * seconds + phase[0]) + 0.0012 * math.sin(17 * seconds + phase[1])
        y += lively * 0.010 * math.sin(1.9 * seconds + phase[1]) + 0.0012 * math.sin(15 * seconds + phase[0])
        idle = 0.06 + 0.45 * max(0.0, math.sin(1.7 * lively * seconds + phase[2])) ** 2
        reaching = max(0.0, 1 - abs(part - GRASP[0] + 0.06) / 0.06) * 0.4
        pivot = self._pivots[port]
        return Pose(
            body=self.body(port, seconds),
            x=x,
            y=y,
            heading=math.atan2(y - pivot[1], x - pivot[0]),
            bend=bend + 0.08 * math.sin(1.1 * seconds + phase[3]),
            yaw=0.5 * self._bend * math.sin(0.7 * lively * seconds + phase[4]),
            opening=(idle + reaching) * (1 - grip) + 0.02,
            roll=1.3 * math.sin(0.5 * lively * seconds + phase[5]) + 0.5 * math.sin(1.3 * seconds + phase[4]),
            scale=scale,
            grip=grip,
            grasped=(period + GRASP[0]) * self.period,
        )


def _grip(part: float) -> float:
    """How firmly tissue is held at a time within a period."""
    rise, fall = (part - GRASP[0]) / HOLD, (GRASP[1] + HOLD - part) / HOLD
    return _ease(min(max(min(rise, fall), 0.0), 1.0))
