"""The oracle: transformers' Sam2VideoModel and our network with the same random weights, in fp32 on the CPU."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rtseg.sam2 import Preset, Sam2, get_preset, load_weights

SIZE = 128  # pixels; small, and still every window of the trunk is padded as at full size


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Weights that make every path matter: no zero embeddings, no saturated softmax."""
    draw = np.random.default_rng(seed)  # torch draws other numbers where vectors have another width
    for name, p in model.named_parameters():
        noise = torch.from_numpy(draw.standard_normal(p.shape, np.float32))
        with torch.no_grad():
            if "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.1 * noise)
            elif p.ndim >= 2 and "embed" not in name and "token" not in name:
                # Sharper than nature in the memory attention, or every memory would read as the mean of its cells.
                sharp = 1.5 if "cross_attn_image." in name or "mask_downsample" in name else 1.0
                p.copy_(sharp * noise / math.sqrt(p[0].numel()))
            else:
                p.copy_(0.2 * noise)
    with torch.no_grad():
        # Objects are present, and the choice between masks is no near tie, which rounding alone would decide.
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(1.0)
        model.mask_decoder.iou_prediction_head.proj_out.bias.copy_(torch.tensor([0.0, 0.5, 0.0, -0.5]))


SMALL = Preset(
    "small", 32, 1, (1, 1, 3, 1), (3,), (8, 4, 14, 7), 7,
    dim=128, attention_layers=2, attention_ffn=256, decoder_ffn=256, decoder_heads=4,
)  # fmt: skip


def hf_model(p: Preset, seed: int = 0) -> torch.nn.Module:
    """Their model with the numbers of our preset and random weights."""
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers' Sam2VideoModel")
    grid = SIZE // 16
    backbone = transformers.Sam2HieraDetConfig(
        image_size=[SIZE, SIZE],
        hidden_size=p.embed_dim,
        num_attention_heads=p.heads,
        blocks_per_stage=list(p.stages),
        embed_dim_per_stage=list(p.stage_dims),
        num_attention_heads_per_stage=[p.heads * 2**i for i in range(4)],
        window_size_per_stage=list(p.windows),
        global_attention_blocks=list(p.global_blocks),
        window_positional_embedding_background_size=[p.background, p.background],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=list(reversed(p.stage_dims)),
        backbone_feature_sizes=[[4 * grid, 4 * grid], [2 * grid, 2 * grid], [grid, grid]],
        fpn_hidden_size=p.dim,
    )
    config = transformers.Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"image_size": SIZE, "hidden_size": p.dim},
        mask_decoder_config={
            "hidden_size": p.dim,
            "mlp_dim": p.decoder_ffn,
            "num_attention_heads": p.decoder_heads,
            "iou_head_hidden_dim": p.dim,
        },
        image_size=SIZE,
        enable_occlusion_spatial_embedding=p.no_object_in_memory,
        enable_temporal_pos_encoding_for_object_pointers=p.pointer_time,
        memory_attention_hidden_size=p.dim,
        memory_attention_num_layers=p.attention_layers,
        memory_attention_feed_forward_hidden_size=p.attention_ffn,
        memory_attention_rope_feat_sizes=[grid, grid],
        memory_encoder_hidden_size=p.dim,
        memory_encoder_output_channels=p.memory_dim,
        mask_downsampler_embed_dim=p.dim,
        memory_fuser_embed_dim=p.dim,
        memory_fuser_intermediate_dim=4 * p.dim,
    )
    model = transformers.Sam2VideoModel(config).eval()
    randomize(model, seed)
    # Published checkpoints hold one matrix under both names.
    model.shared_image_embedding.positional_embedding.copy_(model.prompt_encoder.shared_embedding.positional_embedding)
    return model


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """(`theirs`, `ours`, `path`): the same weights, ours loaded from the safetensors that theirs saved."""
    theirs = hf_model(get_preset("sam2.1-tiny"))
    folder = tmp_path_factory.mktemp("weights")
    theirs.save_pretrained(folder)
    ours = Sam2(get_preset("sam2.1-tiny"), SIZE).eval()
    load_weights(ours, folder / "model.safetensors")
    return SimpleNamespace(theirs=theirs, ours=ours, path=folder / "model.safetensors")
