"""Camera motion and tissue deformation: from positions in the picture to positions on the painted tissue map.

Shake, zoom and roll move the whole picture, instruments included. The slow sway moves only the tissue: the surgeon
follows the camera with the instruments.
"""

from __future__ import annotations

import math

import numpy as np

from ..base.types import Float32
from .moves import Moves, Pose
from .options import Options
from .view import NODES, Place

STRETCH = 0.13  # units: how far tissue can be stretched
GRIP = 0.022  # square units: variance of the area around a tip that moves with it


def nodes() -> tuple[Float32, Float32]:
    """x and y of a field's nodes, float32 [NODES, NODES] each."""
    line = np.linspace(-1, 1, NODES, dtype=np.float32)
    x_hw, y_hw = np.meshgrid(line, line)
    return x_hw, y_hw


class Camera:
    """Maps positions in the picture to positions on the tissue map, in units."""

    def __init__(self, seed: int, options: Options, moves: Moves) -> None:
        rng = np.random.default_rng((seed, 8))
        self._options, self._moves = options, moves
        self._rate, self._phase = rng.uniform(0.75, 1.3, 12), rng.uniform(0, math.tau, 12)
        self._turn = float(rng.uniform(0, math.tau))  # rotation of the map
        self._near = float(rng.uniform(0.72, 1.0))  # share of the map that is seen
        self._swell = rng.uniform(-0.4, 0.4, 2)
        self._lift = rng.uniform(-1, 1, 2)
        self._x_hw, self._y_hw = nodes()

    def _wave(self, which: int, seconds: float, hertz: float) -> float:
        return math.sin(math.tau * hertz * self._rate[which] * seconds + self._phase[which])

    def zoom(self, seconds: float) -> float:
        waves = 0.7 * self._wave(0, seconds, 0.06) + 0.3 * self._wave(1, seconds, 0.17)
        return math.exp(0.32 * self._options.zoom * waves)

    def place(self, seconds: float) -> Place:
        """The transform from instrument units to picture units, [2, 3]: zoom, roll and shake."""
        o, zoom = self._options, self.zoom(seconds)
        angle = 0.10 * o.sway * self._wave(2, seconds, 0.07) + 0.012 * o.shake * self._wave(3, seconds, 1.7)
        x = 0.020 * o.shake * (self._wave(4, seconds, 0.9) + 0.5 * self._wave(5, seconds, 4.1))
        y = 0.020 * o.shake * (self._wave(6, seconds, 1.1) + 0.5 * self._wave(7, seconds, 4.7))
        cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
        return np.array([[cos, -sin, x], [sin, cos, y]])

    def on_map(self, seconds: float, x: Float32 | float, y: Float32 | float) -> tuple[Float32 | float, Float32 | float]:
        """From instrument units to map units, without deformation by instruments and breathing."""
        o = self._options
        pan_x = 0.22 * o.sway * self._wave(8, seconds, 0.05)
        pan_y = 0.16 * o.sway * self._wave(9, seconds, 0.06)
        cos, sin = self._near * math.cos(self._turn), self._near * math.sin(self._turn)
        return cos * (x + pan_x) - sin * (y + pan_y), sin * (x + pan_x) + cos * (y + pan_y)

    def pulls(self, poses: list[Pose], seconds: float) -> list[tuple[Pose, float, float]]:
        """The poses that hold tissue, and how far each pulled it on the map since it grasped."""
        found = []
        for port, pose in enumerate(poses):
            if pose.grip * self._options.contact > 0:
                began = self._moves.pose(port, pose.grasped)
                (u, v), (u0, v0) = self.on_map(seconds, pose.x, pose.y), self.on_map(pose.grasped, began.x, began.y)
                far = math.hypot(u - u0, v - v0)
                much = pose.grip * self._options.contact * STRETCH * math.tanh(far / STRETCH) / max(far, 1e-6)
                found.append((pose, float(much * (u - u0)), float(much * (v - v0))))
        return found

    def tissue(self, poses: list[Pose], seconds: float) -> tuple[Float32, Float32, Float32]:
        """The nodes' positions on the map, u and v, and how much darker tissue is there, [NODES, NODES] each."""
        place = self.place(seconds)
        back = np.linalg.inv(place[:, :2]).astype(np.float32)
        x_hw, y_hw = self._x_hw - np.float32(place[0, 2]), self._y_hw - np.float32(place[1, 2])
        x_hw, y_hw = back[0, 0] * x_hw + back[0, 1] * y_hw, back[1, 0] * x_hw + back[1, 1] * y_hw
        u_hw, v_hw = (np.asarray(w, np.float32) for w in self.on_map(seconds, x_hw, y_hw))
        breath = self._options.breathing * (0.05 * self._wave(10, seconds, 0.25) + 0.006 * self._wave(11, seconds, 1.2))
        swell_hw = np.exp(-((u_hw - self._swell[0]) ** 2 + (v_hw - self._swell[1]) ** 2) / 0.3) * np.float32(breath)
        u_hw, v_hw = u_hw + swell_hw * np.float32(self._lift[0]), v_hw + swell_hw * np.float32(self._lift[1])
        dark_hw = np.zeros_like(u_hw)
        for pose, du, dv in self.pulls(poses, seconds):
            away_hw = (x_hw - np.float32(pose.x)) ** 2 + (y_hw - np.float32(pose.y)) ** 2
            near_hw = np.exp(away_hw * np.float32(-1 / GRIP))
            press = np.float32(pose.grip * self._options.contact)
            mid_u, mid_v = self.on_map(seconds, pose.x, pose.y)
            pinch_hw = np.float32(0.35) * press * near_hw  # tissue around the tip is pulled towards it, in folds
            u_hw = u_hw + pinch_hw * (u_hw - mid_u) - near_hw * du
            v_hw = v_hw + pinch_hw * (v_hw - mid_v) - near_hw * dv
            dark_hw += press * np.float32(0.35) * near_hw**3
        return u_hw.astype(np.float32), v_hw.astype(np.float32), np.minimum(dark_hw, 0.5)
