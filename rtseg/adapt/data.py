"""Training clips: what is read once into memory, and how a step's batch is drawn from it.

A batch is a pure function of (seed, step), so a resumed training sees exactly what it would have seen. Only the
sequences named in `TRAIN` are ever read here; `VALIDATION` names those that nobody may train on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigError
from ..types import ImageU8
from .augment import HANDHELD, LIVELY, STILL, Rng, camera, path, recolour, through_scope, warp, warp_mask

TRAIN = {
    "robotic-tools": ("robotic-train-a", "robotic-train-b", "robotic-train-c", "robotic-train-d"),
    "davis-subset": (
        "breakdance",
        "car-roundabout",
        "cows",
        "drift-chicane",
        "drift-straight",
        "horsejump-high",
        "motocross-jump",
        "paragliding-launch",
        "scooter-black",
        "soapbox",
    ),
}
VALIDATION = {
    "robotic-tools": ("robotic-val",),
    "davis-subset": ("dog", "goat", "libby", "kite-surf"),
}
HELD_OUT_SEED = 10_000  # synthetic scenes from this seed on are for validation
SHORT_SIDE = 320
SMALLEST = 0.004  # of the picture: an object smaller than this on the first frame is not worth a prompt
MIX = {"robotic": 0.3, "davis": 0.12, "synthetic": 0.28, "paste": 0.3}


@dataclass(frozen=True, eq=False)
class Sequence:
    """A video in memory: `image_thwc` uint8 RGB, `ids_thw` uint8 with 0 for background."""

    name: str
    image_thwc: ImageU8
    ids_thw: ImageU8

    @cached_property
    def ids(self) -> list[int]:
        return [int(i) for i in np.flatnonzero(np.bincount(self.ids_thw.ravel())) if i]


@dataclass(frozen=True, slots=True)
class Batch:
    """`image_btchw` uint8 [B, T, 3, S, S]; `mask_bthw` uint8 0/1 [B, T, S, S], never empty on the first frame."""

    image_btchw: Tensor
    mask_bthw: Tensor


def read_sequence(folder: Path, name: str, short_side: int = SHORT_SIDE) -> Sequence:
    """Read one sequence in DAVIS's layout, shrunk to `short_side`. `ConfigError` if it is not there."""
    files = sorted((folder / "JPEGImages" / name).glob("*.jpg"))
    if not files:
        raise ConfigError(f"{folder}: no JPEGImages/{name}/*.jpg; expected DAVIS's layout, see --data")
    images, masks = [], []
    for file in files:
        image_hwc = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
        mask_hw = cv2.imread(str(folder / "Annotations" / name / f"{file.stem}.png"), cv2.IMREAD_GRAYSCALE)
        if image_hwc is None or mask_hw is None:
            raise ConfigError(f"{folder}: {name}/{file.stem}: expected an image and its mask in Annotations/{name}")
        scale = min(1.0, short_side / min(mask_hw.shape))
        size = (round(mask_hw.shape[1] * scale), round(mask_hw.shape[0] * scale))
        images.append(cv2.resize(image_hwc, size, interpolation=cv2.INTER_AREA))
        masks.append((cv2.resize(mask_hw, size, interpolation=cv2.INTER_AREA) > 127).astype(np.uint8))
    return Sequence(name, np.stack(images).astype(np.uint8), np.stack(masks))


def render_sequence(seed: int, frames: int, fps: float, width: int = 400, height: int = SHORT_SIDE) -> Sequence:
    """A synthetic endoscope scene with its own truth (ids 1 and 2 are tools)."""
    from ..grab.synthetic import Scene

    scene = Scene(width, height, seed)
    pairs = [scene.render(index, fps) for index in range(frames)]
    return Sequence(f"synthetic-{seed}", np.stack([i for i, _ in pairs]), np.stack([m for _, m in pairs]))


