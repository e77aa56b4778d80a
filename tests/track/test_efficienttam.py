"""EfficientTAM: 30 tracked frames agree with Meta's video predictor around another implementation of its image encoder.

The settings are those of `efficienttam_ti.yaml`: SAM 2's, and no finer maps in the decoder. The rest is as in
test_meta.py.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rtseg.engine.recipe import Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import PRESETS, Features, Sam2
from tests.sam2.test_vit import their_encoder

from .test_meta import (
    BOX,
    MASK,
    POINT,
    SIZE,
    Said,
    assert_same,
    difference,
    meta_predictor,
    our_tracks,
    randomize,
    their_tracks,
)

pytestmark = pytest.mark.slow
SMALL = replace(PRESETS["efficienttam-tiny"], attention_layers=2, attention_ffn=256)


class Encoder(nn.Module):
    """transformers' encoder of SAM in the place of Meta's image encoder."""

    def __init__(self, vision: nn.Module, position: nn.Module) -> None:
        super().__init__()
        self.vision, self.position = vision, position

    def forward(self, image_nchw: Tensor) -> dict[str, Any]:
        top = self.vision(image_nchw)[0]
        return {"vision_features": top, "vision_pos_enc": [self.position(top)], "backbone_fpn": [top]}


@pytest.fixture(scope="module")
def both() -> SimpleNamespace:
    """(`theirs`, `engine`): the predictor and our engine with the same weights."""
    network = Sam2(SMALL, SIZE)
    randomize(network, 5, presence=1.0)
    theirs = meta_predictor("sam2/sam2_hiera_t", **{
        "image_size": SIZE,
        "use_high_res_features_in_sam": False,
        "memory_attention.num_layers": SMALL.attention_layers,
        "memory_attention.layer.dim_feedforward": SMALL.attention_ffn,
        "add_all_frames_to_correct_as_cond": True,
    })  # fmt: skip
    vision = their_encoder(network.image_encoder, 192, 3, side=SIZE // 16)
    theirs.image_encoder = Encoder(vision, theirs.image_encoder.neck.position_encoding)
    own = {name: t for name, t in network.state_dict().items() if not name.startswith("image_encoder.")}
    missing, surplus = theirs.load_state_dict(own, strict=False)
    assert not surplus and all(name.startswith("image_encoder.vision.") for name in missing)
    recipe = Recipe(model="efficienttam-tiny", image_size=SIZE, runtime="torch")
    return SimpleNamespace(theirs=theirs, engine=TorchEngine(network, recipe, "", "cpu"), network=network)


@pytest.mark.parametrize("said", [POINT, BOX, MASK], ids=["point", "box", "mask"])
def test_30_frames_with_a_correction(both: SimpleNamespace, video: np.ndarray, said: Said) -> None:
    frames = video if "mask" in said[0] else np.stack([cv2.resize(frame, (160, 120)) for frame in video])
    theirs = their_tracks(both.theirs, frames, {1: said})[1]
    assert_same(our_tracks(both.engine, frames, {1: said})[1], theirs)
    assert all(0.02 < float((logits > 0).float().mean()) < 0.98 for logits in theirs.low.values())
    uncorrected = our_tracks(both.engine, frames[:14], {1: {0: said[0]}})[1]
    assert difference(uncorrected, theirs, first=10) > 1e-2


def test_finer_maps_would_show(both: SimpleNamespace, video: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the mask decoder adds nothing where there are none."""
    theirs = their_tracks(both.theirs, video[:4], {1: {0: POINT[0]}})[1]
    encode = both.network.encode_image

    def with_noise(image_nchw: Tensor) -> Features:
        features = encode(image_nchw)
        return replace(features, fine=features.fine + 0.1 * torch.randn_like(features.fine))

    monkeypatch.setattr(both.network, "encode_image", with_noise)
    assert difference(our_tracks(both.engine, video[:4], {1: {0: POINT[0]}})[1], theirs) > 1e-3
