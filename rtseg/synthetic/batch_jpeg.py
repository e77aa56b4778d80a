"""The loss of JPEG (ITU-T T.81 with the tables of its Annex K, colour at half size), computed on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # JFIF


def _table(base: tuple[tuple[int, ...], ...], quality: int) -> np.ndarray:
    """The quantisation table at a quality of 1 to 100, as libjpeg scales it, [8, 8]."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.asarray(np.clip((np.array(base) * percent + 50) // 100, 1, 255))


def _dct(device: torch.device) -> Tensor:
    """The orthonormal cosine transform of eight values, [8, 8]."""
    k, n = np.mgrid[:8, :8]
    matrix = np.cos((2 * n + 1) * k * np.pi / 16) * np.where(k == 0, np.sqrt(1 / 8), 0.5)
    return torch.as_tensor(matrix, dtype=torch.float32, device=device)


def _quantised(plane_nhw: Tensor, table_n88: Tensor) -> Tensor:
    """Planes after quantisation of the cosine transform of each block."""
    n, h, w = plane_nhw.shape
    dct = _dct(plane_nhw.device)
    blocks = plane_nhw.view(n, h // 8, 8, w // 8, 8).transpose(2, 3)
    table = table_n88[:, None, None]
    levels = ((dct @ blocks @ dct.T) / table).round() * table
    return (dct.T @ levels @ dct).transpose(2, 3).reshape(n, h, w)


def compressed(image_nchw: Tensor, qualities: Sequence[int | None]) -> Tensor:
    """Pictures, uint8 [N, 3, H, W], after JPEG, each with its own quality; None leaves a picture unchanged."""
    lossy = [n for n, quality in enumerate(qualities) if quality is not None]
    if not lossy:
        return image_nchw
    device, (h, w) = image_nchw.device, image_nchw.shape[2:]
    tables = [np.stack([_table(base, q) for q in qualities if q is not None]) for base in (LUMA, CHROMA)]
    luma, chroma = (torch.as_tensor(table, dtype=torch.float32, device=device) for table in tables)
    to_ycc = torch.tensor(TO_YCC, device=device)
    padding = (0, -w % 16, 0, -h % 16)
    rgb = F.pad(image_nchw[lossy].float(), padding, mode="replicate")
    ycc = torch.einsum("yc,nchw->nyhw", to_ycc, rgb).round()
    y = _quantised(ycc[:, 0] - 128, luma) + 128
    small = F.avg_pool2d(ycc[:, 1:], 2)
    both = _quantised(small.flatten(0, 1), chroma.repeat_interleave(2, 0)).view(small.shape)
    wide = F.interpolate(both, scale_factor=2, mode="bilinear", align_corners=False)
    back = torch.einsum("cy,nyhw->nchw", torch.linalg.inv(to_ycc), torch.cat([y[:, None], wide], 1))
    seen = image_nchw.clone()
    seen[lossy] = back.clamp(0, 255).round().to(torch.uint8)[..., :h, :w]
    return seen
