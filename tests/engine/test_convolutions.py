"""The kernels of convolutional trunks against torch, on every instruction set that this CPU has."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.engine.cpu.convolutions import Depthwise, Inverted, depthwise, filled, stem, stem_layer
from rtseg.engine.cpu.kernels import GELU, NONE, RELU, RELU6, Kernels, Packed
from tests.engine.test_cpu import error, kernels, limit_of, random  # noqa: F401

ACTIVATIONS = {NONE: lambda x: x, RELU: F.relu, GELU: F.gelu, RELU6: F.relu6}


def as_map(rows_nc: Tensor) -> Tensor:
    side = int(len(rows_nc) ** 0.5)
    return rows_nc.view(1, side, side, -1).permute(0, 3, 1, 2)


def as_rows(map_1chw: Tensor) -> Tensor:
    return map_1chw[0].flatten(1).T.contiguous()


def convolved(x_nc: Tensor, weight: Tensor, bias: Tensor, stride: int, before: int) -> Tensor:
    """A depthwise convolution by torch, with `before` zeros before and as many after as are needed."""
    after = weight.shape[-1] - stride - before
    padded = F.pad(as_map(x_nc), (before, after, before, after))
    return as_rows(F.conv2d(padded, weight, bias, stride=stride, groups=len(weight)))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("side", "channels", "size", "stride", "before"),
    [(20, 96, 3, 1, 1), (20, 48, 3, 2, 0), (12, 32, 3, 2, 1), (10, 144, 5, 1, 2), (14, 48, 5, 2, 1), (16, 64, 7, 1, 3),
     (2, 16, 5, 1, 2)],
)  # fmt: skip
def test_depthwise(
    kernels: Kernels, threads: int, side: int, channels: int, size: int, stride: int, before: int  # noqa: F811
) -> None:  # fmt: skip
    x, weight, bias = random(side * side, channels), random(channels, 1, size, size, seed=1), random(channels, seed=2)
    kernels.use(threads)
    expected = convolved(x, weight, bias, stride, before)
    for activation, activate in ACTIVATIONS.items():
        conv = Depthwise(weight, bias, stride, before, activation)
        assert error(depthwise(kernels, conv, x), activate(expected)) < 1e-4
    other = depthwise(kernels, Depthwise(weight.flip(-1), bias, stride, before), x)
    assert error(other, expected) > 0.1
    kernels.use(1)


@pytest.mark.parametrize(("size", "before"), [(64, 0), (64, 1), (20, 0)])
def test_stem(kernels: Kernels, size: int, before: int) -> None:  # noqa: F811
    image, weight, bias = random(3, size, size), random(32, 3, 3, 3, seed=1), random(32, seed=2)
    layer = stem_layer(kernels, weight, bias)
    padded = F.pad(image[None], (before, 1 - before, before, 1 - before))
    expected = as_rows(F.conv2d(padded, weight, bias, stride=2))
    for activation, activate in ACTIVATIONS.items():
        assert error(stem(kernels, layer, image, before, activation), activate(expected)) < 1e-4
    assert error(stem(kernels, layer, image, 1 - before, NONE), expected) > 0.1


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("side", "inputs", "outputs", "size", "stride"),
    [(40, 16, 32, 3, 2), (20, 32, 32, 3, 1), (20, 48, 80, 5, 2), (10, 112, 112, 5, 1), (2, 192, 192, 5, 1)],
)
@pytest.mark.parametrize("activation", [RELU6, GELU])
def test_an_inverted_residual_block(
    kernels: Kernels, threads: int, side: int, inputs: int, outputs: int, size: int, stride: int, activation: int,  # noqa: F811
) -> None:  # fmt: skip
    x, wide = random(side * side, inputs), 3 * inputs
    one, last = random(wide, inputs, seed=1) / inputs**0.5, random(outputs, wide, seed=2) / wide**0.5
    weight, biases = random(wide, 1, size, size, seed=3) / size, [random(n, seed=n) for n in (wide, wide + 1, outputs)]
    before, residual, act = (size - stride) // 2, stride == 1 and inputs == outputs, ACTIVATIONS[activation]
    hidden = act(convolved(act(F.linear(x, one, biases[0])), weight, biases[1][:wide], stride, before))
    expected = F.linear(hidden, last, biases[2]) + (x if residual else 0)
    conv = Depthwise(weight, biases[1][:wide], stride, before, activation)
    packed = Packed(kernels, one, biases[0]), conv, Packed(kernels, last, biases[2])
    kernels.use(threads)
    assert error(Inverted(kernels, *packed, residual, activation)(x), expected) < 1.5 * limit_of(kernels)
    assert error(Inverted(kernels, *packed, residual, NONE)(x), expected) > 0.1
    kernels.use(1)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_stem_and_its_block_at_once(kernels: Kernels, threads: int) -> None:  # noqa: F811
    image, weight, bias = random(3, 96, 96), random(32, 3, 3, 3, seed=1) / 5, random(32, seed=2)
    mixer, mixer_bias, last = random(32, 1, 3, 3, seed=3) / 3, random(32, seed=4), random(16, 32, seed=5) / 6
    begun = as_rows(F.relu6(F.conv2d(F.pad(image[None], (0, 1, 0, 1)), weight, bias, stride=2)))
    expected = F.linear(F.relu6(convolved(begun, mixer, mixer_bias, 1, 1)), last)
    conv = Depthwise(mixer, mixer_bias, activation=RELU6)
    packed = stem_layer(kernels, weight, bias), conv, Packed(kernels, last, None)
    kernels.use(threads)
    assert error(Inverted(kernels, *packed, False, stem_before=0)(image), expected) < limit_of(kernels)
    assert error(Inverted(kernels, *packed, False, stem_before=1)(image), expected) > 0.1
    kernels.use(1)


def test_zeros_fill_up() -> None:
    x = random(3, 20)
    assert filled(x, 1).shape == (3, 32) and filled(x, 0, 1).shape == (16, 32) and filled(random(16), 0).shape == (16,)
    assert torch.equal(filled(x, 0, -1)[:3, :20], x) and filled(x, 0, 1).sum() == pytest.approx(x.sum())
