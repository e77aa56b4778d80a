"""The comparison with the newest conditioning frame (`Match`) on the kernels of simd/match.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...sam2 import Features
from ...sam2.match import Match
from .kernels import F32, GELU, INT16, Kernels, Packed, rows
from .network import as_map, as_rows


class CpuMatch:
    """Adds what `Match` finds to conditioned features.

    Its products are int16 where others have fewer bits: rounded to bf16, cosine similarities would be off by 0.001, and
    the softmax multiplies that by 30 or more.
    """

    def __init__(self, kernels: Kernels, match: Match) -> None:
        self.kernels, self.kind = kernels, F32 if kernels.precision == "fp32" else INT16
        self.mid, self.top = self._packed(match.mid), self._packed(match.top)
        first, last = match.prior[0], match.prior[2]
        self.first, self.last = self._packed(first), self._packed(last)
        self.scale = float(match.log_scale.detach().exp())

    def _packed(self, conv: Any) -> Packed:
        return Packed(self.kernels, conv.weight.flatten(1), conv.bias, kind=self.kind)

    def __call__(self, conditioned_bdhw: Tensor, features: Features, cells: Sequence[Tensor | None]) -> Tensor:
        """The features of the objects that have `cells` [C + 1, 2g, 2g], with the comparison added; in place."""
        side = features.top.shape[2]
        found_bnd = as_rows(conditioned_bdhw).unflatten(0, (len(cells), -1))
        embedded = self.embed(features)
        for conditioned_nd, own in zip(found_bnd, cells, strict=True):
            if own is not None:
                patches = patches_of(self.compare(embedded, own).view(2, 2 * side, 2 * side))
                self.kernels.mlp(self.first, self.last, patches, None, GELU, added=conditioned_nd)
        return as_map(found_bnd.flatten(0, 1), side)

    def embed(self, features: Features) -> Tensor:
        """Unit vectors [4 n, C] of the cells of one image."""
        k, side = self.kernels, features.top.shape[2]
        mid, top = k.linear(self.mid, as_rows(features.mid.float())), k.linear(self.top, as_rows(features.top.float()))
        out = rows(*mid.shape)
        k.call("unit_cells", mid.data_ptr(), top.data_ptr(), side, mid.shape[1], out.data_ptr())
        return out

    def compare(self, cells_nc: Tensor, remembered_cgg: Tensor) -> Tensor:
        """The mask copied to each cell and its largest similarity, [2, 4 n]."""
        n, d = cells_nc.shape
        remembered, out = remembered_cgg.float().contiguous(), rows(2, n)
        given = cells_nc.data_ptr(), remembered.data_ptr(), n, remembered[0].numel(), d, self.kind, self.scale
        self.kernels.call("match", *given, out.data_ptr())
        return out


def patches_of(both_2gg: Tensor) -> Tensor:
    """The patches of a 4x4 convolution of stride 2 with a border of 1: [n, 2 * 4 * 4]."""
    padded = F.pad(both_2gg, (1, 1, 1, 1))
    plane, row, one = padded.stride()
    half = both_2gg.shape[1] // 2
    return torch.as_strided(padded, (half, half, 2, 4, 4), (2 * row, 2 * one, plane, row, one)).reshape(half**2, 32)
