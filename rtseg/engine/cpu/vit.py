"""The image encoder with a plain ViT trunk on the kernels of simd/: rows [tokens, channels], float32."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..static.encoder import VitEncoder
from .kernels import Normed, Packed
from .network import CpuBlock, Packer, as_map


class CpuVit:
    """Normalised image [1, 3, S, S] to `top`, `mid` and `fine`, float32; the last two are 0."""

    def __init__(self, pack: Packer, encoder: VitEncoder, size: int) -> None:
        self.kernels, self.side = pack.kernels, size // 16
        self.patches = Packed(pack.kernels, encoder.patches.weight.flatten(1), encoder.patches.bias, exact=True)
        self.position = encoder.position[0].flatten(0, 1).contiguous()
        blocks: Any = encoder.blocks
        self.blocks = [CpuBlock(pack, block, self.side, self.side) for block in blocks]
        narrow, conv = encoder.narrow, encoder.conv
        nothing = conv.weight.new_zeros(len(conv.weight))  # neither layer has a bias
        self.narrow = Packed(pack.kernels, narrow.weight, nothing)
        self.conv = Packed(pack.kernels, conv.weight.permute(0, 2, 3, 1).flatten(1).contiguous(), nothing)
        self.norms = Normed(encoder.norm1), Normed(encoder.norm2)

    def __call__(self, image_1chw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        k, g = self.kernels, self.side
        patches = image_1chw[0].unflatten(1, (g, -1)).unflatten(3, (g, -1)).permute(1, 3, 0, 2, 4).reshape(g * g, -1)
        x = k.linear(self.patches, patches, added=self.position)
        for block in self.blocks:
            x = block(x)
        x = k.norm(self.norms[0], k.linear(self.narrow, x), half=False)
        x = k.norm(self.norms[1], k.linear(self.conv, around(x, g)), half=False)
        d = x.shape[1]
        mid, fine = (x.new_zeros(1, d // cut, side, side) for cut, side in ((4, 2 * g), (8, 4 * g)))
        return as_map(x, g), mid, fine


def around(x_nc: Tensor, side: int) -> Tensor:
    """The 3x3 neighbours of each cell of a map, zeros outside, [side * side, 9 c]: row, column, channel."""
    padded = F.pad(x_nc.view(side, side, -1), (0, 0, 1, 1, 1, 1))
    return padded.unfold(0, 3, 1).unfold(1, 3, 1).permute(0, 1, 3, 4, 2).reshape(side * side, -1)
