"""A procedural endoscope: tissue, two instruments, and the exact mask of each, without a camera or a licence.

A frame is a pure function of (size, seed, index, fps): the same on every run and in any order of calls.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction

import cv2
import numpy as np

from ..types import Frame, ImageU8, now_ns
from .choreography import Choreography, Pose
from .query import read_scene
from .source import Source
from .tissue import Tissue
from .tools import Tool

HELD_OUT_SEED = 10_000  # scenes from this seed on are for judging; trainings draw lower ones
NEUTRAL = 200  # light of 1.0 in the 8-bit light map
COARSE = 8  # light and shadow are smooth: they are computed at 1/8 of the size


class Scene:
    """One endoscope, one patient, two instruments (object ids 1 and 2)."""

    def __init__(self, width: int, height: int, seed: int) -> None:
        rng = np.random.default_rng((seed, 0))
        self.width, self.height, self.seed = width, height, seed
        self._unit = unit = float(min(width, height))
        radius = rng.uniform(0.555, 0.66) * math.sqrt(width * height)
        centre = (width / 2 + rng.uniform(-0.03, 0.03) * unit, height / 2 + rng.uniform(-0.03, 0.03) * unit)
        self._tissue = Tissue(width, height, seed)
        self._tools = [Tool(k + 1, np.random.default_rng((seed, 10 + k)), unit, 2.4 * radius) for k in range(2)]
        lengths = (self._tools[0].length, self._tools[1].length)
        self._moves = Choreography(centre, radius, unit, lengths, seed)
        self._iris_hw = np.zeros((height, width), np.uint8)
        cv2.circle(self._iris_hw, (round(centre[0]), round(centre[1])), round(radius), 255, cv2.FILLED)
        self._iris_hwc = cv2.cvtColor(self._iris_hw, cv2.COLOR_GRAY2RGB)
        self._light_hwc, self._dim_hwc = self._lights(rng, centre, radius)
        self._shadow_shift = rng.uniform(0.02, 0.05) * unit * np.array([rng.choice([-1, 1]), 1.0]) / COARSE
        # Sparkle: where the lamp's reflection may appear, in the camera's frame; tissue glints as it moves through.
        lumps_hw = rng.standard_normal((9, 15)).astype(np.float32)
        spread = (width + round(unit) // 4, height + round(unit) // 4)
        glow_hw = 110 + 42 * np.asarray(cv2.resize(lumps_hw, spread, interpolation=cv2.INTER_CUBIC), np.float32)
        self._sparkle_hw = np.clip(glow_hw, 0, 255).astype(np.uint8)
        self._grain_hwc = rng.integers(0, 9, (height + 64, width + 64, 3), dtype=np.uint8)
        size = max(3, round(0.035 * unit)) | 1
        bump = cv2.getGaussianKernel(size, size / 6)
        glint_hw = np.clip(420 * (bump @ bump.T) / bump.max() ** 2, 0, 255).astype(np.uint8)
        self._glint_hwc = cv2.cvtColor(glint_hw, cv2.COLOR_GRAY2RGB)

    def _lights(self, rng: np.random.Generator, centre: tuple[float, float], radius: float) -> tuple[ImageU8, ImageU8]:
        """The lamp's falloff: full size for the tools, coarse for the tissue; uint8, NEUTRAL is 1."""
        x, y = np.array(centre) + rng.uniform(-0.12, 0.12, 2) * self._unit
        rows, columns = np.mgrid[: self.height, : self.width]
        reach_hw = ((columns - x) ** 2 + (rows - y) ** 2) / radius**2
        fall_hw = rng.uniform(1.15, 1.3) - rng.uniform(0.5, 0.75) * reach_hw / (0.6 + 0.4 * reach_hw)
        tint = np.array([1.0, rng.uniform(0.93, 1.0), rng.uniform(0.9, 1.02)])
        light_hwc = np.clip(NEUTRAL * fall_hw[..., None] * tint, 0, 255).astype(np.uint8)
        coarse = (self.width // COARSE, self.height // COARSE)
        return light_hwc, np.asarray(cv2.resize(light_hwc, coarse, interpolation=cv2.INTER_AREA), np.uint8)

    def render(self, index: int, fps: float) -> tuple[ImageU8, ImageU8]:
        """Frame `index`: image uint8 [H, W, 3] RGB, and truth uint8 [H, W]: the id of the visible tool, or 0."""
        seconds = index / fps
        tools_hwc = np.zeros((self.height, self.width, 3), np.uint8)
        truth_hw = np.zeros((self.height, self.width), np.uint8)
        top = self._moves.on_top(seconds)
        for which in (1 - top, top):
            pose = self._moves.pose(which, seconds)
            self._tools[which].draw(tools_hwc, truth_hw, self._light_hwc, pose)
            self._glint(tools_hwc, truth_hw, which, pose, seconds)
        image_hwc = self._lit_tissue(truth_hw, seconds)
        cv2.copyTo(tools_hwc, truth_hw, image_hwc)
        soft_hwc = cv2.GaussianBlur(image_hwc, (3, 3), 0.6)
        shift_y, shift_x = np.random.default_rng((self.seed, 6, index)).integers(0, 64, 2)
        grain_hwc = self._grain_hwc[shift_y : shift_y + self.height, shift_x : shift_x + self.width]
        seen_hwc = cv2.bitwise_and(cv2.add(soft_hwc, grain_hwc), self._iris_hwc)
        return np.asarray(seen_hwc, np.uint8), np.asarray(cv2.bitwise_and(truth_hw, self._iris_hw), np.uint8)

    def _lit_tissue(self, truth_hw: ImageU8, seconds: float) -> ImageU8:
        """Tissue under the lamp, in the tools' shadow, with its wet highlights; uint8 [H, W, 3]."""
        tissue_hwc = self._tissue.render(seconds)
        coarse = (self._dim_hwc.shape[1], self._dim_hwc.shape[0])
        tools_hw = cv2.resize((truth_hw > 0).astype(np.float32), coarse, interpolation=cv2.INTER_AREA)
        shift = np.array([[1, 0, self._shadow_shift[0]], [0, 1, self._shadow_shift[1]]])
        shade_hw = cv2.GaussianBlur(cv2.warpAffine(tools_hw, shift, coarse), (0, 0), 0.018 * self._unit / COARSE)
        dim_hwc = (self._dim_hwc * (1 - 0.5 * shade_hw[..., None])).astype(np.uint8)
        light_hwc = cv2.resize(dim_hwc, (self.width, self.height))
        image_hwc = cv2.multiply(cv2.cvtColor(tissue_hwc, cv2.COLOR_RGBA2RGB), light_hwc, scale=1 / NEUTRAL)
        reach = round(self._unit) // 8
        y = round(reach * (1 + math.sin(0.41 * seconds)))
        x = round(reach * (1 + math.cos(0.37 * seconds)))
        lamp_hw = self._sparkle_hw[y : y + self.height, x : x + self.width]
        shine_hw = cv2.addWeighted(cv2.extractChannel(tissue_hwc, 3), 4, lamp_hw, 4, -1180)
        return np.asarray(cv2.add(image_hwc, cv2.cvtColor(shine_hw, cv2.COLOR_GRAY2RGB)), np.uint8)

    def _glint(self, tools_hwc: ImageU8, truth_hw: ImageU8, which: int, pose: Pose, seconds: float) -> None:
        """Lay two moving reflections of the lamp on one tool, in place, within its mask."""
        slide = math.sin(0.9 * seconds + 2.1 * which)
        for along in (-0.10 + 0.05 * slide, 0.06 + 0.02 * slide):
            angle = pose.heading + (pose.bend if along > 0 else 0.0)
            x = pose.x + self._unit * (along * math.cos(angle) + 0.012 * math.sin(angle))
            y = pose.y + self._unit * (along * math.sin(angle) - 0.012 * math.cos(angle))
            size = self._glint_hwc.shape[0]
            x0, y0 = round(x) - size // 2, round(y) - size // 2
            if 0 <= x0 <= self.width - size and 0 <= y0 <= self.height - size:
                window = np.s_[y0 : y0 + size, x0 : x0 + size]
                own_hw = np.equal(truth_hw[window], which + 1).astype(np.uint8)
                cv2.copyTo(cv2.add(tools_hwc[window], self._glint_hwc), own_hw, tools_hwc[window])


class SyntheticSource(Source):
    """`synthetic:laparoscopy?seconds=60&seed=0&width=1280&height=720&fps=25`; frames carry their truth."""

    def __init__(self, uri: str, rate: Fraction | None = None) -> None:
        want = read_scene(uri)
        self._rate = rate or want["fps"]
        width, height, seed = int(want["width"]), int(want["height"]), int(want["seed"])
        self._count = max(1, round(want["seconds"] * self._rate))
        super().__init__(uri, width, height, float(self._rate), self._count)
        self._scene = Scene(width, height, seed)

    @property
    def tools(self) -> int:
        """How many there are; their ids count from 1."""
        return 2

    def frame(self, seq: int) -> Frame:
        """Any frame, in any order."""
        image_hwc, truth_hw = self._scene.render(seq, self.fps)
        return Frame(image_hwc, seq, self.session, seq, 1 / self._rate, now_ns(), truth_hw=truth_hw)

    def frames(self) -> Iterator[Frame]:
        return map(self.frame, range(self._count))
