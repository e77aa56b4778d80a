"""The plain ViT trunk and its neck, against transformers' encoder of SAM, which has the same blocks and neck."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rtseg.base.errors import ConfigError, WeightsError
from rtseg.sam2 import PRESETS, Sam2, get_preset, load_weights
from rtseg.sam2.encoder import ImageEncoder

from .test_weights import SMALL_20, checkpoint

# Width, heads, and what the paper (table 1, in millions) gives as the size of the network.
SIZES = {"efficienttam-tiny": (192, 3, 18), "efficienttam-small": (384, 6, 34)}
SIDE = 20  # cells; no multiple of the window's 14, and not the 14 of the position table
NECK = {"conv_1x1": "conv1", "norm_0": "layer_norm1", "conv_3x3": "conv2", "norm_1": "layer_norm2"}


def official_names(dim: int) -> dict[str, tuple[int, ...]]:
    """Tensors of EfficientTAM's files, written down from its public code: SAM 2 small's, but for the image encoder."""
    own = {name: shape for name, shape in SMALL_20.items() if not name.startswith("image_encoder.")}
    own = {name: shape for name, shape in own.items() if ".conv_s0." not in name and ".conv_s1." not in name}
    trunk, neck = "image_encoder.trunk", "image_encoder.neck.convs.0"
    own |= {f"{trunk}.pos_embed": (1, 197, dim), f"{trunk}.patch_embed.proj.weight": (dim, 3, 16, 16)}
    own |= {f"{trunk}.patch_embed.proj.bias": (dim,)}
    for i in range(12):
        for layer, shape in (
            ("norm1", (dim,)), ("attn.qkv", (3 * dim, dim)), ("attn.proj", (dim, dim)), ("norm2", (dim,)),
            ("mlp.layers.0", (4 * dim, dim)), ("mlp.layers.1", (dim, 4 * dim)),
        ):  # fmt: skip
            own |= {f"{trunk}.blocks.{i}.{layer}.weight": shape, f"{trunk}.blocks.{i}.{layer}.bias": shape[:1]}
    own |= {f"{neck}.conv_1x1.weight": (256, dim, 1, 1), f"{neck}.conv_3x3.weight": (256, 256, 3, 3)}
    return own | {f"{neck}.norm_{i}.{kind}": (256,) for i in (0, 1) for kind in ("weight", "bias")}


@pytest.mark.parametrize("name", SIZES)
def test_an_official_file_fits(name: str, tmp_path: Path) -> None:
    dim, _, millions = SIZES[name]
    state = checkpoint(official_names(dim))
    torch.save({"model": state}, tmp_path / "efficienttam.pt")
    network = Sam2(get_preset(name), 64)
    load_weights(network, tmp_path / "efficienttam.pt")
    assert network.state_dict().keys() == state.keys()
    assert round(sum(t.numel() for t in network.parameters()) / 1e6) == millions
    for other in ({*SIZES} - {name}) | {"sam2-small"}:
        with pytest.raises(WeightsError, match="is `model` in the recipe the preset of this file"):
            load_weights(Sam2(get_preset(other), 64), tmp_path / "efficienttam.pt")


def their_encoder(encoder: ImageEncoder, dim: int, heads: int, side: int = SIDE, window: int = 14) -> nn.Module:
    """transformers' encoder with our tensors. Its position table is for one image size: it gets ours, resized."""
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers' SamVisionEncoder")
    from transformers.models.sam.modeling_sam import SamVisionEncoder

    config = transformers.SamVisionConfig(
        hidden_size=dim, num_attention_heads=heads, num_hidden_layers=12, mlp_dim=4 * dim, output_channels=256,
        image_size=16 * side, patch_size=16, window_size=window, global_attn_indexes=[2, 5, 8, 11],
        use_abs_pos=True, use_rel_pos=False, qkv_bias=True, layer_norm_eps=1e-6,
    )  # fmt: skip
    theirs = SamVisionEncoder(config).eval()
    ours, state = encoder.state_dict(), {}
    for name, tensor in ours.items():
        name = name.replace("trunk.patch_embed.proj.", "patch_embed.projection.").replace("trunk.blocks.", "layers.")
        name = name.replace(".norm1.", ".layer_norm1.").replace(".norm2.", ".layer_norm2.")
        name = name.replace(".mlp.layers.0.", ".mlp.lin1.").replace(".mlp.layers.1.", ".mlp.lin2.")
        for old, new in NECK.items():
            name = name.replace(f"neck.convs.0.{old}.", f"neck.{new}.")
        state[name] = tensor
    table = state.pop("trunk.pos_embed")[:, 1:].reshape(1, 14, 14, dim).permute(0, 3, 1, 2)
    state["pos_embed"] = F.interpolate(table, (side, side), mode="bicubic").permute(0, 2, 3, 1)
    theirs.load_state_dict(state, strict=True)
    return theirs


def random_encoder(name: str) -> tuple[ImageEncoder, Tensor]:
    draw = torch.Generator().manual_seed(4)
    encoder = ImageEncoder(get_preset(name)).eval()
    with torch.no_grad():
        for tensor in encoder.state_dict().values():
            noise = torch.randn(tensor.shape, generator=draw)
            tensor.copy_(noise / tensor[0].numel() ** 0.5 if tensor.ndim > 1 else 1 + 0.2 * noise)
    return encoder, torch.randn(1, 3, 16 * SIDE, 16 * SIDE, generator=draw)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["efficienttam-tiny", pytest.param("efficienttam-small", marks=pytest.mark.slow)])
def test_trunk_and_neck_are_those_of_another_implementation(name: str) -> None:
    (dim, heads, _), (encoder, image) = SIZES[name], random_encoder(name)
    fine, mid, top = encoder(image)
    theirs: Any = their_encoder(encoder, dim, heads)(image)[0]
    assert float((top - theirs).abs().max()) < 1e-4 * float(theirs.abs().max())
    assert fine.shape == (1, 32, 4 * SIDE, 4 * SIDE) and mid.shape == (1, 64, 2 * SIDE, 2 * SIDE)
    assert not fine.any() and not mid.any()
    for wrong in (their_encoder(encoder, dim, heads, window=10), their_encoder(encoder, dim, 1)):
        assert float((top - wrong(image)[0]).abs().max()) > 1e-2 * float(theirs.abs().max())


@torch.inference_mode()
def test_what_is_baked_changes_nothing() -> None:
    network = Sam2(get_preset("efficienttam-tiny"), 320).eval()
    image = torch.randn(1, 3, 320, 320, generator=torch.Generator().manual_seed(0))
    before = network.encode_image(image).top
    assert torch.equal(network.bake().encode_image(image).top, before)
    network.image_encoder.trunk.baked = network.image_encoder.trunk.baked + 1
    assert not torch.equal(network.encode_image(image).top, before)


@pytest.mark.parametrize("changes", [{"levels": 4}, {"match_dim": 16}, {"embed_dim": 96}, {"trunk": "vit-huge"}])
def test_a_preset_that_does_not_exist_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    lines = {"trunk": "vit-tiny", "levels": 1} | changes
    path = tmp_path / "own.toml"
    path.write_text("\n".join(f"{key} = {value!r}".replace("'", '"') for key, value in lines.items()), "utf-8")
    with pytest.raises(ConfigError, match=next(iter(changes))):
        get_preset(str(path))
    path.write_text('trunk = "vit-tiny"\nlevels = 1\nno_object_in_memory = false\npointer_time = false\n', "utf-8")
    assert get_preset(str(path)).stage_dims == PRESETS["efficienttam-tiny"].stage_dims
