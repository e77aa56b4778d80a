"""EdgeTAM's weights in and out: the published names, and those of transformers; every tensor is used, and filled."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from rtseg.base.errors import WeightsError
from rtseg.sam2 import PRESETS, Sam2, load_weights, save_weights
from rtseg.sam2.weights import renamed

GOLDEN = Path(__file__).parents[1] / "golden"
SHARED = "shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding"
State = dict[str, Tensor]


def published(name: str) -> State:
    """A tensor for each name, all positive, from a file that no code of ours has written."""
    g, state = torch.Generator().manual_seed(0), State()
    for line in (GOLDEN / f"{name}.txt").read_text("utf-8").splitlines()[1:]:
        names, _, shape = line.partition(" ")
        sizes = [int(n) for n in shape.strip("[]").split(",") if n]
        for words in itertools.product(*(part.strip("{}").split(",") for part in names.split("."))):
            state[".".join(words)] = 0.5 + torch.rand(sizes, generator=g) if sizes else torch.tensor(7)
    if SHARED[0] in state:
        state[SHARED[0]] = state[SHARED[1]]
    return state


@pytest.fixture(scope="module")
def network() -> Sam2:
    return Sam2(PRESETS["edgetam"], 256)


@pytest.fixture(scope="module", params=["edgetam", "edgetam_transformers"])
def state(request: pytest.FixtureRequest) -> State:
    return published(request.param)


def test_the_golden_names_are_whole() -> None:
    """The counts are those of the authors' model and of transformers' model, each with timm's trunk."""
    assert [len(published(name)) for name in ("edgetam", "edgetam_transformers")] == [982, 984]


def test_every_tensor_is_used_and_every_tensor_is_filled(state: State, network: Sam2) -> None:
    """By gradients: each number of the file moves the network's, and each tensor of the network comes from the file."""
    given = {name: t.clone().requires_grad_() if t.is_floating_point() else t for name, t in state.items()}
    made = renamed(Path("edgetam.pt"), given)
    assert {n: t.shape for n, t in made.items()} == {n: t.shape for n, t in network.state_dict().items()}
    assert all(t.grad_fn is not None or t.requires_grad for t in made.values())
    torch.stack([(t**2).sum() for t in made.values()]).sum().backward()
    for name, t in given.items():
        if name.endswith("num_batches_tracked") or name == SHARED[1]:  # a counter, and a second copy
            continue
        assert t.grad is not None and bool((t.grad != 0).all()), name


def test_both_files_of_the_same_numbers_are_the_same_network(tmp_path: Path, network: Sam2) -> None:
    """Keys and values of the perceiver are one matrix here and two there; the trunk has the same names in both."""
    official, theirs = published("edgetam"), published("edgetam_transformers")
    for name in theirs:
        if name.startswith("vision_encoder.backbone.timm_model."):
            theirs[name] = official[name.replace("vision_encoder.backbone.timm_model", "image_encoder.trunk.body")]
    layer = "spatial_perceiver.layers.1"
    key, value = official[f"{layer}.attn.to_kv.weight"].chunk(2)
    theirs[f"{layer}.cross_attention.k_proj.weight"], theirs[f"{layer}.cross_attention.v_proj.weight"] = key, value
    torch.save({"model": official}, tmp_path / "edgetam.pt")
    safetensors.torch.save_file({n: t.clone().contiguous() for n, t in theirs.items()}, tmp_path / "model.safetensors")
    loaded = []
    for name in ("edgetam.pt", "model.safetensors"):
        load_weights(network, tmp_path / name)
        loaded.append({n: t.clone() for n, t in network.state_dict().items()})
    same = [n for n in loaded[0] if "trunk" in n or n == f"{layer}.attn.to_kv.weight"]
    assert len(same) == 207 and all(torch.equal(loaded[0][n], loaded[1][n]) for n in same)
    assert not torch.equal(loaded[0]["no_obj_ptr"], loaded[1]["no_obj_ptr"])


def test_our_own_file_holds_the_folded_network(tmp_path: Path, network: Sam2) -> None:
    torch.save({"model": published("edgetam")}, tmp_path / "edgetam.pt")
    load_weights(network, tmp_path / "edgetam.pt")
    save_weights(network, tmp_path / "own.safetensors", half=False)
    again = Sam2(PRESETS["edgetam"], 256)
    load_weights(again, tmp_path / "own.safetensors")
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in network.state_dict().items())


MIXER = "image_encoder.trunk.body.stages_2.blocks.3.token_mixer"


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        (f"{MIXER}.conv.bn.running_var", None, r"tensors are missing, the first is .*stages.2.blocks.3.token_mixer"),
        (f"{MIXER}.conv1.c.weight", None, r"tensors are missing"),
        (f"{MIXER}.conv.bn.running_var", torch.full((192,), -1.0), "token_mixer.weight holds something else"),
        (f"{MIXER}.conv.bn.running_var", torch.ones(7), "shapes in image_encoder.trunk do not fit together"),
        (f"{MIXER}.conv.c.weight", torch.ones(96, 1, 3, 3), "shapes in image_encoder.trunk do not fit together"),
        (
            "spatial_perceiver.latents_2d",
            torch.ones(100, 64),
            r"latents_2d has shape \[100, 64\], expected \[256, 64\]",
        ),
        ("no_obj_embed_spatial", torch.ones(1, 64), "that the network does not have, such as no_obj_embed_spatial"),
    ],
)
def test_a_file_that_does_not_fit(name: str, tensor: Tensor | None, said: str, tmp_path: Path, network: Sam2) -> None:
    state = published("edgetam") | ({} if tensor is None else {name: tensor})
    if tensor is None:
        del state[name]
    torch.save({"model": state}, tmp_path / "edgetam.pt")
    before = network.no_obj_ptr.clone()
    with pytest.raises(WeightsError, match=said) as caught:
        load_weights(network, tmp_path / "edgetam.pt")
    assert "\n" not in str(caught.value) and torch.equal(network.no_obj_ptr, before)
