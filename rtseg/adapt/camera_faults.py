"""What cameras, cables and encoders do to pictures: motion blur, few pixels, interlacing, and JPEG's blocks.

All of it works on the device, on the frames of those clips that have the fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .motion import Rng

BLOCK = 8
COPIES = 7  # shifted copies that a motion blur is the mean of
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@dataclass(frozen=True, slots=True)
class CameraFaults:
    """Faults of one clip: 0 is without.

    `smear_t2`: how far (x, y) each frame moved while it was exposed, in pixels. `coarse`: by how much the picture was
    smaller, at least 1. `comb`: pixels between its even and its odd lines. `quantum`: JPEG's step in units of 1/255.
    """

    smear_t2: np.ndarray
    coarse: float = 1.0
    comb: int = 0
    quantum: float = 0.0


def sample_faults(rng: Rng, length: int) -> CameraFaults:
    """Random faults of a clip of `length` frames; each has its own probability."""
    smear_t2 = np.zeros((length, 2))
    if rng.random() < 0.3:
        smear_t2 = rng.normal(0, 1, 2) * rng.uniform(0, 4) + rng.normal(0, 1, (length, 2))
    return CameraFaults(
        smear_t2,
        float(rng.uniform(1.3, 3)) if rng.random() < 0.3 else 1.0,
        int(rng.integers(1, 4)) if rng.random() < 0.1 else 0,
        float(np.exp(rng.uniform(np.log(4), np.log(40)))) if rng.random() < 0.4 else 0.0,
    )


def apply_faults(image_k3hw: Tensor, faults: Sequence[CameraFaults], frame_k: Sequence[int]) -> Tensor:
    """Images [k, 3, H, W] in 0..1 with the faults of their clips, in place; `frame_k` holds their frames' numbers."""
    for k, (one, t) in enumerate(zip(faults, frame_k, strict=True)):
        if one.smear_t2[t].any():
            image_k3hw[k] = _smeared(image_k3hw[k], one.smear_t2[t])
        if one.coarse > 1:
            image_k3hw[k] = _coarse(image_k3hw[k], one.coarse)
        if one.comb:
            image_k3hw[k, :, 1::2] = image_k3hw[k, :, 1::2].roll(one.comb, -1)
    compressed = [k for k, one in enumerate(faults) if one.quantum]
    if compressed:
        step_k = torch.tensor([faults[k].quantum / 255 for k in compressed], device=image_k3hw.device)
        image_k3hw[compressed] = _quantised(image_k3hw[compressed], step_k)
    return image_k3hw


def _smeared(image_3hw: Tensor, reach_2: np.ndarray) -> Tensor:
    """The mean of the picture along a short line."""
    shifts = {tuple(np.rint(reach_2 * (i / (COPIES - 1) - 0.5)).astype(int).tolist()) for i in range(COPIES)}
    pad = max(abs(v) for shift in shifts for v in shift)
    if not pad:
        return image_3hw
    height, width = image_3hw.shape[1:]
    padded = F.pad(image_3hw[None], (pad, pad, pad, pad), mode="replicate")[0]
    parts = [padded[:, pad + y : pad + y + height, pad + x : pad + x + width] for x, y in sorted(shifts)]
    return torch.stack(parts).mean(0)


def _coarse(image_3hw: Tensor, factor: float) -> Tensor:
    """The picture with fewer pixels, made large again."""
    height, width = image_3hw.shape[1:]
    small = (max(8, round(height / factor)), max(8, round(width / factor)))
    down = F.interpolate(image_3hw[None], size=small, mode="bilinear", antialias=True)
    return F.interpolate(down, size=(height, width), mode="bilinear", align_corners=False)[0]


def _quantised(image_k3hw: Tensor, step_k: Tensor) -> Tensor:
    """The pictures after JPEG's rounding: cosine transform of blocks, coarser steps for fine detail and for colour."""
    height, width = image_k3hw.shape[-2:]
    to_ycc = torch.tensor(TO_YCC, device=image_k3hw.device)
    padded = F.pad(image_k3hw, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    ycc = torch.einsum("ij,kjhw->kihw", to_ycc, padded)
    dct_88 = _cosines().to(ycc)
    blocks = ycc.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK))  # [k, 3, rows, 8, columns, 8]
    waves = torch.einsum("ua,kcrasb,vb->kcrusv", dct_88, blocks, dct_88)
    detail_88 = 1 + 0.35 * (torch.arange(BLOCK)[:, None] + torch.arange(BLOCK)).to(ycc)
    steps = step_k.view(-1, 1, 1, 1, 1, 1) * detail_88[:, None, :]
    steps = steps * torch.tensor([1.0, 1.8, 1.8], device=ycc.device).view(3, 1, 1, 1, 1)
    waves = (waves / steps).round_() * steps
    back = torch.einsum("ua,kcrusv,vb->kcrasb", dct_88, waves, dct_88).flatten(4, 5).flatten(2, 3)
    image = torch.einsum("ij,kjhw->kihw", torch.linalg.inv(to_ycc), back)
    return image[..., :height, :width].clamp(0, 1)


@lru_cache(1)
def _cosines() -> Tensor:
    """The orthonormal cosine transform of eight values, [8, 8]."""
    at = torch.arange(BLOCK)
    waves = torch.cos((2 * at[None] + 1) * at[:, None] * torch.pi / (2 * BLOCK)) * (2 / BLOCK) ** 0.5
    waves[0] /= 2**0.5
    return waves
