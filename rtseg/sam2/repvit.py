"""Image trunk of EdgeTAM: RepViT-M1 (arXiv 2307.09283), a convolutional network, in the form it has after training.

A trained block adds three branches (a depthwise 3x3 convolution, a depthwise 1x1, the input itself), each but the last
with a batch norm. Their sum is one depthwise convolution. `fold` makes it, and merges every other batch norm with its
convolution, from the tensors that timm's `repvit_m1` has; so this module has no batch norm and no branches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIMS, DEPTHS = (48, 96, 192, 384), (2, 2, 14, 2)  # channels and blocks of each stage
RATIO = 2  # hidden channels of the channel mixers
SQUEEZE = 4  # channels are divided by this where they are squeezed, and rounded to a multiple of 8
NORM_EPS = 1e-5


def _depthwise(channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels)


class ChannelMixer(nn.Module):
    """Two 1x1 convolutions with a GELU between, added to the input: [n, c, h, w] to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, RATIO * channels, 1)
        self.conv2 = nn.Conv2d(RATIO * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.gelu(self.conv1(x)))
        return out


class SqueezeExcite(nn.Module):
    """Each channel times a factor in 0..1 that depends on the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = int(channels / SQUEEZE + 4) // 8 * 8
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        # In fp32, because in fp16 the sum over a large map overflows.
        means = x.float().mean((2, 3), keepdim=True).to(x.dtype)
        return x * self.fc2(F.relu(self.fc1(means))).sigmoid()


class RepVitBlock(nn.Module):
    """A depthwise convolution, in every other block a squeeze-excite, and the channel mixer."""

    def __init__(self, channels: int, squeeze: bool) -> None:
        super().__init__()
        self.token_mixer = _depthwise(channels)
        self.se = SqueezeExcite(channels) if squeeze else None
        self.channel_mixer = ChannelMixer(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixer(x)
        out: Tensor = self.channel_mixer(x if self.se is None else self.se(x))
        return out


class Downsample(nn.Module):
    """Between two stages: half the side, twice the channels."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.pre_block = RepVitBlock(dim_in, squeeze=False)
        self.spatial_downsample = _depthwise(dim_in, stride=2)
        self.channel_downsample = nn.Conv2d(dim_in, dim_out, 1)
        self.ffn = ChannelMixer(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.ffn(self.channel_downsample(self.spatial_downsample(self.pre_block(x))))
        return out


class Stage(nn.Module):
    """The blocks of one resolution, after a `Downsample` in all stages but the first."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.downsample = Downsample(DIMS[index - 1], DIMS[index]) if index else None
        self.blocks = nn.ModuleList(RepVitBlock(DIMS[index], squeeze=i % 2 == 0) for i in range(DEPTHS[index]))

    def forward(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            x = self.downsample(x)
        for block in self.blocks:
            x = block(x)
        return x


class Stem(nn.Module):
    """Two 3x3 convolutions at stride 2: [n, 3, S, S] to [n, 48, S/4, S/4]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, DIMS[0] // 2, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(DIMS[0] // 2, DIMS[0], 3, stride=2, padding=1)

    def forward(self, image_nchw: Tensor) -> Tensor:
        out: Tensor = self.conv2(F.gelu(self.conv1(image_nchw)))
        return out


class RepVit(nn.Module):
    """The trunk: an image [n, 3, S, S] to maps at strides 4, 8, 16 and 32, with `DIMS` channels, finest first.

    With fewer `levels` the coarsest are left out.
    """

    def __init__(self, levels: int = len(DIMS)) -> None:
        super().__init__()
        self.stem = Stem()
        self.stages = nn.ModuleList(Stage(i) for i in range(levels))

    def forward(self, image_nchw: Tensor) -> list[Tensor]:
        x, maps = self.stem(image_nchw), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def fold(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a trained trunk under timm's names, with batch norms and branches, as those of `RepVit`.

    Names may have a prefix. Tensors that belong to no batch norm are kept; a batch norm that is not whole is kept, too,
    so that loading reports it. Sums are made in float64.
    """
    out, norms = dict(state), [name.removesuffix(".bn.weight") for name in state if name.endswith(".bn.weight")]
    for place in norms:
        parts = [f"{place}.c.weight", *(f"{place}.bn.{p}" for p in ("weight", "bias", "running_mean", "running_var"))]
        if any(part not in out for part in parts):
            continue
        conv, scale, shift, mean, variance = (out.pop(part).double() for part in parts)
        out.pop(f"{place}.bn.num_batches_tracked", None)
        factor = scale / (variance + NORM_EPS).sqrt()
        out[f"{place}.weight"] = conv * factor.view(-1, 1, 1, 1)
        out[f"{place}.bias"] = shift - mean * factor
    for mixer in [name.removesuffix(".conv.weight") for name in out if name.endswith("token_mixer.conv.weight")]:
        parts = [f"{mixer}.{branch}.{kind}" for branch in ("conv", "conv1") for kind in ("weight", "bias")]
        if any(part not in out for part in parts):
            continue
        three, three_bias, one, one_bias = (out.pop(part) for part in parts)
        centre = F.pad(one + 1, (1, 1, 1, 1))  # the 1x1 branch, and the input itself
        out[f"{mixer}.weight"], out[f"{mixer}.bias"] = three + centre, three_bias + one_bias
    return {name: tensor.float() if tensor.dtype == torch.float64 else tensor for name, tensor in out.items()}
