"""The kernels of convolutional trunks against torch, on every instruction set that this CPU has."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.engine.cpu import isa as isas
from rtseg.engine.cpu.convolutions import (
    Depthwise,
    Inverted,
    TwoConvolutions,
    depthwise,
    filled,
    mixed,
    stem,
    stem_layer,
)
from rtseg.engine.cpu.kernels import GELU, NONE, RELU, RELU6, Kernels, Packed
from rtseg.engine.cpu.repvit import sums_by_offset
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


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("side", "channels", "size"), [(40, 48, 3), (10, 192, 3), (9, 32, 7)])
def test_a_block_that_mixes(kernels: Kernels, threads: int, side: int, channels: int, size: int) -> None:  # noqa: F811
    x, weight, bias = random(side * side, channels), random(channels, 1, size, size, seed=1) / size, random(channels)
    one, two = (
        random(*shape, seed=2) / channels**0.5 for shape in ((2 * channels, channels), (channels, 2 * channels))
    )
    y = convolved(x, weight, bias, 1, size // 2)
    expected = y + F.linear(F.gelu(F.linear(y, one, one[:, 0])), two, two[:, 0])
    given = Depthwise(weight, bias), Packed(kernels, one, one[:, 0]), Packed(kernels, two, two[:, 0])
    kernels.use(threads)
    assert error(mixed(kernels, *given, x), expected) < limit_of(kernels)
    assert error(mixed(kernels, *given, x, RELU), expected) > limit_of(kernels)
    kernels.use(1)


@pytest.mark.parametrize("threads", [1, 3])
def test_two_convolutions_of_a_picture(kernels: Kernels, threads: int) -> None:  # noqa: F811
    first, last = nn.Conv2d(3, 24, 3, 2, 1).requires_grad_(False), nn.Conv2d(24, 48, 3, 2, 1).requires_grad_(False)
    first.weight.copy_(random(24, 3, 3, 3) / 5), last.weight.copy_(random(48, 24, 3, 3, seed=1) / 15)
    image = random(3, 96, 96, seed=2)
    expected = as_rows(last(F.gelu(first(image[None]))))
    kernels.use(threads)
    assert error(TwoConvolutions(kernels, first, last)(image), expected) < limit_of(kernels)
    assert error(TwoConvolutions(kernels, first, last, RELU6)(image), expected) > 2 * limit_of(kernels)
    kernels.use(1)


def test_the_means_of_a_convolution_follow_from_sums() -> None:
    """So squeeze-excite knows its factors before the convolution is done, and these go into its weights."""
    x, weight, bias, factors = random(49, 32), random(32, 1, 3, 3, seed=1), random(32, seed=2), random(32, seed=3)
    y = convolved(x, weight, bias, 1, 1)
    means = (weight[:, 0].permute(1, 2, 0) * sums_by_offset(x)).sum((0, 1)) / 49 + bias
    assert error(means, y.mean(0)) < 1e-5
    assert error(sums_by_offset(x.flip(0)), sums_by_offset(x)) > 0.1
    if isas.why_not() is None:
        conv = Depthwise(weight, bias).scaled(factors)
        assert error(depthwise(Kernels("avx2", "fp32"), conv, x), y * factors) < 1e-5


def test_zeros_fill_up() -> None:
    x = random(3, 20)
    assert filled(x, 1).shape == (3, 32) and filled(x, 0, 1).shape == (16, 32) and filled(random(16), 0).shape == (16,)
    assert torch.equal(filled(x, 0, -1)[:3, :20], x) and filled(x, 0, 1).sum() == pytest.approx(x.sum())