class Clips:
    """Draws batches. `sources` maps a name of `MIX` to its sequences; names that are missing are not drawn."""

    def __init__(self, sources: dict[str, list[Sequence]], size: int, seed: int) -> None:
        self._sources = {name: found for name, found in sources.items() if found}
        self._all = [s for found in self._sources.values() for s in found]
        self._size, self._seed = size, seed
        self._kinds = [kind for kind in MIX if kind == "paste" or kind in self._sources]
        weights = np.array([MIX[kind] for kind in self._kinds])
        self._weights = weights / weights.sum()

    @classmethod
    def read(cls, data: Path, size: int, seed: int, scenes: int) -> Clips:
        """Read every training sequence under `data` and render `scenes` synthetic ones."""
        synthetic = [render_sequence(s, 24, 12.0) for s in range(scenes)]
        robotic, davis = ([read_sequence(data / folder, name) for name in TRAIN[folder]] for folder in TRAIN)
        return cls({"robotic": robotic, "davis": davis, "synthetic": synthetic}, size, seed)

    def batch(self, step: int, clips: int, length: int) -> Batch:
        """The batch of this step: `clips` clips of `length` frames."""
        rng = np.random.default_rng((self._seed, step))
        pairs = [self._clip(rng, length) for _ in range(clips)]
        image_bthwc, mask_bthw = (np.stack(part) for part in zip(*pairs, strict=True))
        image_btchw = torch.from_numpy(image_bthwc).permute(0, 1, 4, 2, 3).contiguous()
        return Batch(image_btchw, torch.from_numpy(mask_bthw))

    def _clip(self, rng: Rng, length: int) -> tuple[ImageU8, ImageU8]:
        while True:
            kind = str(rng.choice(self._kinds, p=self._weights))
            image_thwc, mask_thw = (
                self._paste(rng, length) if kind == "paste" else self._video(rng, length, self._sources[kind])
            )
            image_thwc = recolour(rng, image_thwc)
            if rng.random() < 0.3:
                through_scope(rng, image_thwc, mask_thw)
            if mask_thw[0].mean() > SMALLEST:
                return image_thwc, mask_thw

    def _indices(self, rng: Rng, frames: int, length: int) -> np.ndarray:
        """Which frames: a random stride, forward or backward; sometimes one frame only, moved by the camera."""
        stride = 0 if rng.random() < 0.2 else int(rng.integers(1, 5))
        stride = min(stride, (frames - 1) // max(length - 1, 1))
        start = rng.integers(0, frames - stride * (length - 1))
        indices = start + stride * np.arange(length)
        return indices[::-1] if rng.random() < 0.5 else indices

    def _video(self, rng: Rng, length: int, found: list[Sequence]) -> tuple[ImageU8, ImageU8]:
        """A clip of one sequence and one of its objects; now and then it ends on a cut to somewhere else."""
        seq = found[rng.integers(len(found))]
        indices = self._indices(rng, len(seq.image_thwc), length)
        object_id = int(rng.choice(seq.ids))
        masks_thw = (seq.ids_thw[indices] == object_id).astype(np.uint8)
        motion = LIVELY if indices[0] == indices[-1] else (HANDHELD if rng.random() < 0.7 else STILL)
        view_t23 = camera(rng, masks_thw[0], length, self._size, motion)
        images = [warp(seq.image_thwc[i], m, self._size) for i, m in zip(indices, view_t23, strict=True)]
        masks = [warp_mask(mask, m, self._size) for mask, m in zip(masks_thw, view_t23, strict=True)]
        if length > 2 and rng.random() < 0.06:
            images[-1], masks[-1] = self._elsewhere(rng, seq), np.zeros_like(masks[-1])
        return np.stack(images), np.stack(masks)

    def _elsewhere(self, rng: Rng, seq: Sequence) -> ImageU8:
        other = self._all[rng.integers(len(self._all))]
        if other is seq:
            return np.full((self._size, self._size, 3), rng.integers(0, 200), np.uint8)
        image_hwc = other.image_thwc[rng.integers(len(other.image_thwc))]
        return np.asarray(cv2.resize(image_hwc, (self._size, self._size)), np.uint8)

    def _paste(self, rng: Rng, length: int) -> tuple[ImageU8, ImageU8]:
        """Two cut-outs fly over a background; one is the object, the other distracts, and may pass in front."""
        size = self._size
        seq = self._all[rng.integers(len(self._all))]
        indices = self._indices(rng, len(seq.image_thwc), length)
        view_t23 = camera(rng, seq.ids_thw[indices[0]], length, size, HANDHELD)
        images = [warp(seq.image_thwc[i], m, size) for i, m in zip(indices, view_t23, strict=True)]
        masks = [np.zeros((size, size), np.uint8) for _ in range(length)]
        same = rng.random() < 0.3
        target = self._cutout(rng)
        distractor = target if same else self._cutout(rng)
        vanish = length > 1 and rng.random() < 0.12
        order = [(distractor, False), (target, True)] if rng.random() < 0.6 else [(target, True), (distractor, False)]
        for (image_hwc, mask_hw), wanted in order:
            map_t23 = self._flight(rng, mask_hw, length)
            for t in range(length - 1 if wanted and vanish else length):
                here_hw = _place(images[t], image_hwc, mask_hw, map_t23[t])
                masks[t] = np.maximum(masks[t], here_hw) if wanted else masks[t] * (1 - here_hw)
        return np.stack(images), np.stack(masks)

    def _cutout(self, rng: Rng) -> tuple[ImageU8, ImageU8]:
        """An image and a 0/1 mask of one thing in it: one connected piece, cropped to its box."""
        while True:
            seq = self._all[rng.integers(len(self._all))]
            t = int(rng.integers(len(seq.image_thwc)))
            count, label_hw, stats, _ = cv2.connectedComponentsWithStats(
                (seq.ids_thw[t] == rng.choice(seq.ids)).astype(np.uint8)
            )
            large = [k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] > SMALLEST * label_hw.size]
            if large:
                k = int(rng.choice(large))
                x, y, w, h = stats[k, :4]
                window = np.s_[y : y + h, x : x + w]
                return seq.image_thwc[t][window], (label_hw[window] == k).astype(np.uint8)

    def _flight(self, rng: Rng, mask_hw: ImageU8, length: int) -> np.ndarray:
        height, width = mask_hw.shape
        scale = float(np.exp(rng.uniform(np.log(0.2), np.log(0.75)))) * self._size / max(height, width)
        target = rng.uniform(0.15, 0.85, 2) * self._size
        flip = rng.choice([-1.0, 1.0])
        return path(
            rng,
            length,
            self._size,
            (width / 2, height / 2),
            (target[0], target[1]),
            (flip * scale, scale),
            float(rng.uniform(-np.pi, np.pi) if rng.random() < 0.3 else rng.normal(0, 0.3)),
            LIVELY,
        )


def _place(canvas_hwc: ImageU8, image_hwc: ImageU8, mask_hw: ImageU8, map_23: np.ndarray) -> ImageU8:
    """Paste a cut-out into the canvas, in place, with a soft edge; returns where it now is (0/1, [S, S])."""
    size = (canvas_hwc.shape[1], canvas_hwc.shape[0])
    alpha_hw = cv2.warpAffine(mask_hw.astype(np.float32), map_23, size, flags=cv2.INTER_LINEAR)
    moved_hwc = cv2.warpAffine(image_hwc, map_23, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    canvas_hwc[:] = (canvas_hwc + alpha_hw[..., None] * (moved_hwc.astype(np.float32) - canvas_hwc)).astype(np.uint8)
    return (alpha_hw > 0.5).astype(np.uint8)
