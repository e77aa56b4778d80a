"""The image encoder with a RepViT trunk on the kernels of simd/. Maps are float32 rows [tokens, channels]."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..static.encoder import ConvEncoder
from .convolutions import Depthwise, Inverted, TwoConvolutions, mixed, pointwise
from .kernels import GELU
from .network import Packer, as_features


class CpuRepVit:
    """Normalised image [1, 3, S, S] to `top`, `mid` and `fine`, float32."""

    def __init__(self, pack: Packer, encoder: ConvEncoder) -> None:
        self.kernels = k = pack.kernels
        trunk: Any = encoder.trunk
        self.stem = TwoConvolutions(k, trunk.stem.conv1, trunk.stem.conv2)
        self.stages = [_Stage(pack, stage) for stage in trunk.stages]
        self.neck = [pointwise(k, conv) for conv in encoder.laterals()]

    def __call__(self, image_1chw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, maps = self.stem(image_1chw[0].contiguous()), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        fine, mid, high, *low = (self.kernels.linear(layer, x) for layer, x in zip(self.neck, maps, strict=True))
        return as_features(high, low[0] if low else None, mid, fine)


class _Stage:
    def __init__(self, pack: Packer, stage: Any) -> None:
        self.kernels, down = pack.kernels, stage.downsample
        self.down: Inverted | None = None
        blocks = list(stage.blocks)
        if down is not None:
            blocks.insert(0, down.pre_block)
            strided = Depthwise(down.spatial_downsample.weight, down.spatial_downsample.bias, 2, 1)
            self.down = Inverted(self.kernels, None, strided, pointwise(self.kernels, down.channel_downsample))
            self.ffn = _mixer(pack, down.ffn)
        self.blocks = [_Block(pack, block) for block in blocks]

    def __call__(self, x: Tensor) -> Tensor:
        blocks = iter(self.blocks)
        if self.down is not None:
            x = self.down(next(blocks)(x))
            x = self.kernels.mlp(*self.ffn, x, None, GELU, added=x)
        for block in blocks:
            x = block(x)
        return x


def _mixer(pack: Packer, mixer: Any) -> tuple[Any, Any]:
    return pointwise(pack.kernels, mixer.conv1), pointwise(pack.kernels, mixer.conv2)


class _Block:
    """A depthwise convolution, squeeze-excite where there is one, and the channel mixer: in one pass over the map.

    Squeeze-excite multiplies each channel by a factor that depends on the means of the convolution's results. These
    means follow from sums of what enters, and the factors go into the convolution's weights.
    """

    def __init__(self, pack: Packer, block: Any) -> None:
        self.kernels, self.se = pack.kernels, block.se
        self.conv = Depthwise(block.token_mixer.weight, block.token_mixer.bias)
        self.mixer = _mixer(pack, block.channel_mixer)
        self.weight_33c = block.token_mixer.weight.detach()[:, 0].permute(1, 2, 0)  # [3, 3, c]
        self.bias = block.token_mixer.bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        conv = self.conv if self.se is None else self.conv.scaled(self.factors(x))
        return mixed(self.kernels, conv, *self.mixer, x)

    def factors(self, x_nc: Tensor) -> Tensor:
        """What squeeze-excite multiplies each channel with, [c]."""
        means = (self.weight_33c * sums_by_offset(x_nc)).sum((0, 1)) / len(x_nc) + self.bias
        squeezed = F.relu(F.linear(means, self.se.fc1.weight.flatten(1), self.se.fc1.bias))
        return F.linear(squeezed, self.se.fc2.weight.flatten(1), self.se.fc2.bias).sigmoid()


def sums_by_offset(x_nc: Tensor) -> Tensor:
    """The sum of the pixels that each place of a 3x3 convolution with a border of zeros sees, [3, 3, c]."""
    side = int(len(x_nc) ** 0.5)
    x_hwc, total = x_nc.unflatten(0, (side, side)), x_nc.sum(0)
    first_row, last_row = x_hwc[0].sum(0), x_hwc[-1].sum(0)
    first_column, last_column = x_hwc[:, 0].sum(0), x_hwc[:, -1].sum(0)
    none = torch.zeros_like(total)
    rows = torch.stack((last_row, none, first_row))  # what the places above, on and below the pixel do not see
    columns = torch.stack((last_column, none, first_column))
    corners = torch.stack((
        torch.stack((x_hwc[-1, -1], none, x_hwc[-1, 0])), torch.stack((none, none, none)),
        torch.stack((x_hwc[0, -1], none, x_hwc[0, 0])),
    ))  # fmt: skip
    return total - rows[:, None] - columns[None] + corners
