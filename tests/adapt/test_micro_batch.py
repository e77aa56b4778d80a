"""The micro-batch size: measured, lowered when memory runs out, and without effect on the gradients."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg.adapt.batches import Batch, BatchSampler
from rtseg.adapt.checkpoint import Checkpoint
from rtseg.adapt.config import Phase, TrainConfig
from rtseg.adapt.micro_batch import MARGIN, even_size, largest_micro_batch
from rtseg.adapt.train import run
from rtseg.adapt.trainer import Trainer
from rtseg.base.errors import EngineError

from .conftest import CPU

PHASE = Phase(4, image_size=64, length=2, objects=2, clips=2, clips_cuda=8, lr=(8e-4, 8e-4))


class Card:
    """A memory of `available` bytes. The weights take `own`, and each clip of a micro-batch takes `each`.

    `measured_each` is what a clip seems to take while it is measured. Micro-batch number `fails_at` of the training
    finds no memory, whatever its size.
    """

    def __init__(self, available: int, own: int = 100, each: int = 10, measured_each: int | None = None) -> None:
        self.bytes, self.own, self.each = available, own, each
        self.measured_each = each if measured_each is None else measured_each
        self.measuring, self.used, self.seen = False, 0, list[int]()
        self.fails_at: int | None = None
        self.given_back = 0

    def available(self) -> int:
        return self.bytes

    def peak(self, work: Callable[[], object]) -> int:
        self.measuring, self.used = True, 0
        work()
        self.measuring = False
        return self.used

    def release(self) -> None:
        self.given_back += 1

    def takes(self, clips: int) -> None:
        """So many clips go through."""
        self.used = self.own + clips * (self.measured_each if self.measuring else self.each)
        if not self.measuring:
            self.seen.append(clips)
        if self.used > self.bytes or (not self.measuring and len(self.seen) - 1 == self.fails_at):
            self.fails_at = None
            raise torch.OutOfMemoryError("CUDA out of memory.")


class OnCard(Trainer):
    """A training on a card with a simple loss: all weights together predict how bright the clips are.

    The loss is a mean over objects without randomness, so micro-batches add up to the whole batch exactly.
    """

    card: Card

    def _losses(self, batch: Batch, rng: np.random.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        self.card.takes(len(batch.image_ntchw))
        shown = batch.image_ntchw if self.teacher else batch.image_ntchw[batch.clip_b]
        bright_b = shown.float().mean((1, 2, 3, 4)) / 255
        guess = torch.stack([p.square().mean() for p in self.net.parameters()]).sum()
        return {"mask": (guess - bright_b).square().mean()}, {"tracked": guess.detach()}


def trainer(folder: Path, preset: str, clips: BatchSampler, card: Card, *phases: Phase) -> OnCard:
    config = TrainConfig(phases or (PHASE,), preset=preset, warm_up=2)
    made = OnCard(config, lambda _: clips, folder, CPU, bf16=False, meter=card)
    made.card = card
    return made


def bytes_for(clips: float) -> int:
    """Bytes of a card that has memory for so many clips, without the moments of the tiny network."""
    return round((100 + 10 * clips) / MARGIN)


def test_the_largest_number_that_fits_in_even_parts() -> None:
    def fits(available: int, most: int = 96, reserved: int = 0) -> int:
        return largest_micro_batch(most, lambda clips: 1000 + 50 * clips, available, reserved)

    assert fits(10**6) == 96  # no more than the batch, however much memory there is
    assert fits(round((1000 + 50 * 50) / MARGIN)) == 48  # 50 would fit; two parts of 48 take as long
    assert fits(round((1000 + 50 * 50) / MARGIN), reserved=50 * 20) == 24  # memory for 30: four parts
    assert fits(round((1000 + 50 * 50) / MARGIN), most=8) == 8
    assert fits(10) == 1
    assert [even_size(96, n) for n in (96, 95, 40, 7, 1)] == [96, 48, 32, 7, 1]
    assert largest_micro_batch(2, lambda clips: 1 // 0, 10, 0) == 2, "so few are not measured"


@pytest.mark.parametrize(("fails", "expected"), [(2, 1), (4, 2), (5, 32)])
def test_memory_that_runs_out_while_it_is_measured(fails: int, expected: int) -> None:
    def peak_of(clips: int) -> int:
        if clips >= fails:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return 1000 + 50 * clips

    assert largest_micro_batch(96, peak_of, round((1000 + 50 * 40) / MARGIN)) == expected


def test_a_batch_that_does_not_fit_is_split_and_logged(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    card = Card(bytes_for(4), own=100)
    made = trainer(tmp_path, tiny, clips, card)
    # What the optimizer will hold is of another scale than this card's clips.
    card.bytes += round(2 * sum(p.numel() * 4 for p in made.net.parameters()) / MARGIN)
    run(made, tmp_path, lambda _: {})
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert records[0] == {"step": 0, "clips": 8, "at once": 4, "why": "measured"}
    assert [r["at_once"] for r in records if "loss" in r] == [4] and card.seen == [4, 4] * 4
    assert Checkpoint.read(tmp_path / "last.pt").at_once == {0: 4}


@pytest.mark.parametrize("fails_at", range(6))
def test_memory_that_runs_out_in_any_micro_batch_costs_no_step(
    tiny: str, clips: BatchSampler, tmp_path: Path, fails_at: int
) -> None:
    """Two clips at once until then, one from then on; the step is done again from its beginning."""
    card, phase = Card(10**9), replace(PHASE, steps=3, clips_cuda=4)
    made = trainer(tmp_path / "card", tiny, clips, card, phase)
    made.micro_batch, card.fails_at = {0: 2}, fails_at
    notes: list[dict[str, Any]] = []
    made.log = notes.append
    failing_step = fails_at // 2
    for step in range(3):
        before = {k: v.clone() for k, v in made.net.state_dict().items()}
        record = made.run_step()
        assert made.step == step + 1 and np.isfinite(record["loss"]) and record["skipped"] == 0
        assert record["at_once"] == (2 if step < failing_step else 1)
        assert any(not torch.equal(before[k], v) for k, v in made.net.state_dict().items())
    assert [n["why"] for n in notes] == ["out of memory"] and notes[0]["step"] == failing_step and card.given_back == 1
    assert card.seen == [2] * (fails_at + 1) + [1] * 4 * (3 - failing_step)
    # Nothing of the failed attempt is left: as if it had been one at once from that step on.
    other = trainer(tmp_path / "other", tiny, clips, Card(10**9), phase)
    for step in range(3):
        other.micro_batch = {0: 2 if step < failing_step else 1}
        other.run_step()
    for name, weight in made.net.state_dict().items():
        assert torch.equal(weight, other.net.state_dict()[name]), name


def test_one_clip_that_does_not_fit_is_an_error(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    made = trainer(tmp_path, tiny, clips, Card(105, own=100))
    with pytest.raises(EngineError, match="step 0: out of GPU memory with one clip of 2 frames at 64 pixels; lower"):
        made.run_step()
    assert made.consistent and made.step == 0


def test_a_resumed_training_keeps_the_micro_batch(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    phases = (replace(PHASE, steps=2), replace(PHASE, steps=4, clips_cuda=6))
    first = trainer(tmp_path, tiny, clips, Card(10**9), *phases)
    first.micro_batch = {0: 4}
    for _ in range(3):
        first.run_step()
    assert first.micro_batch == {0: 4, 2: 6}, "each phase is measured on its own"
    first.save()
    expected = first.run_step()["loss"]
    card = Card(10**9)
    second = trainer(tmp_path, tiny, clips, card, *phases)
    assert second.micro_batch == {0: 4, 2: 6} and second.run_step()["loss"] == pytest.approx(expected, rel=1e-6)
    assert card.seen == [6] and card.used == 160, "nothing is measured again"


def test_parts_add_up_to_the_whole(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    """The batch does not depend on the card, and its micro-batches give the gradients and the log of the whole."""
    asked: list[tuple[int, ...]] = []

    class Asked(BatchSampler):
        def __init__(self) -> None:
            pass

        def batch(self, step: int, clips_: int, length: int, size: int, objects: int) -> Batch:
            asked.append((step, clips_, length, size, objects))
            return clips.batch(step, clips_, length, size, objects)

    def gradients(at_once: int) -> tuple[Tensor, float]:
        made = trainer(tmp_path / "none", tiny, Asked(), Card(10**9))
        made.micro_batch = {0: at_once}
        batch = made.batches.batch(0, 8, 2, 64, 2)
        means = made._gradients_in_memory(batch)
        found = [p.grad.flatten() for p in made.net.parameters() if p.grad is not None]
        return torch.cat(found), float(means["loss"])

    whole, loss = gradients(8)
    for at_once in (4, 3, 1):
        parted, parted_loss = gradients(at_once)
        torch.testing.assert_close(parted, whole, rtol=1e-4, atol=1e-7)
        assert parted_loss == pytest.approx(loss, rel=1e-5)
    assert {*asked} == {(0, 8, 2, 64, 2)}


def test_a_forgotten_micro_batch_is_found(
    tiny: str, clips: BatchSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the one above."""
    made, batch, found = trainer(tmp_path, tiny, clips, Card(10**9)), clips.batch(0, 8, 2, 64, 2), []
    made.micro_batch, real = {0: 4}, Batch.split
    for until in (2, 1):
        monkeypatch.setattr(Batch, "split", lambda batch, most, until=until: real(batch, most)[:until])
        made._gradients_in_memory(batch)
        found.append(torch.cat([p.grad.flatten() for p in made.net.parameters() if p.grad is not None]))
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_the_network_learns_the_same_way_in_parts(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    """Prompts are drawn per micro-batch, so gradients differ; averaged over some steps they point the same way."""

    class Real(Trainer):
        def mean_gradient(self, at_once: int) -> Tensor:
            total = []
            for step in range(6):
                self.step = step
                self._gradients(self.batches.batch(step, 8, 2, 64, 2), at_once)
                total.append(torch.cat([p.grad.flatten() for p in self.net.parameters() if p.grad is not None]))
            return torch.stack(total).mean(0)

    config = TrainConfig((PHASE,), preset=tiny)
    made = Real(config, lambda _: clips, tmp_path, CPU, bf16=False)
    whole, parted = made.mean_gradient(8), made.mean_gradient(2)
    assert torch.nn.functional.cosine_similarity(whole, parted, dim=0) > 0.6
    assert 0.5 < parted.norm() / whole.norm() < 2


def test_clips_without_an_object_count_for_features_only(tiny: str, clips: BatchSampler, tmp_path: Path) -> None:
    whole = clips.batch(0, 4, 2, 64, 2)
    rows = torch.isin(whole.clip_b, torch.tensor([0, 3]))
    batch = Batch(whole.image_ntchw, whole.clip_b[rows], whole.mask_bthw[rows], whole.surface_ntgg4)
    seen: dict[bool, list[int]] = {}
    for learns_features in (False, True):
        card = Card(10**9)
        made = trainer(tmp_path, tiny, clips, card)
        made.teacher = made.net if learns_features else None
        made._gradients(batch, 1)
        seen[learns_features] = card.seen
    assert seen == {False: [1, 1], True: [1, 1, 1, 1]}


def test_parts_are_the_batch(clips: BatchSampler) -> None:
    batch = clips.batch(3, 7, 2, 64, 2)
    for most in (1, 2, 3, 7, 9):
        parts = batch.split(most)
        assert max(len(p.image_ntchw) for p in parts) <= most
        assert torch.equal(torch.cat([p.mask_bthw for p in parts]), batch.mask_bthw)
        shown = [p.image_ntchw[p.clip_b] for p in parts]
        assert torch.equal(torch.cat(shown), batch.image_ntchw[batch.clip_b])
    assert batch.split(7)[0] is batch
    wrong = replace(batch.split(2)[1], clip_b=batch.split(2)[1].clip_b + 2)  # negative control
    with pytest.raises(IndexError):
        wrong.image_ntchw[wrong.clip_b]
