"""The oracle: transformers' Sam2VideoModel and our network with the same random weights, in fp32 on the CPU."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from rtseg.sam2 import Sam2, get_preset, load_weights

SIZE = 128  # pixels; small, and still every window of the trunk is padded as at full size


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Weights that make every path matter: no zero embeddings, no saturated softmax."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        with torch.no_grad():
            if "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.1 * noise)
            elif p.ndim >= 2 and "embed" not in name and "token" not in name:
                p.copy_(noise / math.sqrt(p[0].numel()))
            else:
                p.copy_(0.2 * noise)


def hf_model(seed: int = 0, *, v21: bool = True) -> torch.nn.Module:
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers' Sam2VideoModel")
    grid = SIZE // 16
    vision = transformers.Sam2VisionConfig(
        backbone_config=transformers.Sam2HieraDetConfig(image_size=[SIZE, SIZE]),
        backbone_feature_sizes=[[4 * grid, 4 * grid], [2 * grid, 2 * grid], [grid, grid]],
    )
    config = transformers.Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"image_size": SIZE},
        image_size=SIZE,
        memory_attention_rope_feat_sizes=[grid, grid],
        enable_occlusion_spatial_embedding=v21,
        enable_temporal_pos_encoding_for_object_pointers=v21,
    )
    model = transformers.Sam2VideoModel(config).eval()
    randomize(model, seed)
    # Published checkpoints hold one matrix under both names.
    model.shared_image_embedding.positional_embedding.copy_(model.prompt_encoder.shared_embedding.positional_embedding)
    return model


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """(`theirs`, `ours`, `path`): the same weights, ours loaded from the safetensors that theirs saved."""
    theirs = hf_model()
    folder = tmp_path_factory.mktemp("weights")
    theirs.save_pretrained(folder)
    ours = Sam2(get_preset("sam2.1-tiny"), SIZE).eval()
    load_weights(ours, folder / "model.safetensors")
    return SimpleNamespace(theirs=theirs, ours=ours, path=folder / "model.safetensors")
