"""The comparison with the newest conditioning frame (`Match`) on the kernels of simd/match.h."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...sam2 import Features
from ...sam2.match import Match
from .kernels import F32, GELU, INT16, Kernels, Packed, pointers, rows
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
        for rows_, remembered in alike(cells):
            for i, both in zip(rows_, self.compare(embedded, remembered), strict=True):
                patches = patches_of(both.view(2, 2 * side, 2 * side))
                self.kernels.mlp(self.first, self.last, patches, None, GELU, added=found_bnd[i])
        return as_map(found_bnd.flatten(0, 1), side)

    def embed(self, features: Features) -> Tensor:
        """Unit vectors [4 n, C] of the cells of one image."""
        k, side = self.kernels, features.top.shape[2]
        mid, top = k.linear(self.mid, as_rows(features.mid.float())), k.linear(self.top, as_rows(features.top.float()))
        out = rows(*mid.shape)
        k.call("unit_cells", mid.data_ptr(), top.data_ptr(), side, mid.shape[1], out.data_ptr())
        return out

    def compare(self, cells_nc: Tensor, remembered: Sequence[Tensor]) -> list[Tensor]:
        """The mask copied to each cell and its largest similarity, [2, 4 n], for cells [C + 1, 2g, 2g] of one frame."""
        n, d = cells_nc.shape
        kept = [own.float().contiguous() for own in remembered]
        out = [rows(2, n) for _ in kept]
        given = kept[0][0].numel(), d, self.kind, self.scale
        masks = pointers([own[-1] for own in kept])
        self.kernels.call(
            "match", cells_nc.data_ptr(), kept[0].data_ptr(), masks, len(kept), n, *given, pointers(out)
        )  # fmt: skip
        return out


def alike(cells: Sequence[Tensor | None]) -> list[tuple[list[int], list[Tensor]]]:
    """The objects whose cells are of one frame, together: only their masks differ, and one comparison serves them."""
    found: list[tuple[list[int], list[Tensor]]] = []
    for i, own in enumerate(cells):
        if own is None:
            continue
        group = next((group for group in found if torch.equal(group[1][0][:-1], own[:-1])), None)
        if group is None:
            found.append(([i], [own]))
        else:
            group[0].append(i)
            group[1].append(own)
    return found


def patches_of(both_2gg: Tensor) -> Tensor:
    """The patches of a 4x4 convolution of stride 2 with a border of 1: [n, 2 * 4 * 4]."""
    padded = F.pad(both_2gg, (1, 1, 1, 1))
    plane, row, one = padded.stride()
    half = both_2gg.shape[1] // 2
    return torch.as_strided(padded, (half, half, 2, 4, 4), (2 * row, 2 * one, plane, row, one)).reshape(half**2, 32)
