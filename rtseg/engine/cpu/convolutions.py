"""The kernels of convolutional trunks (simd/trunk.h) as functions on tensors: stem, depthwise, inverted residual block.

Maps are float32 rows [side * side, channels], whose channels are filled up to a multiple of 16 with zeros.
"""

from __future__ import annotations

import copy
from ctypes import addressof, byref
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .binding import DepthwiseStruct, SourceStruct
from .isa import LANES
from .kernels import F32, GELU, NONE, RELU6, Kernels, Packed, output_struct, rows


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
        self.before = (self.side - 1) // 2 if before is None else before
        self.activation = activation
        self.c = self._struct()

    def _struct(self) -> DepthwiseStruct:
        return DepthwiseStruct(
            self.weight.data_ptr(), self.bias.data_ptr(), self.channels, self.side, self.stride, self.before,
            self.activation,
        )  # fmt: skip

    def scaled(self, factors_c: Tensor) -> Depthwise:
        """The convolution with each channel multiplied by a factor."""
        made = copy.copy(self)
        made.weight, made.bias = self.weight * factors_c.view(-1, 1, LANES), self.bias * factors_c
        made.c = made._struct()
        return made


def pointwise(kernels: Kernels, conv: Any) -> Packed:
    """A 1x1 convolution as a layer of rows, with its channels filled up."""
    return Packed(kernels, filled(conv.weight.flatten(1), 0, 1), filled(conv.bias, 0))


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


def _map(x_nc: Tensor) -> SourceStruct:
    """Rows [side * side, c] as they are."""
    return SourceStruct(x_nc.data_ptr(), x_nc.stride(0), None, 0, 0, NONE, x_nc.shape[1], int(len(x_nc) ** 0.5))


def _layer(layer: Packed, activation: int, x_nc: Tensor) -> SourceStruct:
    """A layer and its activation on rows [side * side, c]."""
    side = int(len(x_nc) ** 0.5)
    return SourceStruct(x_nc.data_ptr(), x_nc.stride(0), addressof(layer.c), 0, 0, activation, layer.inputs, side)


def _stem(layer: Packed, activation: int, before: int, image_chw: Tensor) -> SourceStruct:
    """A stem and its activation on a picture [3, S, S]."""
    side = image_chw.shape[-1] // 2
    return SourceStruct(image_chw.data_ptr(), 0, addressof(layer.c), 1, before, activation, 0, side)


def _output(source: SourceStruct, conv: Depthwise, channels: int) -> tuple[int, Tensor]:
    """The side of the result of a convolution of a source, and its rows."""
    low = -(-source.side // conv.stride)
    return low, rows(low * low, channels)


def depthwise(kernels: Kernels, conv: Depthwise, x_nc: Tensor) -> Tensor:
    """A depthwise convolution of rows [side * side, c]: [low * low, c]."""
    source = _map(x_nc)
    low, out = _output(source, conv, conv.channels)
    kernels.call("depthwise", byref(source), byref(conv.c), low, out.data_ptr())
    return out


class Inverted:
    """An inverted residual block: a layer and its activation, a depthwise convolution, a layer; and the residual.

    `first` may be None: then the convolution takes what enters. With `stem_before`, its zeros before a row, it is the
    stem, which takes a picture.
    """

    def __init__(
        self, kernels: Kernels, first: Packed | None, conv: Depthwise, last: Packed, residual: bool = False,
        activation: int = RELU6, stem_before: int | None = None,
    ) -> None:  # fmt: skip
        self.kernels, self.first, self.conv, self.last = kernels, first, conv, last
        self.residual, self.activation, self.stem_before = residual, activation, stem_before

    def __call__(self, x: Tensor) -> Tensor:
        """Rows [side * side, c], or the picture [3, S, S], to rows [low * low, n]."""
        source = self._source(x)
        low, out = _output(source, self.conv, self.last.n)
        to = output_struct(out, NONE, x if self.residual else None)
        self.kernels.call("inverted", byref(source), byref(self.conv.c), byref(self.last.c), low, byref(to))
        return out

    def _source(self, x: Tensor) -> SourceStruct:
        if self.first is None:
            return _map(x)
        if self.stem_before is None:
            return _layer(self.first, self.activation, x)
        return _stem(self.first, self.activation, self.stem_before, x)


def mixed(
    kernels: Kernels, conv: Depthwise, first: Packed, last: Packed, x_nc: Tensor, activation: int = GELU
) -> Tensor:
    """y + last(activation(first(y))) with y = conv(x): rows [low * low, c]."""
    source = _map(x_nc)
    low, out = _output(source, conv, last.n)
    to = output_struct(out, NONE, None)
    kernels.call("mixed", byref(source), byref(conv.c), byref(first.c), byref(last.c), activation, low, byref(to))
    return out


class TwoConvolutions:
    """Two 3x3 convolutions of stride 2 with an activation between: a picture [3, S, S] to rows [S * S / 16, n].

    Weights [m, 3, 3, 3] and [n, m, 3, 3]; one row and column of zeros around each map.
    """

    def __init__(self, kernels: Kernels, first: nn.Conv2d, last: nn.Conv2d, activation: int = GELU) -> None:
        assert first.bias is not None and last.bias is not None
        self.kernels, self.activation = kernels, activation
        self.first = stem_layer(kernels, first.weight, first.bias)
        weight_nk = last.weight.permute(0, 2, 3, 1).flatten(1)
        self.last = Packed(kernels, filled(weight_nk, 0), filled(last.bias, 0), exact=True)
        self.channels = first.out_channels
        self.c = DepthwiseStruct(None, None, self.first.n, 3, 2, 1, NONE)

    def __call__(self, image_chw: Tensor) -> Tensor:
        source = _stem(self.first, self.activation, 1, image_chw)
        low = source.side // 2
        out = rows(low * low, self.last.n)
        to = output_struct(out, NONE, None)
        self.kernels.call("dense", byref(source), byref(self.c), byref(self.last.c), self.channels, low, byref(to))
        return out
