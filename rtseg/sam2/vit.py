"""The plain ViT trunk of EfficientTAM (arXiv 2411.18933), and its neck: blocks of one width, most of them in windows.

Vision transformer: arXiv 2010.11929; windows and neck: ViTDet, arXiv 2203.16527.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .hiera import HieraBlock
from .layers import LayerNorm2d
from .presets import FIXED_TRUNKS, VIT_BLOCKS, VIT_GLOBAL, VIT_HEADS, VIT_TABLE, VIT_WINDOW, Preset

PATCH = 16  # pixels


class Patches(nn.Module):
    """Patches of 16 x 16 pixels: [n, 3, S, S] to [n, g, g, c]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=PATCH, stride=PATCH)

    def forward(self, image_nchw: Tensor) -> Tensor:
        patches: Tensor = self.proj(image_nchw)
        return patches.permute(0, 2, 3, 1)


class Vit(nn.Module):
    """The trunk: from an image to its one map, at stride 16. A block is Hiera's, without pooling."""

    stride = PATCH

    def __init__(self, trunk: str) -> None:
        super().__init__()
        (dim,), heads = FIXED_TRUNKS[trunk], VIT_HEADS[trunk]
        self.patch_embed = Patches(dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + VIT_TABLE**2, dim))  # after that of a class token
        self.baked: Tensor | None = None  # the position embedding, computed once for inference
        self.blocks = nn.ModuleList(
            HieraBlock(dim, dim, heads, 0 if i in VIT_GLOBAL else VIT_WINDOW, pooled=False) for i in range(VIT_BLOCKS)
        )

    def positions(self, side: int) -> Tensor:
        """Position embedding [1, side, side, c]: the table without its class token, resized."""
        table = self.pos_embed[:, 1:].unflatten(1, (VIT_TABLE, VIT_TABLE)).permute(0, 3, 1, 2)
        return F.interpolate(table, size=(side, side), mode="bicubic").permute(0, 2, 3, 1)

    def forward(self, image_nchw: Tensor) -> list[Tensor]:
        x = self.patch_embed(image_nchw)
        x = x + (self.positions(x.shape[1]) if self.baked is None else self.baked)
        for block in self.blocks:
            x = block(x)
        return [x.permute(0, 3, 1, 2)]


class VitNeck(nn.Module):
    """Brings the map to the network's width, by a 1x1 and a 3x3 convolution. There are no finer maps: they are 0."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        (dim_in,), dim = preset.stage_dims, preset.dim
        self.dim = dim
        layers = OrderedDict(
            conv_1x1=nn.Conv2d(dim_in, dim, kernel_size=1, bias=False), norm_0=LayerNorm2d(dim),
            conv_3x3=nn.Conv2d(dim, dim, kernel_size=3, padding=1, bias=False), norm_1=LayerNorm2d(dim),
        )  # fmt: skip
        self.convs = nn.ModuleList([nn.Sequential(layers)])

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The map of the trunk to zeros at stride 4 and 8, in the widths that the decoder adds, and the one at 16."""
        (block,) = self.convs
        top: Tensor = block(maps[0])
        n, _, g, _ = top.shape
        fine, mid = (top.new_zeros(n, self.dim // cut, side, side) for cut, side in ((8, 4 * g), (4, 2 * g)))
        return fine, mid, top
