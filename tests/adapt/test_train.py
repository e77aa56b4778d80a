"""Training: it learns, it resumes exactly, and what it exports is the average."""

from __future__ import annotations

import json
import multiprocessing
import signal
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from rtseg import open_engine
from rtseg.adapt import training_data
from rtseg.adapt.batches import Batch, BatchSampler, Prefetcher, VideoSource, uniform
from rtseg.adapt.checkpoint import Checkpoint, export
from rtseg.adapt.config import Endoscope, Phase, TrainConfig
from rtseg.adapt.losses import FROM_SCRATCH
from rtseg.adapt.methods import rates_of
from rtseg.adapt.objective import clip_loss, normalized
from rtseg.adapt.optimizer import Optimizer
from rtseg.adapt.rollout import Rollout, fifo, random_subset
from rtseg.adapt.train import _locked, run
from rtseg.adapt.trainer import Trainer
from rtseg.base.errors import ConfigError, EngineError, WeightsError
from rtseg.engine.base import Remembered
from rtseg.engine.recipe import Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.sam2 import PromptBatch, Recall, Sam2, get_preset, load_weights
from rtseg.track import Tracker

from .conftest import CPU, squares

pytestmark = pytest.mark.slow  # it trains
PHASE = Phase(8, image_size=64, length=3, objects=2, clips=2, lr=(8e-4, 8e-4))


