"""Training: it learns, it resumes exactly, and what it exports is the average."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rtseg import open_engine
from rtseg.adapt.checkpoint import Checkpoint, export
from rtseg.adapt.data import Batch, Clips, Sequence
from rtseg.adapt.losses import FROM_SCRATCH
from rtseg.adapt.rollout import fifo, scattered
from rtseg.adapt.train import TrainConfig, Trainer, clip_loss, train
from rtseg.adapt.validate import follow, mean_iou
from rtseg.config import Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.errors import ConfigError, WeightsError
from rtseg.sam2 import Sam2, get_preset, load_weights


def config(folder: Path, preset: str, **change: object) -> TrainConfig:
    base: dict[str, object] = {
        "preset": preset,
        "image_size": 64,
        "clips": 2,
        "clip_length": 3,
        "steps": 8,
        "warm_up": 2,
        "bf16": False,
        "threads": 1,
    }
    return TrainConfig(folder, folder, **{**base, **change})  # type: ignore[arg-type]


def test_a_killed_training_goes_on_where_it_was(tiny: str, clips: Clips, tmp_path: Path) -> None:
    whole = Trainer(config(tmp_path / "absent", tiny), clips)
    expected = [whole.run_step()["loss"] for _ in range(8)]
    first = Trainer(config(tmp_path, tiny), clips)
    for _ in range(4):
        first.run_step()
    first.save()
    first.run_step()  # lost with the kill
    del first
    second = Trainer(config(tmp_path, tiny), clips)
    assert second.step == 4
    resumed = [second.run_step()["loss"] for _ in range(4)]
    np.testing.assert_allclose(resumed, expected[4:], rtol=1e-5)
    for name, tensor in whole.average.weights.items():
        torch.testing.assert_close(second.average.weights[name], tensor, rtol=1e-4, atol=1e-6)
    fresh = Trainer(config(tmp_path / "absent", tiny, seed=1), clips)
    assert not np.allclose([fresh.run_step()["loss"] for _ in range(4)], expected[4:], rtol=1e-3)


def test_a_checkpoint_of_another_network_is_refused(tiny: str, clips: Clips, tmp_path: Path) -> None:
    Trainer(config(tmp_path, tiny), clips).save()
    with pytest.raises(ConfigError, match="choose another --out"):
        Trainer(config(tmp_path, tiny, image_size=96), clips)


def test_one_clip_can_be_learnt_by_heart(tiny: str, clips: Clips) -> None:
    torch.manual_seed(0)
    net = Sam2(get_preset(tiny), image_size=64)
    batch: Batch = clips.batch(0, 2, 2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    seen = []
    for step in range(120):
        parts, record = clip_loss(net, batch, np.random.default_rng(0), FROM_SCRATCH)
        loss = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        seen.append((parts["mask"].item(), record["iou"]))
        assert np.isfinite(seen[-1][0]), f"step {step}"
    assert seen[-1][0] < 0.5 * seen[0][0]
    assert seen[-1][1] > 0.6


def test_every_part_of_the_network_is_trained(tiny: str, clips: Clips) -> None:
    net = Sam2(get_preset(tiny), image_size=64)
    for step in range(6):  # enough to meet each kind of prompt
        parts, _ = clip_loss(net, clips.batch(step, 2, 4), np.random.default_rng(step), FROM_SCRATCH)
        torch.stack(list(parts.values())).sum().backward()
    idle = {name for name, p in net.named_parameters() if p.grad is None}
    assert idle <= {"no_mem_pos_enc"}  # which no version of SAM 2 uses


def test_export_writes_the_average(tiny: str, clips: Clips, tmp_path: Path) -> None:
    trainer = Trainer(config(tmp_path, tiny, lr=0.05), clips)  # average and last so far apart that fp16 shows it
    trainer.run_step()
    trainer.run_step()
    trainer.save()
    export(tmp_path / "last.pt", tmp_path / "tiny.safetensors")
    net = Sam2(get_preset(tiny), image_size=64)
    load_weights(net, tmp_path / "tiny.safetensors")
    name = "obj_ptr_proj.layers.0.weight"
    got = net.state_dict()[name]
    torch.testing.assert_close(got, trainer.average.weights[name], rtol=2e-3, atol=1e-4)
    last = trainer.net.state_dict()[name]
    assert (got - last).abs().max() > 1.5 * (got - trainer.average.weights[name]).abs().max()
    with pytest.raises(WeightsError, match="no checkpoint"):
        Checkpoint.read(tmp_path / "absent.pt")


def test_memories_are_chosen_as_said() -> None:
    assert fifo([1, 2, 3, 9, 10], 11) == [(3, 1), (4, 0)]
    rng = np.random.default_rng(0)
    for _ in range(50):
        kept = scattered(rng)([1, 4, 5, 8], 9)
        indices, slots = zip(*kept, strict=True)
        assert indices[0] == 3  # the newest is always there, and nearest
        assert list(indices) == sorted(indices, reverse=True)
        assert list(slots) == sorted(set(slots))
        assert max(slots) < 6


def test_following_starts_from_the_mask_given(tiny: str, held_out: Sequence) -> None:
    seq = held_out
    engine = TorchEngine(Sam2(get_preset(tiny), image_size=64), Recipe(image_size=64), "", "cpu")
    mask_thw = follow(engine, seq, "fifo")[1]
    assert mask_thw.shape == seq.ids_thw.shape
    first = seq.ids_thw[0] == 1
    assert (mask_thw[0] & first).sum() / (mask_thw[0] | first).sum() > 0.8
    assert mean_iou(seq.ids_thw == 1, seq.ids_thw == 1) == 1.0
    assert mean_iou(np.zeros_like(mask_thw), seq.ids_thw == 1) == 0.0


def test_a_training_ends_with_weights_that_an_engine_opens(
    tiny: str, clips: Clips, held_out: Sequence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtseg.adapt.train.Clips.read", lambda *_: clips)
    monkeypatch.setattr("rtseg.adapt.train.validation_set", lambda _: {"squares": [held_out]})
    found = train(config(tmp_path, tiny, steps=2))
    assert 0 <= found["squares"] <= 1
    weights = tmp_path / "weights.safetensors"
    assert open_engine(model=tiny, weights=weights, image_size=64, runtime="torch").image_size == 64
