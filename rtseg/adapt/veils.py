"""What lies between the camera and what it sees, and moves in time: smoke, and highlights on whatever is wet or metal.

Both are smooth random fields. Smoke mixes in its colour where the field is high; highlights are narrow bright peaks,
stronger where the picture is bright.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..base.types import Float32
from .appearance import LUMA
from .motion import Motion, Rng, affine_path

SMOKE_CELLS, HIGHLIGHT_CELLS = 6, 40  # of the random field, per side
DRIFT = Motion(0.03, 0.02, 0.02)
PEAK = 2.0  # what is higher is a highlight
DARK = 0.12  # share of full scale: places that are darker have none


@dataclass(frozen=True, slots=True)
class Veil:
    """A random field over a clip of T frames.

    `field_khw` float32 [2, cells, cells]: its beginning and its end, mixed in between. `map_t23` maps output places to
    those of the field, both from -1 to 1. `strength_t` is the opacity, `color` that of the smoke, or None: highlights.
    """

    field_khw: Float32
    map_t23: Float32
    strength_t: Float32
    color: tuple[float, float, float] | None


def sample_smoke(rng: Rng, length: int) -> Veil:
    """Smoke that drifts and grows or fades: light, and nearly grey."""
    grey, tint = rng.uniform(0.45, 0.95), rng.normal(0, 0.03, 3)
    ends = rng.uniform(0.15, 0.85, 2)
    strength_t = np.linspace(ends[0], ends[1], length).astype(np.float32)
    r, g, b = (grey + tint).tolist()
    return Veil(_field(rng, SMOKE_CELLS), _path(rng, length, float(rng.uniform(0.4, 1.0))), strength_t, (r, g, b))


def sample_highlights(rng: Rng, length: int) -> Veil:
    """Highlights that wander a little, longer than wide, crowded in some places."""
    strength_t = (rng.uniform(0.5, 1.0) * np.exp(rng.normal(0, 0.1, length))).astype(np.float32)
    crowd_hw = F.interpolate(
        torch.from_numpy(rng.normal(0, 1, (1, 1, 6, 6))), size=2 * (HIGHLIGHT_CELLS,), mode="bicubic"
    )
    field_khw = _field(rng, HIGHLIGHT_CELLS) * np.exp(0.5 * crowd_hw[0].numpy()).astype(np.float32)
    return Veil(field_khw, _path(rng, length, float(rng.uniform(0.3, 1.0))), strength_t, None)


def apply_veils(image_k3hw: Tensor, veils: Sequence[Sequence[Veil]], frame_k: Sequence[int]) -> Tensor:
    """Draw the veils of each image's clip over it, in place: images [k, 3, H, W] in 0..1, and their frames' numbers."""
    rows = [(k, veil, t) for k, (own, t) in enumerate(zip(veils, frame_k, strict=True)) for veil in own]
    for cells in (HIGHLIGHT_CELLS, SMOKE_CELLS):
        of_kind = [(k, veil, t) for k, veil, t in rows if veil.field_khw.shape[-1] == cells]
        if of_kind:
            picks = [k for k, _, _ in of_kind]
            of_clip = [(veil, t) for _, veil, t in of_kind]
            image_k3hw[picks] = _drawn(image_k3hw[picks], of_clip)
    return image_k3hw


def _drawn(image_k3hw: Tensor, veils: Sequence[tuple[Veil, int]]) -> Tensor:
    """The images with one veil each, all of one kind."""
    device, (count, _, height, width) = image_k3hw.device, image_k3hw.shape
    at_t = [t / max(len(veil.strength_t) - 1, 1) for veil, t in veils]
    field = [(1 - at) * veil.field_khw[0] + at * veil.field_khw[1] for (veil, _), at in zip(veils, at_t, strict=True)]
    field_k1hw = torch.from_numpy(np.stack(field)[:, None]).to(device)
    map_k23 = torch.from_numpy(np.stack([veil.map_t23[t] for veil, t in veils])).to(device)
    grid_khw2 = F.affine_grid(map_k23, [count, 1, height, width], align_corners=False)
    value_k1hw = F.grid_sample(field_k1hw, grid_khw2, "bicubic", "reflection", align_corners=False)
    strength_k111 = torch.tensor([float(veil.strength_t[t]) for veil, t in veils], device=device).view(-1, 1, 1, 1)
    colors = [veil.color for veil, _ in veils]
    if colors[0] is None:
        luma_k1hw = (image_k3hw * torch.tensor(LUMA, device=device).view(3, 1, 1)).sum(1, keepdim=True)
        lit_k1hw = ((F.avg_pool2d(luma_k1hw, 9, 1, 4) - DARK) * 4).clamp(0, 1)
        alpha_k1hw = torch.sigmoid(8 * (value_k1hw - PEAK)) * lit_k1hw * strength_k111
        return torch.lerp(image_k3hw, torch.ones_like(image_k3hw), alpha_k1hw)
    alpha_k1hw = torch.sigmoid(1.2 * value_k1hw) * strength_k111
    color_k3 = torch.tensor(colors, device=device)
    return torch.lerp(image_k3hw, color_k3[:, :, None, None].expand_as(image_k3hw), alpha_k1hw)


def _field(rng: Rng, cells: int) -> Float32:
    """Two smooth random fields of deviation 1 that have much in common."""
    common, own = rng.normal(0, 1, (1, cells, cells)), rng.normal(0, 1, (2, cells, cells))
    return np.asarray(0.85 * common + 0.53 * own, np.float32)


def _path(rng: Rng, length: int, zoom: float) -> Float32:
    """A drift over the field, of which a part of the size `zoom` is seen, stretched and turned."""
    stretch, angle = float(np.exp(rng.uniform(0, 0.7))), float(rng.uniform(-np.pi, np.pi))
    return affine_path(rng, length, 2, (0.0, 0.0), (0.0, 0.0), (zoom * stretch, zoom), angle, DRIFT)
