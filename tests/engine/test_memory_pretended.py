"""The plan of memory, against what an engine takes on a GPU that is not there (pretend_cuda.py counts every byte)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg.engine import open_engine
from rtseg.engine.memory_estimate import estimate_memory
from rtseg.engine.policy import MAX_CONDITIONING
from rtseg.track import Tracker
from tests.engine.pretend_cuda import pretend_cuda

WITHIN, EXACT = 0.1, 0.02
PICTURE = np.zeros((480, 640, 3), np.uint8)


def fused(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """Attention as a GPU's kernels do it, whose scores are nowhere; on a CPU torch writes them out."""
    return q.new_empty(*q.shape[:-1], v.shape[-1])


@pytest.mark.parametrize(
    ("runtime", "precision", "size", "objects"),
    [
        ("cuda", "bf16", 256, 1),
        pytest.param("torch", "fp32", 320, 3, marks=pytest.mark.slow),
        pytest.param("cuda", "fp32", 384, 6, marks=pytest.mark.slow),
        pytest.param("cuda", "bf16", 320, 4, marks=pytest.mark.slow),
    ],
)
def test_what_an_engine_takes(
    runtime: str, precision: str, size: int, objects: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fused)
    with pretend_cuda() as gpu:
        engine = open_engine(
            image_size=size, runtime=runtime, device="cuda:1", precision=precision, max_objects=objects
        )
        needs, opened = estimate_memory(engine.recipe, *PICTURE.shape[:2]).parts, gpu.allocated[1].live
        exact = sum(needs[name] for name in ("weights", "tables", "memories") if runtime == "cuda" or name == "weights")
        if runtime == "cuda":  # what is compared with comes with prompts
            exact -= 4 * objects * MAX_CONDITIONING * (engine.preset.match_dim + 1) * (size // 8) ** 2
        assert abs(exact / opened - 1) < EXACT, (exact, opened)
        tracker = Tracker(engine)
        for i in range(objects):
            tracker.prompt(i + 1, points=[(100.0 + 40 * i, 100.0, 1)])
        for _ in range(7):
            tracker.step(PICTURE)
        taken = gpu.allocated[1].peak
        assert gpu.allocated[0].peak == 0  # nothing is on the card that was not asked for
    planned = sum(needs.values()) - needs["CUDA"]
    assert abs(planned / taken - 1) < WITHIN, (planned / taken, needs)
    # The measure can tell: a part that is forgotten.
    assert abs((planned - needs["on the way"]) / taken - 1) > WITHIN
