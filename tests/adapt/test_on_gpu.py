"""A training step on a pretended GPU: from rendering clips to the weight average, all tensors are on one device.

torch's autograd engine needs a real GPU, so its gradients are replaced by zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg.adapt import training_data
from rtseg.adapt.batches import BatchSampler, VideoSource, uniform
from rtseg.adapt.config import FEATURES, Endoscope, Phase, Teacher, TrainConfig
from rtseg.adapt.train import train
from rtseg.adapt.trainer import MakeSampler, Trainer
from rtseg.adapt.training_video import TrainingVideo
from rtseg.base.errors import EngineError
from rtseg.sam2 import Sam2, get_preset, save_weights
from tests.engine.pretend_cuda import Pretended, RuleError, pretend_cuda

from .conftest import squares

PHASE = Phase(4, image_size=64, length=2, objects=2, clips=1, clips_cuda=2)


def seen(operation: str, t: Tensor) -> Any:
    """What the host finds: two objects on each frame, and numbers."""
    if t.dtype == torch.uint8 and t.dim() == 3:
        ids = np.zeros(tuple(t.shape), np.uint8)
        ids[:, 10:40, 8:40], ids[:, 45:70, 30:60] = 1, 2
        return ids
    if t.shape[-1:] == (256,):
        found = np.zeros(tuple(t.shape))
        found[..., 1:3] = 0.11 if t.dtype == torch.float32 else 900
        return found
    return 1 if t.dtype.is_floating_point else None


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pretended]:
    monkeypatch.setattr(training_data, "POOL", 2)
    # Another thread would not see the GPU that is not there; a batch is the same either way.
    monkeypatch.setattr(Trainer, "_batches", lambda self, phase: self._make_sampler(phase))
    with pretend_cuda() as gpu:
        gpu.answers = seen
        yield gpu


def videos(device: torch.device) -> MakeSampler:
    there = [TrainingVideo(v.name, v.image_t3hw.to(device), v.ids_thw.to(device)) for v in (squares(0), squares(1))]
    return lambda phase: BatchSampler(
        [VideoSource("squares", 1.0, uniform(there))], uniform(there), seed=5, device=device
    )


def stepped(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    device = next(trainer.net.parameters()).device

    def backward(loss: Tensor) -> None:
        assert loss.requires_grad and loss.device == device
        for p in trainer.net.parameters():
            p.grad = torch.zeros_like(p)

    monkeypatch.setattr(Tensor, "backward", backward)
    return trainer.run_step()


@pytest.mark.parametrize(("device", "clips"), [("cuda:1", 2), pytest.param("cuda", 4, marks=pytest.mark.slow)])
def test_a_step_is_on_one_device(
    tiny: str, tmp_path: Path, gpu: Pretended, monkeypatch: pytest.MonkeyPatch, device: str, clips: int
) -> None:
    on = torch.device(device)
    trainer = Trainer(TrainConfig((replace(PHASE, clips_cuda=clips),), preset=tiny), videos(on), tmp_path, on)
    record = stepped(trainer, monkeypatch)
    assert trainer.step == 1 and trainer.micro_batch == {0: clips} and record["at_once"] == clips
    tensors = [*trainer.average.weights.values(), *trainer.optimizer.tensors]
    assert {t.device for t in tensors} == {torch.device("cuda", on.index or 0)}


@pytest.mark.slow
def test_scenes_are_drawn_there(tiny: str, tmp_path: Path, gpu: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    on = torch.device("cuda:1")
    config = TrainConfig((PHASE,), endoscope=Endoscope(1.0, 2), preset=tiny)
    trainer = Trainer(config, training_data.TrainingData(config, tmp_path, on).sampler, tmp_path, on)
    assert stepped(trainer, monkeypatch)["objects"] > 0


@pytest.mark.slow
def test_a_teacher_teaches_there(tiny: str, tmp_path: Path, gpu: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    on = torch.device("cuda:1")
    save_weights(Sam2(get_preset(tiny), 64), tmp_path / "t.safetensors")
    config = TrainConfig(
        (replace(PHASE, loss=FEATURES),), preset=tiny, teacher=Teacher(tiny, str(tmp_path / "t.safetensors"))
    )
    trainer = Trainer(config, videos(on), tmp_path, on)
    assert "top" in stepped(trainer, monkeypatch)


def test_clips_that_lie_elsewhere_are_found(
    tiny: str, tmp_path: Path, gpu: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control."""
    made = videos(torch.device("cuda:0"))
    trainer = Trainer(TrainConfig((PHASE,), preset=tiny), made, tmp_path, torch.device("cuda:1"))
    with pytest.raises((RuntimeError, RuleError), match="device|cuda:0"):
        stepped(trainer, monkeypatch)


def test_a_gpu_that_is_not_there_is_named(tiny: str, tmp_path: Path) -> None:
    config = TrainConfig((PHASE,), preset=tiny)
    with pytest.raises(EngineError, match="device cuda:1: torch finds no GPU"):
        train(config, tmp_path, tmp_path, "cuda:1")
    with pretend_cuda(), pytest.raises(EngineError, match="cuda:2: torch finds 2 GPUs; expected cuda:0 to cuda:1"):
        train(config, tmp_path, tmp_path, "cuda:2")
