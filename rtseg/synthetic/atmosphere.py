"""Smooth fields over time between tissue and sensor: light of the lamp, smoke, blood, fog, grease and drops."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from ..base.types import Float32
from .camera import nodes
from .noise import Canvas, noise
from .options import Options
from .view import NODES, Channel, Drop

MAP_SIDE = 4.0  # units: the side of the noise maps, which are shifted over time
MAX_SMOKE = 0.8  # largest opacity: smoke never hides an instrument completely, so the ground truth stays valid
DROPS_CHANGE_S = 9.0  # seconds until the drops on the lens change


class Atmosphere:
    """The fields of a scene, except the sampling positions of its tissue."""

    def __init__(self, seed: int, options: Options) -> None:
        rng = np.random.default_rng((seed, 9))
        self._seed, self._options = seed, options
        self._x_hw, self._y_hw = nodes()
        self._phase = rng.uniform(0, math.tau, 10)
        canvas = Canvas(MAP_SIDE, MAP_SIDE, (NODES - 1) / 2)
        self._smoke_hw, self._lumps_hw, self._flow_hw = (noise(rng, canvas, cell, 2) for cell in (0.5, 0.2, 0.12))
        self._lamp = rng.uniform(-0.14, 0.14, 2)
        harsh = rng.random() ** 1.5 if not options.robotic else rng.random()
        self._peak, self._fall = rng.uniform(1.0, 1.25) + 0.3 * harsh, rng.uniform(0.3, 0.6) + 0.7 * harsh
        self._sites = rng.uniform(-0.24, 0.24, (2, 2))
        self._streak = (float(rng.uniform(0, math.pi)), float(rng.uniform(-0.3, 0.3)), float(rng.uniform(0.08, 0.25)))
        self._drops = lru_cache(maxsize=4)(self._draw_drops)

    def _shifted(self, map_hw: Float32, x: float, y: float) -> Float32:
        """A noise map at the nodes after a shift by (x, y) units, [NODES, NODES]."""
        per_unit = (NODES - 1) / 2
        shift = np.array([[1, 0, NODES / 2 + x * per_unit], [0, 1, NODES / 2 + y * per_unit]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(
            cv2.warpAffine(map_hw, shift, (NODES, NODES), flags=flags, borderMode=cv2.BORDER_REFLECT), np.float32
        )

    def exposure(self, seconds: float) -> float:
        """The gain of the automatic exposure, about 1."""
        waves = math.sin(0.9 * seconds + self._phase[0]) + 0.6 * math.sin(0.37 * seconds + self._phase[1])
        return math.exp(0.38 * self._options.exposure * waves)

    def fields(self, seconds: float, zoom: float, u_hw: Float32, v_hw: Float32) -> Float32:
        """All channels except U and V, float32 [NODES, NODES, 8]; `u_hw`, `v_hw`: positions on the tissue map."""
        o = self._options
        field_hwc = np.zeros((NODES, NODES, len(Channel)), np.float32)
        away_hw = (self._x_hw - self._lamp[0]) ** 2 + (self._y_hw - self._lamp[1]) ** 2
        light_hw = self._peak - self._fall * 1.6 * away_hw / (0.7 + 0.6 * away_hw)
        field_hwc[..., Channel.LIGHT] = np.maximum(light_hw, 0.04) * np.float32(zoom**0.4)
        drift = 0.25 * math.cos(0.37 * seconds + self._phase[2]), 0.25 * math.sin(0.41 * seconds + self._phase[3])
        lumps_hw = self._shifted(self._lumps_hw, *drift)
        near_hw = 26 * np.exp(-1.5 * away_hw)
        field_hwc[..., Channel.SPARKLE] = 72 + 42 * o.specular + 30 * lumps_hw + near_hw
        smoke_hw, haze_hw, fog_hw = self._smoke(seconds), *self._lens()
        exposure = self.exposure(seconds)
        field_hwc[..., Channel.GAIN] = exposure * (1 - smoke_hw) * (1 - fog_hw)
        field_hwc[..., Channel.VEIL] = exposure * (1 - (1 - smoke_hw) * (1 - fog_hw))
        field_hwc[..., Channel.HAZE] = haze_hw
        if o.bleeding:
            field_hwc[..., Channel.BLOOD] = self._blood(seconds, u_hw, v_hw)
        return field_hwc

    def _smoke(self, seconds: float) -> Float32:
        """Opacity of smoke, 0 to MAX_SMOKE: it comes in puffs, drifts and thins out."""
        if not self._options.smoke:
            return np.zeros((NODES, NODES), np.float32)
        puff = 0.45 + 0.55 * math.sin(0.5 * seconds + self._phase[4]) ** 2
        one = self._shifted(self._smoke_hw, 0.5 * math.sin(0.23 * seconds), 0.6 * math.cos(0.19 * seconds))
        two = self._shifted(self._smoke_hw, 0.6 * math.cos(0.31 * seconds), 0.5 * math.sin(0.27 * seconds))
        thick_hw = self._options.smoke * puff * np.clip(0.55 + 0.3 * one + 0.3 * two, 0, 1.3)
        return np.asarray(np.clip(thick_hw, 0, MAX_SMOKE), np.float32)

    def _lens(self) -> tuple[Float32, Float32]:
        """How much fog and grease on the lens blur the picture, and how much they whiten it."""
        away_hw = np.sqrt(self._x_hw**2 + self._y_hw**2)
        patchy_hw = self._shifted(self._smoke_hw, 0.3, -0.2)
        fog_hw = self._options.fog * np.clip(1.5 * away_hw - 0.2 + 0.15 * patchy_hw, 0, 0.85)
        angle, offset, breadth = self._streak
        across_hw = (self._x_hw * math.sin(angle) - self._y_hw * math.cos(angle) - offset) / breadth
        smear_hw = self._options.smear * np.exp(-(across_hw**2)) * np.clip(0.8 + 0.3 * patchy_hw, 0, 1)
        return np.asarray(np.clip(fog_hw + smear_hw, 0, 0.95), np.float32), np.asarray(
            0.5 * fog_hw + 0.12 * smear_hw, np.float32
        )

    def _blood(self, seconds: float, u_hw: Float32, v_hw: Float32) -> Float32:
        """Depth of blood over tissue (units): pools that grow, and are suctioned away."""
        per_unit = np.float32((NODES - 1) / 2)
        columns, rows = (u_hw + MAP_SIDE / 2) * per_unit, (v_hw + MAP_SIDE / 2) * per_unit
        flow_hw = cv2.remap(self._flow_hw, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        deep_hw = np.full_like(u_hw, -1.0)
        for k, (u, v) in enumerate(self._sites):
            grown = 0.65 + 0.35 * math.sin(0.12 * seconds + self._phase[6 + k])
            away_hw = np.hypot(u_hw - u, v_hw - v)
            deep_hw = np.maximum(
                deep_hw, math.sqrt(self._options.bleeding) * grown * (0.30 - 0.08 * k) - away_hw + 0.05 * flow_hw
            )
        return np.asarray(deep_hw, np.float32)

    def _draw_drops(self, period: int) -> tuple[Drop, ...]:
        rng = np.random.default_rng((self._seed, 11, period))
        found: list[Drop] = []
        for _ in range(math.ceil(7 * self._options.drops)):
            x, y, radius = rng.uniform(-0.75, 0.75), rng.uniform(-0.45, 0.45), rng.uniform(0.02, 0.085)
            opacity = (0.35 + 0.6 * self._options.drops) * rng.uniform(0.7, 0.95)
            if all(math.hypot(x - d.x, y - d.y) > 1.1 * (radius + d.radius) for d in found):
                found.append(Drop(x, y, radius, float(rng.uniform(1.2, 2.5)), opacity))
        return tuple(found)

    def drops(self, seconds: float) -> tuple[Drop, ...]:
        return self._drops(int(seconds // DROPS_CHANGE_S)) if self._options.drops else ()
