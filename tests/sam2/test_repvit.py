"""EdgeTAM's trunk against timm's RepViT-M1: the folded network is the trained one."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rtseg.sam2.repvit import RepVit, fold

SIDE = 128


@pytest.fixture(scope="module")
def theirs() -> Any:
    """The trained form, with random weights and statistics."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("the oracle is timm's repvit_m1; timm is not installed")
    from bench.edgetam import timm

    model: nn.Module = timm().create_model("repvit_m1", features_only=True, out_indices=(0, 1, 2, 3)).eval()
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (p[0].numel() ** -0.5 if p.ndim > 1 else 0.2))
            p.add_(float(name.endswith("bn.weight")))
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(0.2 * torch.randn(b.shape, generator=g))
            elif name.endswith("running_var"):
                b.copy_(0.5 + torch.rand(b.shape, generator=g))
    return model


def named(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm joins the names of the outermost modules with an underscore."""
    return {re.sub(r"^stages_", "stages.", name): tensor for name, tensor in state.items()}


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.inference_mode()
def test_the_folded_trunk_is_the_trained_one(theirs: Any) -> None:
    ours = RepVit().eval()
    ours.load_state_dict(fold(named(theirs.state_dict())))
    image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    for mine, other in zip(ours(image), theirs(image), strict=True):
        assert mine.shape == other.shape and error(mine, other) < 1e-4


@pytest.mark.parametrize("part", ["stem.conv2.bn.running_mean", "stages_2.blocks.13.token_mixer.conv1.bn.weight"])
@torch.inference_mode()
def test_every_statistic_counts(theirs: Any, part: str) -> None:
    ours, state = RepVit().eval(), theirs.state_dict()
    ours.load_state_dict(fold(named({**state, part: state[part] + 0.1})))
    image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    assert error(ours(image)[-1], theirs(image)[-1]) > 1e-3


def test_folded_tensors_are_kept_and_a_norm_that_is_not_whole_is_reported(theirs: Any) -> None:
    folded = fold(named(theirs.state_dict()))
    again = fold(folded)
    assert again.keys() == folded.keys() and all(again[name] is folded[name] for name in folded)
    partly = named(theirs.state_dict())
    del partly["stem.conv1.bn.running_var"]
    assert "stem.conv1.weight" not in fold(partly) and "stem.conv1.bn.weight" in fold(partly)
