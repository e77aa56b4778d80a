"""Random outlines, blobs and polygons: with them, any part of any image can become a training object.

An outline is a function of a point (u, v) that is negative inside and grows about as fast as the distance. Its radius
is about 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..base.types import Float32
from .motion import Rng

WAVES = 6  # a blob's radius is constant plus this many cosines of the angle
LEAST = 0.25  # the smallest radius of a blob in any direction
SIDES = 8  # sides of a polygon at most


@dataclass(frozen=True, slots=True)
class Outline:
    """The parameters of one outline.

    A polygon is the intersection of half-planes `normal . p < reach`: `normal_s2` and `reach_s`, where an unused
    half-plane has a large reach. A blob has the amplitudes `wave_w` and the phases `phase_w`. The outline is `aspect`
    times shorter along v than along u.
    """

    blob: bool
    normal_s2: Float32
    reach_s: Float32
    wave_w: Float32
    phase_w: Float32
    aspect: float

    @property
    def reach(self) -> float:
        """No point of the outline is farther from the center than this, along u or along v."""
        angle_n = np.linspace(0, 2 * np.pi, 256, endpoint=False)
        if self.blob:
            waves_nw = np.arange(1, WAVES + 1) * angle_n[:, None] + self.phase_w
            radius_n = np.maximum(1 + (self.wave_w * np.cos(waves_nw)).sum(1), LEAST)
        else:  # along each direction, the nearest of the sides that are crossed
            along_ns = np.stack([np.cos(angle_n), np.sin(angle_n)], 1) @ self.normal_s2.T
            radius_n = np.where(along_ns > 1e-6, self.reach_s / np.maximum(along_ns, 1e-6), np.inf).min(1)
        at_n2 = radius_n[:, None] * np.stack([np.cos(angle_n), np.sin(angle_n) / self.aspect], 1)
        return 1.02 * float(np.abs(at_n2).max())


def sample_outline(rng: Rng) -> Outline:
    """A blob (with probability 0.5), a polygon, or a bar, which looks like an instrument from a distance."""
    kind = rng.random()
    if kind < 0.5:
        angle_s, reach_s = np.zeros(SIDES), np.full(SIDES, 9.0)
        aspect = float(np.exp(rng.uniform(0, 1.2)))
    elif kind < 0.75:
        sides = int(rng.integers(3, SIDES + 1))
        turn = np.sort(rng.uniform(0, 0.7, sides)) + np.arange(sides)
        angle_s = np.pad(turn * 2 * np.pi / sides, (0, SIDES - sides))
        reach_s = np.pad(rng.uniform(0.5, 1.0, sides), (0, SIDES - sides), constant_values=9.0)
        aspect = float(np.exp(rng.uniform(0, 0.8)))
    else:  # two long sides that nearly meet at the tip, and two short ones
        lean = rng.uniform(0, 0.08)
        angle_s = np.pad(np.array([0, np.pi, np.pi / 2 - lean, -np.pi / 2 + lean]), (0, SIDES - 4))
        width = rng.uniform(0.06, 0.3)
        reach_s = np.pad(np.array([1.0, 1.0, width, width]), (0, SIDES - 4), constant_values=9.0)
        aspect = 1.0
    fall_w = 1 / np.arange(1, WAVES + 1)
    return Outline(
        kind < 0.5,
        np.stack([np.cos(angle_s), np.sin(angle_s)], -1).astype(np.float32),
        reach_s.astype(np.float32),
        (rng.normal(0, 0.22, WAVES) * fall_w).astype(np.float32),
        rng.uniform(0, 2 * np.pi, WAVES).astype(np.float32),
        aspect,
    )


def signed_distance(outlines: list[Outline], uv_nhw2: Tensor) -> Tensor:
    """The approximate signed distance to each outline, [n, h, w], negative inside, at its points [n, h, w, 2]."""
    device = uv_nhw2.device
    aspect_n = torch.tensor([o.aspect for o in outlines], device=device)
    uv = torch.stack([uv_nhw2[..., 0], uv_nhw2[..., 1] * aspect_n[:, None, None]], -1)
    value_nhw = uv.new_empty(uv.shape[:-1])
    for blob in (True, False):
        rows = [i for i, o in enumerate(outlines) if o.blob is blob]
        if rows:
            value_nhw[rows] = (_blob if blob else _polygon)([outlines[i] for i in rows], uv[rows])
    return value_nhw


def _blob(outlines: list[Outline], uv_nhw2: Tensor) -> Tensor:
    wave_nw, phase_nw = (
        torch.from_numpy(np.stack([getattr(o, name) for o in outlines])).to(uv_nhw2.device)
        for name in ("wave_w", "phase_w")
    )
    angle_nhw = torch.atan2(uv_nhw2[..., 1], uv_nhw2[..., 0])
    radius_nhw = torch.ones_like(angle_nhw)
    for w in range(WAVES):
        radius_nhw += wave_nw[:, w, None, None] * torch.cos((w + 1) * angle_nhw + phase_nw[:, w, None, None])
    return torch.linalg.vector_norm(uv_nhw2, dim=-1) - radius_nhw.clamp(min=LEAST)


def _polygon(outlines: list[Outline], uv_nhw2: Tensor) -> Tensor:
    normal_ns2 = torch.from_numpy(np.stack([o.normal_s2 for o in outlines])).to(uv_nhw2.device)
    reach_ns = torch.from_numpy(np.stack([o.reach_s for o in outlines])).to(uv_nhw2.device)
    value_nhw = torch.full(uv_nhw2.shape[:-1], -9.0, device=uv_nhw2.device)
    for s in range(SIDES):
        n2, reach = normal_ns2[:, s, None, None], reach_ns[:, s, None, None]
        value_nhw = torch.maximum(value_nhw, (uv_nhw2 * n2).sum(-1) - reach)
    return value_nhw
