"""The kernels of convolutional trunks (simd/trunk.h) as functions on tensors: stem, depthwise, inverted residual block.

Maps are float32 rows [side * side, channels], whose channels are filled up to a multiple of 16 with zeros.
"""

from __future__ import annotations

from ctypes import addressof, byref

import torch.nn.functional as F
from torch import Tensor

from .binding import DepthwiseStruct, SourceStruct
from .isa import LANES
from .kernels import F32, NONE, RELU6, Kernels, Packed, output_struct, rows


def filled(x: Tensor, *axes: int) -> Tensor:
    """A tensor with these axes filled up with zeros to a multiple of 16."""
    for axis in axes:
        fill = [0] * (2 * x.ndim)
        fill[2 * (x.ndim - 1 - axis % x.ndim) + 1] = -x.shape[axis] % LANES
        x = F.pad(x, fill)
    return x


class Depthwise:
    """A depthwise convolution [c, 1, k, k] for the kernels, with `before` zeros before a row, and its activation."""

    def __init__(
        self, weight_c1kk: Tensor, bias_c: Tensor, stride: int = 1, before: int | None = None, activation: int = NONE
    ) -> None:
        weight_ck = filled(weight_c1kk.detach().float().flatten(1), 0)
        self.side = weight_c1kk.shape[-1]
        self.weight = weight_ck.view(-1, LANES, self.side**2).transpose(1, 2).contiguous()
        self.bias = filled(bias_c.detach().float(), 0).contiguous()
        self.channels, self.stride = len(self.bias), stride
        before = (self.side - 1) // 2 if before is None else before
        self.c = DepthwiseStruct(
            self.weight.data_ptr(), self.bias.data_ptr(), self.channels, self.side, stride, before, activation
        )


def stem_layer(kernels: Kernels, weight_n3kk: Tensor, bias_n: Tensor) -> Packed:
    """A 3x3 convolution [n, 3, 3, 3] of a picture, packed for `stem` and `inverted`."""
    return Packed(kernels, filled(weight_n3kk.flatten(1), 0), filled(bias_n, 0), kind=F32)


def stem(kernels: Kernels, layer: Packed, image_chw: Tensor, before: int, activation: int) -> Tensor:
    """A 3x3 convolution of stride 2 of a picture [3, S, S]: rows [S * S / 4, n]."""
    size = image_chw.shape[-1]
    out = rows((size // 2) ** 2, layer.n)
    to = output_struct(out, activation, None)
    kernels.call("stem", byref(layer.c), image_chw.data_ptr(), size, before, byref(to))
    return out


def depthwise(kernels: Kernels, conv: Depthwise, x_nc: Tensor) -> Tensor:
    """A depthwise convolution of rows [side * side, c]: [low * low, c]."""
    side = int(len(x_nc) ** 0.5)
    low = -(-side // conv.stride)
    out = rows(low * low, conv.channels)
    source = SourceStruct(x_nc.data_ptr(), x_nc.stride(0), None, 0, 0, NONE, conv.channels, side)
    kernels.call("depthwise", byref(source), byref(conv.c), low, out.data_ptr())
    return out


class Inverted:
    """An inverted residual block: a layer and its activation, a depthwise convolution, a layer; and the residual.

    `first` is the stem if `stem_before`, its zeros before a row, is given: it takes the picture then.
    """

    def __init__(
        self, kernels: Kernels, first: Packed, conv: Depthwise, last: Packed, residual: bool,
        activation: int = RELU6, stem_before: int | None = None,
    ) -> None:  # fmt: skip
        self.kernels, self.first, self.conv, self.last = kernels, first, conv, last
        self.residual, self.activation, self.stem_before = residual, activation, stem_before

    def __call__(self, x: Tensor) -> Tensor:
        """Rows [side * side, c], or the picture [3, S, S], to rows [low * low, n]."""
        stem = self.stem_before is not None
        side = x.shape[-1] // 2 if stem else int(len(x) ** 0.5)
        low = -(-side // self.conv.stride)
        out = rows(low * low, self.last.n)
        source = SourceStruct(
            x.data_ptr(), x.stride(0), addressof(self.first.c), int(stem), self.stem_before or 0, self.activation,
            self.first.inputs, side,
        )  # fmt: skip
        to = output_struct(out, NONE, x if self.residual else None)
        self.kernels.call("inverted", byref(source), byref(self.conv.c), byref(self.last.c), low, byref(to))
        return out
