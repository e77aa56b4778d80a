"""EdgeTAM as others have it, for tests: transformers' model, and the authors' code in PyPI's edgetam-dimos.

Both get the weights of a network of ours under their own names, by way of the file that each would save.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtseg.sam2 import PRESETS

# Windows of 2 x 2 cells at 128 px, as of 4 x 4 at 1024; their code fixes the other sizes.
SMALL, SIZE = replace(PRESETS["edgetam"], name="small", perceiver=4, attention_ffn=256), 128
FOLDERS = (os.environ.get("EDGETAM_DIMOS", ""), f"{sys.prefix}/edgetam")


def randomize(model: nn.Module, seed: int) -> nn.Module:
    """Weights, and statistics of norms, that make every path matter, and leave no chaos in which rounding grows."""
    draw = np.random.default_rng(seed)
    with torch.no_grad():
        for name, p in [*model.named_parameters(), *model.named_buffers()]:
            noise = torch.from_numpy(draw.standard_normal(p.shape, np.float32))
            if name.endswith("running_var"):
                p.copy_(1 + 0.2 * noise.clamp(-2, 2))
            elif name.endswith(("positional_encoding_gaussian_matrix", "positional_embedding")):
                p.copy_(noise)
            elif p.is_floating_point() and ("running_mean" in name or isinstance(p, nn.Parameter)):
                matrix = p.ndim >= 2 and "embed" not in name and "token." not in name and "tokens" not in name
                # Else every memory would read as the mean of its cells, and the trunk would outgrow its memories.
                sharp = 1.5 if "cross_attn_image." in name else 1.0
                small = 0.3 if "_mixer" in name or ".ffn." in name else 1.0
                if name.endswith("weight") and p.ndim == 1:  # of a norm
                    p.copy_(small * (1 + 0.1 * noise))
                else:
                    p.copy_(noise * (sharp * p[0].numel() ** -0.5 if matrix else 0.2))
        by_name = dict(model.named_parameters())
        for name, p in by_name.items():
            if "pred_obj_score_head" in name and p.shape == (1,):
                p.fill_(1.0)  # the object is there
            if "iou_prediction_head" in name and p.shape == (4,):
                p.copy_(torch.tensor([0.0, 0.5, 0.0, -0.5]))  # no near tie, which rounding alone would decide
    return model


class _Backbone(nn.Module):
    """timm's trunk under the names, and with the results, of transformers' wrapper."""

    def __init__(self) -> None:
        super().__init__()
        self.timm_model = _trunk()

    def forward(self, pixels: Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.timm_model(pixels), hidden_states=None)


def _trunk(*_: object, **__: object) -> nn.Module:
    from bench.edgetam import timm

    made: nn.Module = timm().create_model("repvit_m1", features_only=True, out_indices=(0, 1, 2, 3))
    return made


def _need(*modules: str) -> None:
    for name in modules:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"the oracle needs {name}, which is not installed")


def transformers_model(seed: int = 0) -> Any:
    """transformers' `EdgeTamVideoModel` with the sizes of `SMALL`, and what it leaves out of the paper's."""
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers' EdgeTamVideoModel")
    _need("timm")
    p, g = SMALL, SIZE // 16
    config = transformers.EdgeTamVideoConfig(
        vision_config=transformers.EdgeTamVisionConfig(backbone_feature_sizes=[[4 * g] * 2, [2 * g] * 2, [g] * 2]),
        prompt_encoder_config={"image_size": SIZE}, image_size=SIZE,
        enable_occlusion_spatial_embedding=False, enable_temporal_pos_encoding_for_object_pointers=False,
        memory_attention_mlp_hidden_size=p.attention_ffn, memory_attention_rope_feat_sizes=[g, g],
        memory_attention_rope_k_sizes=[p.perceiver, p.perceiver],
        perceiver_resampler_num_latents=p.perceiver**2, perceiver_resampler_num_latents_2d=p.perceiver**2,
    )  # fmt: skip
    ours = SimpleNamespace(from_config=lambda _: _Backbone())
    with mock.patch("transformers.models.edgetam.modeling_edgetam.AutoModel", ours):
        model = transformers.EdgeTamVideoModel(config).eval()
    randomize(model, seed)
    # Published checkpoints hold one matrix under both names.
    shared = model.prompt_encoder.shared_embedding.positional_embedding
    model.shared_image_embedding.positional_embedding.copy_(shared)
    return model


@contextmanager
def dimos() -> Iterator[SimpleNamespace]:
    """The modules of edgetam-dimos. They are named `sam2`, like Meta's, which is hidden meanwhile and then back."""
    root = next((Path(f) for f in FOLDERS if f and (Path(f) / "sam2" / "modeling" / "perceiver.py").is_file()), None)
    if root is None:
        pytest.skip(f"edgetam-dimos is not there: pip install --no-deps --target {FOLDERS[1]} edgetam-dimos==1.0.1")
    _need("timm", "hydra", "omegaconf", "iopath")
    _trunk()  # imports timm
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "sam2"}
    hydra = importlib.import_module("hydra.core.global_hydra").GlobalHydra
    before = hydra.instance().hydra
    hydra.instance().clear()
    sys.path.insert(0, str(root))
    try:
        names = ("build_sam", "sam2_video_predictor", "modeling.backbones.timm")
        yield SimpleNamespace(**{name.split(".")[-1]: importlib.import_module(f"sam2.{name}") for name in names})
    finally:
        sys.path.remove(str(root))
        for name in [name for name in sys.modules if name.split(".")[0] == "sam2"]:
            del sys.modules[name]
        sys.modules.update(hidden)
        hydra.instance().clear()
        hydra.instance().hydra = before


def dimos_predictor(modules: SimpleNamespace, small: bool = True, **changes: object) -> Any:
    """Their video predictor, with the sizes of `SMALL` or as published, built by their builder."""
    p, g = SMALL, SIZE // 16
    if small:
        changes |= {
            "image_size": SIZE, "memory_attention.layer.dim_feedforward": p.attention_ffn,
            "memory_attention.layer.self_attention.feat_sizes": [g, g],
            "memory_attention.layer.cross_attention.q_sizes": [g, g],
            "memory_attention.layer.cross_attention.k_sizes": [p.perceiver] * 2,
            "spatial_perceiver.num_latents": p.perceiver**2, "spatial_perceiver.num_latents_2d": p.perceiver**2,
        }  # fmt: skip
    overrides = [f"++model.{key}={value}".replace(" ", "") for key, value in changes.items()]
    quiet = redirect_stdout(io.StringIO())
    with mock.patch.object(modules.timm, "create_model", _trunk), quiet:
        built = modules.build_sam.build_sam2_video_predictor(
            "configs/edgetam.yaml", device="cpu", hydra_overrides_extra=overrides
        )
    built.fill_hole_area = 0
    return built


def error(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def as_tokens(x_nchw: Tensor) -> Tensor:
    """A map [n, c, h, w] as they have it, [h * w, n, c]."""
    return x_nchw.flatten(2).permute(2, 0, 1)
