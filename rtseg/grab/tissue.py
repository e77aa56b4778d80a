"""What the synthetic endoscope looks at: one painted map of tissue, and its slow motion under the camera.

Everything dear happens once, in `Tissue.__init__`; a frame is then one `cv2.remap` of the painted map.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from ..types import Float32, ImageU8

Rgb = tuple[int, int, int]

# Organs as a camera with a xenon light sees them: liver, muscle, peritoneum, serosa, bowel, gallbladder, fat.
ORGANS: tuple[Rgb, ...] = (
    (112, 30, 26),
    (138, 52, 44),
    (196, 112, 98),
    (172, 84, 78),
    (214, 138, 116),
    (222, 172, 116),
    (240, 182, 88),
)
LAYOUTS = ((0, 5, 6, 3), (2, 3, 4, 6), (0, 1, 6, 2), (3, 4, 6, 1), (1, 0, 5, 4), (6, 2, 4, 3))
CELL = 32  # one node of the motion grid drives this many pixels
MARGIN = 0.14  # how much wider than the picture the painted map is, on each side, for the camera to move in


def noise(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 1) -> Float32:
    """Smooth noise, float32 [H, W], unit variance or so; `cell` pixels from one bump to the next."""
    total_hw = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        rows, columns = math.ceil(height / step) + 2, math.ceil(width / step) + 2
        coarse_hw = rng.standard_normal((rows, columns)).astype(np.float32)
        total_hw += cv2.resize(coarse_hw, (width, height), interpolation=cv2.INTER_CUBIC) * 0.55**octave
    return total_hw


def _vessels(rng: np.random.Generator, height: int, width: int, unit: float) -> Float32:
    """Branching vessels, float32 [H, W], 0 for none to 1."""
    canvas_hw = np.zeros((height, width), np.uint8)
    stack = [
        (rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, math.tau), rng.uniform(0.004, 0.010) * unit)
        for _ in range(9)
    ]
    branches = 0
    while stack and branches < 90:
        x, y, heading, thickness = stack.pop(0)
        branches += 1
        line = [(x, y)]
        for _ in range(int(rng.integers(8, 22))):
            heading += rng.normal(0, 0.28)
            x, y = x + 0.02 * unit * math.cos(heading), y + 0.02 * unit * math.sin(heading)
            line.append((x, y))
        points = np.round(np.array(line) * 8).astype(np.int32)
        strength = int(np.clip(90 + 24000 * thickness / unit, 90, 255))
        cv2.polylines(canvas_hw, [points], False, strength, max(1, round(thickness)), cv2.LINE_AA, 3)
        if thickness > 0.002 * unit:
            turn = rng.uniform(0.35, 0.9)
            stack += [(x, y, heading + turn, 0.6 * thickness), (x, y, heading - turn, 0.75 * thickness)]
    soft_hw = cv2.GaussianBlur(canvas_hw, (0, 0), max(0.0014 * unit, 0.4))
    return np.asarray(soft_hw, np.float32) / np.float32(255)


def _paint(rng: np.random.Generator, height: int, width: int, unit: float) -> ImageU8:
    """Paint organs over organs, uint8 [H, W, 4]: lit colour, and how readily each place glints."""
    base, *others = LAYOUTS[int(rng.integers(len(LAYOUTS)))]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    wobble_hw = noise(rng, height, width, 0.30 * unit, 2)
    colour_hwc = np.broadcast_to(np.array(ORGANS[base], np.float32), (height, width, 3)).copy()
    relief_hw = 0.10 * unit * noise(rng, height, width, 0.7 * unit)
    for _ in range(int(rng.integers(4, 7))):
        organ = np.array(ORGANS[int(rng.choice(others))], np.float32) * np.float32(rng.uniform(0.85, 1.08))
        x, y = rng.uniform(0.05, 0.95) * width, rng.uniform(0.05, 0.95) * height
        long, short, tilt = rng.uniform(0.4, 0.9) * unit, rng.uniform(0.14, 0.34) * unit, rng.uniform(0, math.pi)
        along_hw = ((columns - x) * math.cos(tilt) + (rows - y) * math.sin(tilt)) / long
        across_hw = ((rows - y) * math.cos(tilt) - (columns - x) * math.sin(tilt)) / short
        reach_hw = np.sqrt(along_hw**2 + (across_hw + 0.35 * along_hw**2) ** 2) + 0.07 * wobble_hw
        dome_hw = np.sqrt(np.clip(1 - reach_hw**2, 0, 1))
        inside_hw = np.clip((1 - reach_hw) * short / (0.012 * unit), 0, 1)[..., None]
        crease_hw = np.exp(-np.clip(reach_hw - 1, 0, None) * short / (0.05 * unit))[..., None]
        # In folds the light is what the tissue around reflects: they go dark red, not black.
        lit_hwc = organ * (1 - (1 - dome_hw[..., None] ** 0.7) * np.array((0.40, 0.56, 0.56), np.float32))
        colour_hwc = colour_hwc * (1 - crease_hw * np.array((0.42, 0.60, 0.58), np.float32)) * (1 - inside_hw)
        colour_hwc += lit_hwc * inside_hw
        relief_hw = relief_hw * (1 - inside_hw[..., 0]) + short * dome_hw * inside_hw[..., 0]
    colour_hwc *= 1 + 0.10 * noise(rng, height, width, 0.20 * unit, 3)[..., None]
    colour_hwc += noise(rng, height, width, 0.05 * unit, 2)[..., None] * np.array((2.5, 5.0, 4.0), np.float32)
    colour_hwc += noise(rng, height, width, 0.007 * unit, 2)[..., None] * np.array((3.0, 2.6, 2.2), np.float32)
    net_hw = np.exp(-((noise(rng, height, width, 0.12 * unit, 4) / 0.05) ** 2)) * np.clip(wobble_hw, 0, 1) * 0.30
    blood_hw = np.clip(0.75 * _vessels(rng, height, width, unit) + net_hw, 0, 0.8)[..., None]
    colour_hwc = colour_hwc * (1 - blood_hw) + np.array((118, 20, 30), np.float32) * blood_hw
    relief_hw += 0.006 * unit * noise(rng, height, width, 0.035 * unit, 3)
    slope_hw = cv2.Sobel(relief_hw, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(relief_hw, cv2.CV_32F, 0, 1) ** 2
    facing_hw = 1 / np.sqrt(1 + slope_hw / 64)
    colour_hwc *= (0.55 + 0.45 * facing_hw)[..., None]
    gloss_hw = 165 * facing_hw**4 + 32 * noise(rng, height, width, 0.028 * unit, 3)
    painted_hwc = np.dstack([np.clip(colour_hwc, 0, 255), np.clip(gloss_hw, 0, 255)])
    return painted_hwc.astype(np.uint8)


class Tissue:
    """A bed of organs that breathes under a hand-held camera."""

    def __init__(self, width: int, height: int, seed: int) -> None:
        rng = np.random.default_rng((seed, 1))
        unit = float(min(height, width))
        pad = round(MARGIN * max(width, height))
        self._size = (width, height)
        self._centre = (pad + width / 2, pad + height / 2)
        self._unit = unit
        self._map_hwc = _paint(rng, height + 2 * pad, width + 2 * pad, unit)
        grid_h, grid_w = height // CELL + 3, width // CELL + 3
        rows, columns = np.mgrid[:grid_h, :grid_w].astype(np.float32)
        # Node i of the enlarged grid lies at i * CELL + (CELL - 1) / 2; the picture starts one cell in.
        self._x_hw = columns * CELL + (CELL - 1) / 2 - CELL - width / 2
        self._y_hw = rows * CELL + (CELL - 1) / 2 - CELL - height / 2
        self._phase = rng.uniform(0, math.tau, 8)
        self._rate = rng.uniform(0.75, 1.25, 8)
        swell_x, swell_y = rng.uniform(-0.4, 0.4, 2) * (width, height)
        reach_hw = ((self._x_hw - swell_x) ** 2 + (self._y_hw - swell_y) ** 2) / (0.55 * unit) ** 2
        self._swell_hw = np.exp(-reach_hw).astype(np.float32)
        self._lift = rng.uniform(-1, 1, 2).astype(np.float32)

    def _sway(self, which: int, seconds: float, hertz: float) -> float:
        return math.sin(math.tau * hertz * self._rate[which] * seconds + self._phase[which])

    def render(self, seconds: float) -> ImageU8:
        """Tissue at a time, uint8 [H, W, 4]: colour, and readiness to glint."""
        width, height = self._size
        angle = 0.05 * self._sway(0, seconds, 0.06)
        zoom = 0.94 + 0.05 * self._sway(1, seconds, 0.05)
        pan_x = self._unit * (0.045 * self._sway(2, seconds, 0.07) + 0.004 * self._sway(3, seconds, 0.9))
        pan_y = self._unit * (0.045 * self._sway(4, seconds, 0.06) + 0.004 * self._sway(5, seconds, 1.1))
        breath = self._unit * (0.022 * self._sway(6, seconds, 0.25) + 0.004 * self._sway(7, seconds, 1.2))
        cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
        x_hw = cos * self._x_hw - sin * self._y_hw + self._centre[0] + pan_x + breath * self._lift[0] * self._swell_hw
        y_hw = sin * self._x_hw + cos * self._y_hw + self._centre[1] + pan_y + breath * self._lift[1] * self._swell_hw
        coarse_hwc = np.dstack([x_hw, y_hw]).astype(np.float32)
        fine_hwc = cv2.resize(coarse_hwc, (coarse_hwc.shape[1] * CELL, coarse_hwc.shape[0] * CELL))
        view_hwc = fine_hwc[CELL : CELL + height, CELL : CELL + width]
        # None: the map is whole in one array. (An empty array instead, as OpenCV's stub has it, reads garbage.)
        seen_hwc = cv2.remap(  # type: ignore[call-overload]
            self._map_hwc, view_hwc, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        return np.asarray(seen_hwc, np.uint8)
