"""A network small enough to train in a test, and little videos with moving squares."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rtseg.adapt.batches import BatchSampler, VideoSource, uniform
from rtseg.adapt.training_video import TrainingVideo
from rtseg.sam2 import get_preset
from rtseg.sam2.presets import PRESETS

CPU = torch.device("cpu")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a preset that exists for this test only."""
    preset = replace(
        get_preset("nano-hiera"),
        name="tiny",
        embed_dim=8,
        stages=(1, 1, 1, 1),
        global_blocks=(),
        dim=32,
        memory_dim=16,
        attention_layers=1,
        attention_ffn=32,
        decoder_ffn=32,
        decoder_heads=2,
    )
    monkeypatch.setitem(PRESETS, "tiny", preset)
    return "tiny"


def squares(seed: int, frames: int = 8) -> TrainingVideo:
    """Two squares, ids 1 and 2, that slide over noise."""
    rng = np.random.default_rng(seed)
    image_thwc = rng.integers(0, 90, (frames, 80, 100, 3)).astype(np.uint8)
    ids_thw = np.zeros((frames, 80, 100), np.uint8)
    for object_id, (y, x) in ((1, (10, 8)), (2, (45, 50))):
        for t in range(frames):
            window = np.s_[t, y : y + 30, x + 2 * t : x + 2 * t + 30]
            ids_thw[window] = object_id
            image_thwc[window] = (250, 120 * object_id, 40)
    image_t3hw = torch.from_numpy(image_thwc).permute(0, 3, 1, 2).contiguous()
    return TrainingVideo(f"squares-{seed}", image_t3hw, torch.from_numpy(ids_thw))


@pytest.fixture
def clips() -> BatchSampler:
    videos = [squares(0), squares(1)]
    return BatchSampler([VideoSource("squares", 1.0, uniform(videos))], uniform(videos), seed=5, device=CPU)
