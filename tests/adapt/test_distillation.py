"""Distillation: a smaller network takes over weights, and its encoder learns the larger one's features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rtseg.adapt.batches import BatchSampler
from rtseg.adapt.config import FEATURES, Phase, Teacher, TrainConfig
from rtseg.adapt.distillation import copy_weights, features_loss
from rtseg.adapt.trainer import Trainer
from rtseg.base.errors import ConfigError
from rtseg.sam2 import Features, PromptBatch, Sam2, get_preset, save_weights
from rtseg.sam2.presets import PRESETS

from .conftest import CPU

LEARN = Phase(60, image_size=64, length=2, objects=2, clips=4, lr=(3e-3, 3e-3), loss=FEATURES)


@pytest.fixture
def smaller(tiny: str, monkeypatch: pytest.MonkeyPatch) -> str:
    preset = replace(get_preset(tiny), name="smaller", embed_dim=4, attention_ffn=16, decoder_ffn=16)
    monkeypatch.setitem(PRESETS, "smaller", preset)
    return "smaller"


def network(preset: str, seed: int) -> Sam2:
    torch.manual_seed(seed)
    return Sam2(get_preset(preset), 64).eval()


def test_all_weights_but_the_encoders_are_copied(tiny: str, smaller: str) -> None:
    teacher, student = network(tiny, 0), network(smaller, 1)
    before = {k: v.clone() for k, v in student.image_encoder.state_dict().items()}
    copy_weights(student, teacher)
    assert all(torch.equal(before[k], v) for k, v in student.image_encoder.state_dict().items())
    given = teacher.state_dict()
    for name, tensor in student.state_dict().items():
        if not name.startswith("image_encoder.") and tensor.shape == given[name].shape:
            assert torch.equal(tensor, given[name]), name


def test_idle_hidden_units_are_pruned(tiny: str, smaller: str) -> None:
    """A teacher with half of its hidden units idle predicts the same as a student with the other half."""
    teacher, student = network(tiny, 0), network(smaller, 1)
    with torch.no_grad():
        for layer in (m for m in teacher.modules() if hasattr(m, "linear2")):
            layer.linear2.weight[:, ::2] = 0
        for block in teacher.sam_mask_decoder.transformer.layers:
            block.mlp.layers[1].weight[:, 1::2] = 0
    copy_weights(student, teacher)
    feats = Features(torch.randn(1, 32, 4, 4), torch.randn(1, 8, 8, 8), torch.randn(1, 4, 16, 16))
    ours, theirs = (
        net.predict_masks(net.attend(feats, [None]), feats, PromptBatch.none(1)).logits_bkhw
        for net in (student, teacher)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        student.sam_mask_decoder.transformer.layers[0].mlp.layers[1].weight.zero_()
    other = student.predict_masks(student.attend(feats, [None]), feats, PromptBatch.none(1)).logits_bkhw
    assert not torch.allclose(other, theirs, rtol=1e-4, atol=1e-5)


def test_another_memory_size_is_refused(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "other", replace(get_preset(tiny), name="other", memory_dim=8))
    with pytest.raises(ConfigError, match=".* of a tiny does not fit a other; expected presets that differ only in"):
        copy_weights(network("other", 0), network(tiny, 0))


def test_the_loss_is_a_share_of_the_variance() -> None:
    draw = torch.Generator().manual_seed(0)
    teacher = Features(*(3 + 5 * torch.randn(4, 8, s, s, generator=draw) for s in (4, 8, 16)))
    mean = Features(*(getattr(teacher, k).mean((0, 2, 3), keepdim=True) for k in ("top", "mid", "fine")))
    assert all(part == 0 for part in features_loss(teacher, teacher).values())
    assert all(0.95 < part < 1.05 for part in features_loss(mean, teacher).values())


@pytest.mark.slow
def test_an_encoder_learns_features_and_nothing_else_changes(
    tiny: str, smaller: str, clips: BatchSampler, tmp_path: Path
) -> None:
    weights = tmp_path / "teacher.safetensors"
    save_weights(network(tiny, 0), weights)
    config = TrainConfig((LEARN,), preset=smaller, teacher=Teacher(tiny, str(weights)), warm_up=5, average_decay=0.0)
    trainer = Trainer(config, lambda _: clips, tmp_path / "out", CPU, bf16=False)
    (tmp_path / "out").mkdir()
    memory = {k: v.clone() for k, v in trainer.net.memory_attention.state_dict().items()}
    losses = [trainer.run_step()["loss"] for _ in range(60)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert all(torch.equal(memory[k], v) for k, v in trainer.net.memory_attention.state_dict().items())
    trainer.save()
    resumed = Trainer(config, lambda _: clips, tmp_path / "out", CPU, bf16=False)
    assert resumed.step == 60
    assert resumed.run_step()["loss"] == pytest.approx(losses[-1], rel=0.3)


def test_masks_can_follow_features(tiny: str, smaller: str, clips: BatchSampler, tmp_path: Path) -> None:
    weights = tmp_path / "teacher.safetensors"
    save_weights(network(tiny, 0), weights)
    phases = (replace(LEARN, steps=1), replace(LEARN, steps=1, loss="from-scratch"))
    config = TrainConfig(phases, preset=smaller, teacher=Teacher(tiny, str(weights)))
    trainer = Trainer(config, lambda _: clips, tmp_path / "out", CPU, bf16=False)
    assert "top" in trainer.run_step()
    assert "mask" in trainer.run_step()
