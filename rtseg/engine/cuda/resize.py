"""A picture as the network sees it, made on the device: `to_input` in torch operations that a graph can hold.

Each axis is a weighted sum of a few neighbouring pixels ("taps"). Written as gathers and elementwise products, and
not as products with two weight matrices: of those most entries are zero (at 1080p to 1024 px they would cost 20
GFLOP), and a matrix product may be done in TF32.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ...sam2 import MEAN, STD

Taps = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Indices of source pixels and their weights, each [target, taps]; a row of weights sums to 1."""


@lru_cache(maxsize=16)
def area_taps(source: int, target: int) -> Taps:
    """OpenCV's INTER_AREA along one axis that shrinks: how much of each source pixel lies in a target pixel."""
    edges = np.arange(target + 1) * (source / target)
    first = np.floor(edges[:-1]).astype(np.int64)
    at = first[:, None] + np.arange(int(np.ceil(source / target)) + 1)
    shared = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    weight = np.clip(shared, 0, None)
    return np.minimum(at, source - 1), (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=16)
def linear_taps(source: int, target: int) -> Taps:
    """OpenCV's INTER_LINEAR along one axis: the two pixels around each target pixel's centre; the border repeats."""
    centre = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    first = np.floor(centre).astype(np.int64)
    share = centre - first
    at = np.stack((first, np.minimum(first + 1, source - 1)), axis=1)
    return at, np.stack((1 - share, share), axis=1).astype(np.float32)


class DeviceInput(nn.Module):
    """uint8 [H, W, 3] RGB of one size to the normalised image [1, 3, S, S], as `to_input` makes it."""

    def __init__(self, height: int, width: int, size: int) -> None:
        super().__init__()
        taps = area_taps if height >= size and width >= size else linear_taps
        for axis, source in (("row", height), ("column", width)):
            at, weight = taps(source, size)
            self.register_buffer(f"{axis}s", torch.from_numpy(at.T.copy()))  # [taps, S]
            self.register_buffer(f"{axis}_weights", torch.from_numpy(weight.T.copy()))
        self.register_buffer("scale", 1 / (255 * torch.tensor(STD)))
        self.register_buffer("shift", torch.tensor(MEAN) / torch.tensor(STD))
        self.rows: Tensor
        self.row_weights: Tensor
        self.columns: Tensor
        self.column_weights: Tensor
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, picture_hwc: Tensor) -> Tensor:
        rows_shc = weighed(picture_hwc, 0, self.rows, self.row_weights[:, :, None, None])
        square_ssc = weighed(rows_shc, 1, self.columns, self.column_weights[:, None, :, None])
        # OpenCV answers in whole grey levels, so the network has never seen anything else.
        normal_ssc = square_ssc.round() * self.scale - self.shift
        return normal_ssc.permute(2, 0, 1)[None].contiguous()


def weighed(x: Tensor, dim: int, at_ks: Tensor, weights_ks: Tensor) -> Tensor:
    """The sum over taps k of `x` at `at_ks[k]` along `dim`, times `weights_ks[k]`; fp32."""
    total = x.index_select(dim, at_ks[0]) * weights_ks[0]
    for at, weight in zip(at_ks[1:], weights_ks[1:], strict=True):
        total = torch.addcmul(total, x.index_select(dim, at).to(total.dtype), weight)
    return total
