"""The network's input in torch operations that a CUDA graph can record.

Along each axis a target pixel is a weighted sum of a few source pixels. The sums use gathers and elementwise products
instead of two weight matrices: most entries of those would be zero (from 1080p to 1024 px they would cost 20 GFLOP),
and a matrix product may be computed in TF32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...sam2 import MEAN, STD
from .interpolation import interpolation_weights


class TorchResize(nn.Module):
    """Converts pictures uint8 [H, W, 3] RGB of one size to the normalised image [1, 3, S, S], as `to_input` does."""

    def __init__(self, height: int, width: int, size: int) -> None:
        super().__init__()
        for axis, (at, weight) in zip(("row", "column"), interpolation_weights(height, width, size), strict=True):
            self.register_buffer(f"{axis}s", torch.from_numpy(at.T.copy()))  # [k, S]
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
        rows_shc = weighted_sum(picture_hwc, 0, self.rows, self.row_weights[:, :, None, None])
        square_ssc = weighted_sum(rows_shc, 1, self.columns, self.column_weights[:, None, :, None])
        # OpenCV returns whole grey levels, and the network was trained on nothing else.
        normal_ssc = square_ssc.round() * self.scale - self.shift
        return normal_ssc.permute(2, 0, 1)[None].contiguous()


def weighted_sum(x: Tensor, dim: int, at_ks: Tensor, weights_ks: Tensor) -> Tensor:
    """The sum over k of `x` at `at_ks[k]` along `dim`, times `weights_ks[k]`, in fp32."""
    total = x.index_select(dim, at_ks[0]) * weights_ks[0]
    for at, weight in zip(at_ks[1:], weights_ks[1:], strict=True):
        total = torch.addcmul(total, x.index_select(dim, at).to(total.dtype), weight)
    return total
