"""Networks with random weights under which every path matters, for tests of engines."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from rtseg.sam2 import Preset, Sam2, get_preset
from rtseg.sam2.match import SCALE

LITE = Preset(  # nano with a trunk of convolutions
    "lite", trunk="efficientnet-lite0", dim=128, memory_dim=64, attention_layers=2, attention_ffn=512, decoder_ffn=512,
    decoder_heads=4,
)  # fmt: skip
EDGE = replace(  # nano with EdgeTAM's trunk and perceiver
    LITE, name="edge", trunk="repvit-m1", perceiver=4, no_object_in_memory=False, pointer_time=False
)
REPVIT = replace(LITE, name="repvit", trunk="repvit-m1")
LITE_3 = replace(LITE, name="lite-3", trunk="efficientnet-lite2", levels=3)  # and no map at stride 32
LITE_MATCH = replace(LITE, name="lite-match", match_dim=32)  # and comparison with the newest conditioning frame


def random_network(preset: str | Preset, size: int, seed: int = 0) -> Sam2:
    """A network with no zero embeddings and no saturated softmax, whose objects are present."""
    draw = np.random.default_rng(seed)  # torch draws other numbers where vectors have another width
    torch.manual_seed(seed)  # of what is no parameter
    net = Sam2(get_preset(preset) if isinstance(preset, str) else preset, size).eval()
    with torch.no_grad():
        for name, p in net.named_parameters():
            noise = torch.from_numpy(draw.standard_normal(p.shape, np.float32))
            if "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.1 * noise)
            elif p.ndim >= 2 and "embed" not in name and "token" not in name:
                p.copy_(noise / math.sqrt(p[0].numel()))
            else:
                p.copy_(0.2 * noise)
        net.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(1.0)
        if net.match:
            net.match.log_scale.fill_(math.log(SCALE))
        # The choice between masks is no near tie, which rounding alone would decide.
        net.sam_mask_decoder.iou_prediction_head.layers[-1].bias.copy_(torch.tensor([0.0, 0.5, 0.0, -0.5]))
    return net


@pytest.fixture(scope="session")
def make_network() -> Callable[..., Sam2]:
    return random_network
