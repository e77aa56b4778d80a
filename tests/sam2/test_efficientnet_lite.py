"""The EfficientNet-Lite trunk against the public implementation that its ImageNet weights were made with."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from rtseg.base.errors import WeightsError
from rtseg.sam2 import MEAN, STD, Preset, Sam2, efficientnet_lite
from rtseg.sam2.efficientnet_lite import PUBLISHED_MEAN, PUBLISHED_STD, EfficientNetLite, imagenet_state
from rtseg.sam2.presets import FIXED_TRUNKS

SIZE = 128


@cache
def published(name: str) -> Any:
    """The public implementation with random weights, and the statistics that a random batch has with these."""
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch")
    torch.manual_seed(0)
    network = package.EfficientNet.from_name(name, image_size=SIZE).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
            module.momentum = 1.0
    with torch.no_grad():
        network.extract_features(torch.randn(4, 3, SIZE, SIZE))
    return network.eval()


def published_maps(network: Any, image_nchw: Tensor, ends: list[int]) -> list[Tensor]:
    x = network._swish(network._bn0(network._conv_stem(image_nchw)))
    maps = []
    for i, block in enumerate(network._blocks):
        x = block(x)
        if i in ends:
            maps.append(x)
    return maps


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"])
def test_every_map_is_that_of_the_public_implementation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "MEAN", (PUBLISHED_MEAN,) * 3)
    monkeypatch.setattr(efficientnet_lite, "STD", (PUBLISHED_STD,) * 3)
    network, trunk = published(name), EfficientNetLite(name).eval()
    trunk.load_state_dict(imagenet_state(trunk, network.state_dict()))
    image_nchw = torch.randn(2, 3, SIZE, SIZE)
    maps = trunk(image_nchw)
    expected = published_maps(network, image_nchw, trunk.stage_ends)
    assert [m.shape[1] for m in maps] == list(FIXED_TRUNKS[name]) and [m.shape[2] for m in maps] == [32, 16, 8, 4]
    assert max(apart(a, b) for a, b in zip(maps, expected, strict=True)) < 1e-4
    other = published_maps(network, image_nchw.flip(3), trunk.stage_ends)
    assert min(apart(a, b) for a, b in zip(maps, other, strict=True)) > 0.05


@torch.no_grad()
def test_the_normalisation_of_the_published_weights_is_folded_into_the_stem() -> None:
    network, trunk = published("efficientnet-lite0"), EfficientNetLite("efficientnet-lite0").eval()
    trunk.load_state_dict(imagenet_state(trunk, network.state_dict()))
    rgb_nchw = torch.rand(1, 3, SIZE, SIZE)
    mean_c11, std_c11 = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    stem = trunk.stem((rgb_nchw - mean_c11) / std_c11)
    expected = network._bn0(network._conv_stem((rgb_nchw - PUBLISHED_MEAN) / PUBLISHED_STD))
    # Only the padding differs: it is zero after another normalisation.
    assert apart(stem[..., :-1, :-1], expected[..., :-1, :-1]) < 1e-5
    assert apart(trunk.stem(rgb_nchw)[..., :-1, :-1], expected[..., :-1, :-1]) > 0.1


def test_weights_of_another_variant_are_refused() -> None:
    state = published("efficientnet-lite0").state_dict()
    with pytest.raises(WeightsError, match="is missing|has shape"):
        imagenet_state(EfficientNetLite("efficientnet-lite2"), state)
    with pytest.raises(WeightsError, match="_conv_stem.weight is missing; expected those of EfficientNet-Lite"):
        imagenet_state(EfficientNetLite("efficientnet-lite0"), {})


@torch.no_grad()
def test_a_network_without_stride_32() -> None:
    network = Sam2(Preset("small", trunk="efficientnet-lite0", levels=3, dim=32, memory_dim=16), 64).eval()
    features = network.encode_image(torch.randn(1, 3, 64, 64))
    assert features.top.shape == (1, 32, 4, 4) and len(network.image_encoder.neck.convs) == 3