def trainer(folder: Path, preset: str, clips: BatchSampler, *phases: Phase, **change: object) -> Trainer:
    config = TrainConfig(phases or (PHASE,), preset=preset, warm_up=2)
    return Trainer(replace(config, **change), lambda _: clips, folder, CPU, bf16=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_killed_training_goes_on_where_it_was(tiny: str, clips: BatchSampler, tmp_path: Path, optimizer: str) -> None:
    whole = trainer(tmp_path / "absent", tiny, clips, optimizer=optimizer)
    expected = [whole.run_step()["loss"] for _ in range(8)]
    first = trainer(tmp_path, tiny, clips, optimizer=optimizer)
    for _ in range(4):
        first.run_step()
    first.save()
    first.run_step()  # lost with the kill
    del first
    second = trainer(tmp_path, tiny, clips, optimizer=optimizer)
    assert second.step == 4
    resumed = [second.run_step()["loss"] for _ in range(4)]
    np.testing.assert_allclose(resumed, expected[4:], rtol=1e-5)
    for name, tensor in whole.average.weights.items():
        torch.testing.assert_close(second.average.weights[name], tensor, rtol=1e-4, atol=1e-6)
    fresh = trainer(tmp_path / "absent", tiny, clips, seed=1, optimizer=optimizer)
    assert not np.allclose([fresh.run_step()["loss"] for _ in range(4)], expected[4:], rtol=1e-3)


def test_a_phase_of_another_size_goes_on_with_the_same_weights(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    phases = (replace(PHASE, steps=3), replace(PHASE, steps=3, image_size=96, lr=(0.0, 0.0)))
    first = trainer(tmp_path, tiny, clips, *phases)
    for _ in range(3):
        first.run_step()
    before = {k: v.clone() for k, v in first.net.state_dict().items()}
    first.run_step()
    assert first.net.image_size == 96
    assert all(torch.equal(before[k], v) for k, v in first.net.state_dict().items())  # its rate is nothing
    first.save()
    assert trainer(tmp_path, tiny, clips, *phases).net.image_size == 96


def test_a_checkpoint_of_another_network_is_refused(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    trainer(tmp_path, tiny, clips).save()
    with pytest.raises(ConfigError, match="choose another --out"):
        trainer(tmp_path, "nano", clips)


def test_one_batch_can_be_learnt_by_heart(tiny: str, clips: BatchSampler) -> None:
    torch.manual_seed(0)
    net = Sam2(get_preset(tiny), image_size=64)
    batch: Batch = clips.batch(0, 1, 2, 64, 1)
    optimizer = Optimizer(net, "muon", 0.0)
    seen = []
    for step in range(90):
        parts, ious = clip_loss(net, batch, np.random.default_rng(0), FROM_SCRATCH)
        loss = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step(4e-3, rates_of(()))
        seen.append((parts["mask"].item(), ious["tracked"].item()))
        assert np.isfinite(seen[-1][0]), f"step {step}"
    assert seen[-1][0] < 0.5 * seen[0][0]
    assert seen[-1][1] > 0.6


def test_every_part_of_the_network_is_trained(tiny: str, clips: BatchSampler) -> None:
    torch.manual_seed(0)
    net = Sam2(get_preset(tiny), image_size=64)
    presence = net.sam_mask_decoder.pred_obj_score_head.layers[-1].bias
    for step in range(12):  # enough to meet each kind of prompt
        with torch.no_grad():  # what is absent has a pointer of its own, and shuts the gate to others
            presence.fill_(3.0 if step % 2 else -3.0)
        parts, _ = clip_loss(net, clips.batch(step, 2, 4, 64, 2), np.random.default_rng(step), FROM_SCRATCH)
        torch.stack(list(parts.values())).sum().backward()
    idle = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle <= {"no_mem_pos_enc"}  # which no version of SAM 2 uses


def test_a_resumed_training_is_the_same_training(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    phases = (replace(PHASE, steps=2), replace(PHASE, steps=4))
    first = trainer(tmp_path, tiny, clips, *phases)
    first.run_step()
    first.save()
    assert trainer(tmp_path, tiny, clips, phases[0], replace(PHASE, steps=9)).step == 1  # what is to come may change
    assert trainer(tmp_path, tiny, clips, replace(PHASE, steps=8)).step == 1  # and how long it goes on at one rate
    for change in ({"seed": 1}, {"optimizer": "adamw"}, {"average_decay": 0.5}):
        with pytest.raises(ConfigError, match="of another training"):
            trainer(tmp_path, tiny, clips, *phases, **change)
    for lr in ((1e-3, 1e-3), (PHASE.lr[0], 0.0)):
        with pytest.raises(ConfigError, match="of another training"):
            trainer(tmp_path, tiny, clips, replace(phases[0], lr=lr), phases[1])
    (tmp_path / "last.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:5000])
    with pytest.raises(WeightsError, match="damaged"):
        trainer(tmp_path, tiny, clips, *phases)


def test_numbers_that_stay_away_end_it(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    made = trainer(tmp_path, tiny, clips)
    with torch.no_grad():
        made.net.no_mem_embed.fill_(float("nan"))
    with pytest.raises(EngineError, match="gave no finite gradients"):
        for _ in range(30):
            made.run_step()


def test_each_matrix_has_one_optimizer(tiny: str) -> None:
    net = Sam2(get_preset(tiny), image_size=64)
    adam = {id(p) for group in Optimizer(net, "muon", 0.1)._parts[0].param_groups for p in group["params"]}
    wrong = [
        name for name, p in net.named_parameters() if id(p) in adam and name.endswith("proj.weight") and p.ndim == 2
    ]
    assert wrong == []
    owned = [id(p) for p in Optimizer(net, "muon", 0.1).tensors]
    assert sorted(owned) == sorted(id(p) for p in net.parameters())
    assert len(Optimizer(net, "muon", 0.1).state_dict()) == 2
    assert len(Optimizer(net, "adamw", 0.1).state_dict()) == 1


def test_the_rollout_remembers_as_attention_does(tiny: str) -> None:
    """Its tokens, made for all objects at once, give what `Sam2.attend` gives from each object's recall."""
    torch.manual_seed(0)
    net = Sam2(get_preset(tiny), image_size=64).eval()
    with torch.no_grad():  # a network that has learnt nothing yet hardly looks at its memories
        for p in (net.maskmem_tpos_enc, *net.memory_attention.parameters(), *net.memory_encoder.parameters()):
            p.copy_(torch.randn(p.shape) * 0.3)
    pictures = torch.randint(0, 255, (3, 2, 3, 64, 64), dtype=torch.uint8)
    rollout = Rollout(net, fifo)
    with torch.no_grad():
        own, *others = (net.encode_image(normalized(picture)) for picture in pictures)
        mask = torch.zeros(2, 1, 64, 64)
        mask[:, :, 8:30, 8:40] = 1
        rollout.remember(own, rollout.from_mask(own, mask), 1, prompted=True)
        for now, other in zip((2, 4), others, strict=True):
            rollout.remember(other, rollout.predict(rollout.attend(other, now), other), now, prompted=False)
        anchor, recent = rollout._conditioning[0], rollout._recent
        recalls = [
            Recall(
                [Remembered(m.map_bmhw[b]) for m in (anchor, recent[1], recent[0])],
                (6, 0, 2),
                torch.stack([m.pointer_bd[b] for m in (anchor, recent[1], recent[0])]),
                (4, 1, 3),
            )
            for b in range(2)
        ]
        expected, got = net.attend(own, recalls), rollout.attend(own, 5)
        wrong = net.attend(own, [replace(r, slots=(6, 2, 0)) for r in recalls])
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert (wrong - expected).abs().max() > 1e-3


def test_the_average_is_young_again_with_each_phase(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    far = {}
    for phases in ((replace(PHASE, steps=6),), (replace(PHASE, steps=5), PHASE)):
        made = trainer(tmp_path / str(len(phases)), tiny, clips, *phases)
        for _ in range(6):
            made.run_step()
        own = made.net.state_dict()
        far[len(phases)] = sum(float((w - own[k]).abs().sum()) for k, w in made.average.weights.items())
    assert far[2] < 0.6 * far[1]


def test_export_writes_the_average(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    # average and last so far apart that fp16 shows it
    made = trainer(tmp_path, tiny, clips, replace(PHASE, lr=(0.05, 0.05)), optimizer="adamw")
    made.run_step()
    made.run_step()
    made.save()
    export(tmp_path / "last.pt", tmp_path / "tiny.safetensors", get_preset(tiny), {})
    net = Sam2(get_preset(tiny), image_size=64)
    load_weights(net, tmp_path / "tiny.safetensors")
    name = "obj_ptr_proj.layers.0.weight"
    got = net.state_dict()[name]
    torch.testing.assert_close(got, made.average.weights[name], rtol=2e-3, atol=1e-4)
    last = made.net.state_dict()[name]
    assert (got - last).abs().max() > 1.5 * (got - made.average.weights[name]).abs().max()
    with pytest.raises(WeightsError, match="no checkpoint"):
        Checkpoint.read(tmp_path / "absent.pt")


def test_memories_are_chosen_as_said() -> None:
    assert fifo([1, 2, 3, 9, 10], 11) == [(3, 1), (4, 0)]
    rng = np.random.default_rng(0)
    for _ in range(50):
        kept = random_subset(rng)([1, 4, 5, 8], 9)
        indices, slots = zip(*kept, strict=True)
        assert indices[0] == 3  # the newest is always there, and nearest
        assert list(indices) == sorted(indices, reverse=True)
        assert list(slots) == sorted(set(slots))
        assert max(slots) < 6


def test_a_training_ends_with_weights_that_an_engine_opens(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    judged: list[int] = []

    def report(net: Sam2) -> dict[str, float]:
        judged.append(net.image_size)
        return {"squares": 0.5}

    said = run(trainer(tmp_path, tiny, clips, replace(PHASE, steps=2)), tmp_path, report)
    assert said["mean J"] == {"squares": 0.5} and said["loss"] > 0
    assert judged == [64, 64]  # once on the rollout, once at the end
    weights = tmp_path / "weights.safetensors"
    assert open_engine(model=tiny, weights=weights, image_size=64, runtime="torch").image_size == 64
    assert '"val": {"squares": 0.5}' in (tmp_path / "log.jsonl").read_text()


@pytest.mark.parametrize(("optimizer", "copies"), [("muon", 4.1), ("adamw", 4.5)])
def test_a_checkpoint_is_weights_average_and_moments_and_does_not_grow(
    tiny: str, clips: BatchSampler, tmp_path: Path, optimizer: str, copies: float
) -> None:
    """Four times the weights, less what Muon saves; so small a network's archive adds names of a third of its size."""
    made = trainer(tmp_path, tiny, clips, replace(PHASE, steps=4), optimizer=optimizer)
    made.run_step()
    made.save()
    first = (tmp_path / "last.pt").stat().st_size
    run(made, tmp_path, lambda _: {})
    weights = sum(p.numel() * p.element_size() for p in made.net.parameters())
    assert 3 * weights < first < copies * weights
    assert (tmp_path / "last.pt").stat().st_size < 1.01 * first
    assert (tmp_path / "weights.safetensors").stat().st_size < 0.6 * weights  # fp16, and the average alone


def test_log_and_bar_say_how_many_frames_a_second_are_trained(
    tiny: str, clips: BatchSampler, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(trainer(tmp_path, tiny, clips, replace(PHASE, steps=1)), tmp_path, lambda _: {})
    record, _ = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert record["frames_s"] == pytest.approx(PHASE.clips * PHASE.length / record["step_s"], rel=1e-3)
    assert f"{record['frames_s']:.0f} frames/s" in capsys.readouterr().err


def test_the_tracker_does_what_was_trained(tiny: str) -> None:
    """The same clip, first a mask and then a click, by the rollout and by the tracker: the same masks."""
    torch.manual_seed(0)
    net = Sam2(get_preset(tiny), image_size=64).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape) * 0.05)
        net.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
    pictures = np.random.default_rng(0).integers(0, 255, (6, 64, 64, 3)).astype(np.uint8)
    mask_hw = np.zeros((64, 64), bool)
    mask_hw[8:30, 8:40] = True
    tracker = Tracker(TorchEngine(net, Recipe(image_size=64, precision="fp32"), "", "cpu"), "fifo")
    tracker.prompt(1, mask=mask_hw)
    rollout, seen = Rollout(net, fifo), []
    with torch.no_grad():
        for t, picture_hwc in enumerate(pictures):
            if t == 3:
                tracker.prompt(1, points=[(20, 20, 1)])
            tracked_hw = tracker.step(picture_hwc).mask_logits_bhw[0]
            own = net.encode_image(normalized(torch.from_numpy(picture_hwc).permute(2, 0, 1)[None]))
            conditioned = rollout.attend(own, t)
            if t == 0:
                used = rollout.from_mask(own, torch.from_numpy(mask_hw)[None, None].float())
            else:
                used = rollout.predict(conditioned, own)
            if t == 3:
                click = PromptBatch(
                    torch.tensor([[[20.0, 20.0]]]), torch.tensor([[1]]), used.logits_b1hw.clamp(-32, 32)
                )
                used = rollout.predict(conditioned, own, click)
            rollout.remember(own, used, t, prompted=t in (0, 3))
            seen.append(np.abs(used.logits_b1hw[0, 0].numpy() - tracked_hw).max())
    assert max(seen) < 1e-3


def test_what_stops_it_loses_nothing(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    class Stopped(Trainer):
        def run_step(self) -> dict[str, float]:
            if self.step == 3:
                raise KeyboardInterrupt
            return super().run_step()

    config = TrainConfig((PHASE,), preset=tiny, warm_up=2)
    with pytest.raises(KeyboardInterrupt):
        run(Stopped(config, lambda _: clips, tmp_path, CPU, bf16=False), tmp_path, lambda _: {})
    assert trainer(tmp_path, tiny, clips).step == 3
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"step": 3, "loss": 1}\n{"step": 5, "loss": 1}\n{"step"')
    run(trainer(tmp_path, tiny, clips), tmp_path, lambda _: {})
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert 5 not in steps[: steps.index(8)] or steps.count(5) == 1
    assert steps == sorted(steps)


TINY = """
name = "tiny"
embed_dim = 8
heads = 1
stages = [1, 1, 1, 1]
global_blocks = []
windows = [8, 4, 16, 8]
background = 8
dim = 32
memory_dim = 16
attention_layers = 1
attention_ffn = 32
decoder_ffn = 32
decoder_heads = 2
"""


STEPS = 12


def in_bf16(folder: Path, out: Path) -> Trainer:
    """As on the command line: bf16, and all that a step needs is in files."""
    videos = [squares(0), squares(1)]
    clips = BatchSampler([VideoSource("squares", 1.0, uniform(videos))], uniform(videos), seed=5, device=CPU)
    config = TrainConfig((replace(PHASE, steps=STEPS),), preset=str(folder / "tiny.toml"), warm_up=2)
    return Trainer(config, lambda _: clips, out, CPU)


def _train(folder: Path) -> None:
    with mock.patch("rtseg.adapt.train.SAVE_S", 0.0):
        run(in_bf16(folder, folder / "killed"), folder / "killed", lambda _: {})


@pytest.mark.parametrize("stops", [True, False])
def test_prefetching_ends_with_the_training(tiny: str, clips: BatchSampler, tmp_path: Path, stops: bool) -> None:
    made = trainer(tmp_path, tiny, clips, replace(PHASE, steps=1))
    made.batches = Prefetcher(clips, made._sizes)
    made.batches.batch(0, 2, 3, 64, 2)
    if stops:
        made.run_step = lambda: (_ for _ in ()).throw(RuntimeError("stop"))  # type: ignore[method-assign]
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="stop") if stops else nullcontext():
        run(made, tmp_path, lambda _: {})
    assert threading.active_count() == before - 1


def test_kill_9_costs_nothing_that_was_saved(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "killed").mkdir()
    process = multiprocessing.get_context("spawn").Process(target=_train, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "killed" / "last.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    resumed, whole = in_bf16(tmp_path, tmp_path / "killed"), in_bf16(tmp_path, tmp_path / "whole")
    assert 0 < resumed.step < STEPS
    for made in (resumed, whole):
        while made.step < STEPS:
            made.run_step()
    for name, tensor in whole.average.weights.items():
        torch.testing.assert_close(resumed.average.weights[name], tensor, rtol=1e-4, atol=1e-6)
    resumed.run_step()
    resumed.run_step()
    own = resumed.average.weights
    assert any(not torch.allclose(own[name], w, rtol=1e-4, atol=1e-6) for name, w in whole.average.weights.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a GPU draws the scenes and trains")
def test_a_gpu_trains_on_scenes_that_it_draws(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_data, "POOL", 4)
    gpu = torch.device("cuda")
    config = TrainConfig((replace(PHASE, clips_cuda=4),), endoscope=Endoscope(1.0, 3), preset=tiny)
    made = Trainer(config, training_data.TrainingData(config, tmp_path, gpu).sampler, tmp_path, gpu)
    said = [made.run_step() for _ in range(3)]
    assert all(np.isfinite(one["loss"]) and not one["skipped"] for one in said)
    assert next(made.net.parameters()).device.type == "cuda"
    made.save()
    assert made.averaged().image_size == 64


def test_a_folder_belongs_to_one_training(tmp_path: Path) -> None:
    with _locked(tmp_path), pytest.raises(ConfigError, match="another training"), _locked(tmp_path):
        pass
    with _locked(tmp_path):
        pass


def test_weights_that_are_no_numbers_are_not_exported(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    made = trainer(tmp_path, tiny, clips)
    made.average.weights["no_mem_embed"].fill_(float("nan"))
    made.save()
    with pytest.raises(EngineError, match="no_mem_embed and 0 others are not finite"):
        made.export(tmp_path)
    assert not (tmp_path / "w.safetensors").exists()
