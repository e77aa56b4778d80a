"""The instruments of the synthetic endoscope, made of rigid painted parts.

A part is painted once, lying along +x, and placed with a similarity transform. Its mask is warped with
nearest-neighbour sampling and the picture takes exactly the pixels of that mask, so the truth has no soft edge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ..types import Float32, ImageU8
from .choreography import Pose
from .tissue import noise

SHEATHS = ((58, 58, 62), (34, 34, 38), (128, 130, 134), (92, 92, 96), (24, 26, 32))
STEEL = (150, 152, 156)


@dataclass(frozen=True)
class Part:
    """A painted rigid piece: colours [h, w, 3], mask [h, w] of 0/255, and the point (x, y) it turns about."""

    colour_hwc: ImageU8
    mask_hw: ImageU8
    pin: tuple[float, float]

    def draw(
        self, image_hwc: ImageU8, truth_hw: ImageU8, light_hwc: ImageU8, object_id: int, pose: tuple[float, ...]
    ) -> None:
        """Draw at pose (x, y, angle, scale) in place; `light_hwc` dims it as it dims the tissue."""
        x, y, angle, scale = pose
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        place = np.array([[cos, -sin, 0.0], [sin, cos, 0.0]])
        place[:, 2] = (x, y) - place[:, :2] @ self.pin
        h, w = self.mask_hw.shape
        corners = place @ np.array([[0, w, w, 0], [0, 0, h, h], [1, 1, 1, 1]], np.float64)
        x0, y0 = np.maximum(np.floor(corners.min(1)), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(corners.max(1)) + 1, truth_hw.shape[::-1]).astype(int)
        if x0 >= x1 or y0 >= y1:
            return
        place[:, 2] -= (x0, y0)
        size = (int(x1 - x0), int(y1 - y0))
        mask_hw = cv2.warpAffine(self.mask_hw, place, size, flags=cv2.INTER_NEAREST)
        colour_hwc = cv2.warpAffine(self.colour_hwc, place, size, borderMode=cv2.BORDER_REPLICATE)
        window = np.s_[y0:y1, x0:x1]
        lit_hwc = cv2.multiply(colour_hwc, light_hwc[window], scale=1 / 200)
        cv2.copyTo(lit_hwc, mask_hw, image_hwc[window])
        truth_hw[window][mask_hw > 0] = object_id


def _metal(base: tuple[int, int, int], across_hw: Float32, streaks_hw: Float32, shine: float) -> ImageU8:
    """Colours of a lit cylinder; `across_hw` is -1..1 from one silhouette edge to the other."""
    round_hw = np.sqrt(np.clip(1 - across_hw**2, 0, 1))
    lit_hw = 0.30 + 0.80 * round_hw + 0.06 * streaks_hw
    line_hw = shine * (np.exp(-(((across_hw + 0.32) / 0.13) ** 2)) + 0.35 * np.exp(-(((across_hw - 0.55) / 0.1) ** 2)))
    bounce_hw = np.clip(np.abs(across_hw) - 0.6, 0, 1)[..., None] * np.array((70, 22, 18), np.float32)
    colour_hwc = np.array(base, np.float32) * lit_hw[..., None] + 200 * line_hw[..., None] + bounce_hw
    return np.asarray(np.clip(colour_hwc, 0, 255), np.uint8)


def _shaft(rng: np.random.Generator, length: float, width: float) -> Part:
    """A tube that ends at its pin, a little wider towards the hand (perspective), with a steel collar and a ring."""
    h, w = math.ceil(1.3 * width) + 2, math.ceil(length)
    rows, columns = np.mgrid[:h, :w].astype(np.float32)
    half_hw = 0.5 * width * (1.22 - 0.22 * columns / w)
    across_hw = (rows - (h - 1) / 2) / half_hw
    streaks_hw = np.asarray(cv2.resize(noise(rng, h, 64, 3), (w, h)), np.float32)
    sheath = SHEATHS[int(rng.integers(len(SHEATHS)))]
    colour_hwc = _metal(sheath, across_hw, streaks_hw, rng.uniform(0.25, 0.75))
    steel_hwc = _metal(STEEL, across_hw, streaks_hw, 0.8)
    collar = rng.uniform(0.4, 1.4) * width
    steel_hw = columns > w - collar
    ring = w - collar - rng.uniform(0.6, 2.5) * width
    if rng.random() < 0.6:
        steel_hw |= np.abs(columns - ring) < 0.10 * width
    colour_hwc[steel_hw] = steel_hwc[steel_hw]
    colour_hwc[np.abs(columns - (w - collar)) < 0.05 * width] //= 3
    return Part(colour_hwc, np.where(np.abs(across_hw) <= 1, 255, 0).astype(np.uint8), (w - 1.0, (h - 1) / 2))


def _wrist(width: float, length: float) -> Part:
    """The clevis: a steel capsule with the pin of the jaws at its far end."""
    h, w = math.ceil(width) + 4, math.ceil(length + width) + 4
    pin, near, radius = (2 + width / 2 + length, h / 2), (2 + width / 2, h / 2), width / 2
    rows, columns = np.mgrid[:h, :w].astype(np.float32)
    along_hw = np.clip(columns, near[0], pin[0])
    reach_hw = np.hypot(columns - along_hw, rows - near[1]) / radius
    colour_hwc = _metal(STEEL, (rows - near[1]) / radius, np.zeros_like(rows), 0.7)
    slot_hw = (np.abs(rows - near[1]) < 0.16 * radius) & (columns > near[0] + 0.3 * length)
    colour_hwc[slot_hw] //= 3
    bolt_hw = np.hypot(columns - pin[0], rows - pin[1]) / radius
    colour_hwc[bolt_hw < 0.45] = (176, 176, 178)
    colour_hwc[np.abs(bolt_hw - 0.45) < 0.09] //= 3
    return Part(colour_hwc, np.where(reach_hw <= 1, 255, 0).astype(np.uint8), near)


def _jaw(length: float, width: float, hook: float, window: bool, teeth: int) -> Part:
    """The upper jaw (towards -y when shut); its inner edge lies on the axis, toothed; `window` cuts a slot in it."""
    pad = 2 + math.ceil(abs(hook) * length)
    h, w = math.ceil(1.5 * width) + 2 * pad, math.ceil(length + width) + 4
    pin = (2 + width / 2, h - pad - 0.4 * width)
    t = np.linspace(0, 1, 1 + 4 * teeth)
    bend = -hook * length * t**2
    bite = 0.07 * width * (np.arange(len(t)) % 4 < 2) * (t > 0.25)
    thick = width * (1 - 0.4 * t) * np.sqrt(np.clip((1.03 - t) / 0.15, 0, 1))
    inner = np.stack([pin[0] + t * length, pin[1] + bend - bite], 1)
    outer = np.stack([pin[0] + t * length, pin[1] + bend - thick], 1)
    hub_angle = np.linspace(0.5 * math.pi, 1.5 * math.pi, 9)
    hub = np.stack([pin[0] + 0.5 * width * np.cos(hub_angle), pin[1] + 0.4 * width * np.sin(hub_angle)], 1)
    outline = np.concatenate([inner, outer[::-1], hub[::-1]])
    mask_hw = np.zeros((h, w), np.uint8)
    cv2.fillPoly(mask_hw, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_8, 4)
    if window:
        s = np.linspace(0.3, 0.75, 8)
        middle = pin[1] - hook * length * s**2 - 0.5 * width * (1 - 0.4 * s)
        slot = np.concatenate([np.stack([pin[0] + s * length, middle - 0.12 * width], 1),
                               np.stack([pin[0] + s * length, middle + 0.12 * width], 1)[::-1]])  # fmt: skip
        cv2.fillPoly(mask_hw, [np.round(slot * 16).astype(np.int32)], 0, cv2.LINE_8, 4)
    depth_hw = cv2.distanceTransform(mask_hw, cv2.DIST_L2, 5) / (0.3 * width)
    bevel_hw = np.clip(depth_hw, 0, 1)
    slope_hw = cv2.Sobel(cv2.GaussianBlur(bevel_hw, (0, 0), max(0.06 * width, 0.5)), cv2.CV_32F, 0, 1)
    lit_hw = 0.45 + 0.55 * bevel_hw + 0.16 * np.clip(slope_hw * width / 12, -2, 3)
    colour_hwc = np.clip(np.array(STEEL, np.float32) * lit_hw[..., None], 0, 255).astype(np.uint8)
    return Part(colour_hwc, mask_hw, pin)


def _flip(part: Part) -> Part:
    h = part.mask_hw.shape[0]
    upside = np.ascontiguousarray(part.colour_hwc[::-1]), np.ascontiguousarray(part.mask_hw[::-1])
    return Part(*upside, (part.pin[0], h - 1 - part.pin[1]))


class Tool:
    """One instrument: shaft, wrist, two jaws."""

    def __init__(self, object_id: int, rng: np.random.Generator, unit: float, reach: float) -> None:
        self.object_id = object_id
        width = rng.uniform(0.058, 0.088) * unit
        self._joint = rng.uniform(0.5, 0.9) * width
        jaw_length, jaw_width = rng.uniform(1.5, 2.5) * width, rng.uniform(0.42, 0.56) * width
        hook, window = rng.choice([0.0, 0.0, 0.07, 0.15]), bool(rng.random() < 0.5)
        self.length = self._joint + jaw_length
        self._shaft = _shaft(rng, reach, width)
        self._wrist = _wrist(0.74 * width, self._joint)
        self._jaw = _jaw(jaw_length, jaw_width, float(hook), window, int(rng.integers(5, 9)))
        self._other_jaw = _flip(self._jaw)

    def draw(self, image_hwc: ImageU8, truth_hw: ImageU8, light_hwc: ImageU8, pose: Pose) -> None:
        """Draw in place over what is there."""
        turned = pose.heading + pose.bend
        x = pose.x + pose.scale * self._joint * math.cos(turned)
        y = pose.y + pose.scale * self._joint * math.sin(turned)
        pieces = (
            (self._other_jaw, (x, y, turned + pose.opening, pose.scale)),
            (self._jaw, (x, y, turned - pose.opening, pose.scale)),
            (self._wrist, (pose.x, pose.y, turned, pose.scale)),
            (self._shaft, (pose.x, pose.y, pose.heading, pose.scale)),
        )
        for part, place in pieces:
            part.draw(image_hwc, truth_hw, light_hwc, self.object_id, place)
