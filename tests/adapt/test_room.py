"""How many clips a card takes at once: measured, made fewer where it was too many, without effect on what is learnt."""

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

from rtseg.adapt.checkpoint import Checkpoint
from rtseg.adapt.clips import Batch, ClipMaker
from rtseg.adapt.config import Phase, TrainConfig
from rtseg.adapt.room import MARGIN, even, most_at_once
from rtseg.adapt.train import run
from rtseg.adapt.trainer import Trainer
from rtseg.base.errors import EngineError

from .conftest import CPU

PHASE = Phase(4, image_size=64, length=2, objects=2, clips=2, clips_cuda=8, lr=(8e-4, 8e-4))


class Card:
    """A memory of `room` bytes, of which the weights take `own` and each clip that goes through at once takes `each`.

    `measured_each` is what a clip seems to take while it is measured; `fails_at`: a part of the training, counted from
    the first, that finds no memory whatever its size.
    """

    def __init__(self, room: int, own: int = 100, each: int = 10, measured_each: int | None = None) -> None:
        self.bytes, self.own, self.each = room, own, each
        self.measured_each = each if measured_each is None else measured_each
        self.measuring, self.used, self.seen = False, 0, list[int]()
        self.fails_at: int | None = None
        self.given_back = 0

    def room(self) -> int:
        return self.bytes

    def peak(self, work: Callable[[], object]) -> int:
        self.measuring, self.used = True, 0
        work()
        self.measuring = False
        return self.used

    def let_go(self) -> None:
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
    """A training whose clips go through a card; instead of the network, all weights together guess how bright they are.

    Its loss is a mean over objects and draws nothing: what parts add up to is what the whole gives.
    """

    card: Card

    def _losses(self, batch: Batch, rng: np.random.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        self.card.takes(len(batch.image_ntchw))
        shown = batch.image_ntchw if self.teacher else batch.image_ntchw[batch.clip_b]
        bright_b = shown.float().mean((1, 2, 3, 4)) / 255
        guess = torch.stack([p.square().mean() for p in self.net.parameters()]).sum()
        return {"mask": (guess - bright_b).square().mean()}, {"tracked": guess.detach()}


def trainer(folder: Path, preset: str, clips: ClipMaker, card: Card, *phases: Phase) -> OnCard:
    config = TrainConfig(phases or (PHASE,), preset=preset, warm_up=2)
    made = OnCard(config, lambda _: clips, folder, CPU, bf16=False, meter=card)
    made.card = card
    return made


def room_for(clips: float) -> int:
    """Bytes of a card on which so many fit, beside the moments of the tiny network."""
    return round((100 + 10 * clips) / MARGIN)


def test_the_largest_number_that_fits_in_even_parts() -> None:
    def fits(room: int, most: int = 96, beside: int = 0) -> int:
        return most_at_once(most, lambda clips: 1000 + 50 * clips, room, beside)

    assert fits(10**6) == 96  # no more than asked for, however much room there is
    assert fits(round((1000 + 50 * 50) / MARGIN)) == 48  # 50 would fit; two parts of 48 take as long
    assert fits(round((1000 + 50 * 50) / MARGIN), beside=50 * 20) == 24  # room for 30: four parts
    assert fits(round((1000 + 50 * 50) / MARGIN), most=8) == 8
    assert fits(10) == 1
    assert [even(96, n) for n in (96, 95, 40, 7, 1)] == [96, 48, 32, 7, 1]
    assert most_at_once(2, lambda clips: 1 // 0, 10, 0) == 2, "so few are not measured"


@pytest.mark.parametrize(("fails", "expected"), [(2, 1), (4, 2), (5, 32)])
def test_a_card_that_has_no_room_for_what_is_measured(fails: int, expected: int) -> None:
    def peak_of(clips: int) -> int:
        if clips >= fails:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return 1000 + 50 * clips

    assert most_at_once(96, peak_of, round((1000 + 50 * 40) / MARGIN)) == expected


def test_what_does_not_fit_goes_in_parts_and_is_said(tiny: str, clips: ClipMaker, tmp_path: Path) -> None:
    card = Card(room_for(4), own=100)
    made = trainer(tmp_path, tiny, clips, card)
    # What the optimizer will hold is of another scale than this card's clips.
    card.bytes += round(2 * sum(p.numel() * 4 for p in made.net.parameters()) / MARGIN)
    run(made, tmp_path, lambda _: {})
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert records[0] == {"step": 0, "clips": 8, "at once": 4, "why": "measured"}
    assert [r["at_once"] for r in records if "loss" in r] == [4] and card.seen == [4, 4] * 4
    assert Checkpoint.read(tmp_path / "last.pt").at_once == {0: 4}


@pytest.mark.parametrize("fails_at", range(6))
def test_memory_that_runs_out_at_any_part_costs_no_step(
    tiny: str, clips: ClipMaker, tmp_path: Path, fails_at: int
) -> None:
    """Two clips at once until then, one from then on; the step is done again from its beginning."""
    card, phase = Card(10**9), replace(PHASE, steps=3, clips_cuda=4)
    made = trainer(tmp_path / "card", tiny, clips, card, phase)
    made.at_once, card.fails_at = {0: 2}, fails_at
    notes: list[dict[str, Any]] = []
    made.note = notes.append
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
        other.at_once = {0: 2 if step < failing_step else 1}
        other.run_step()
    for name, weight in made.net.state_dict().items():
        assert torch.equal(weight, other.net.state_dict()[name]), name


def test_one_clip_that_does_not_fit_is_refused_in_words(tiny: str, clips: ClipMaker, tmp_path: Path) -> None:
    made = trainer(tmp_path, tiny, clips, Card(105, own=100))
    with pytest.raises(EngineError, match="step 0: out of GPU memory with one clip of 2 frames at 64 pixels; lower"):
        made.run_step()
    assert made.whole and made.step == 0


def test_what_was_chosen_is_kept_by_who_goes_on(tiny: str, clips: ClipMaker, tmp_path: Path) -> None:
    phases = (replace(PHASE, steps=2), replace(PHASE, steps=4, clips_cuda=6))
    first = trainer(tmp_path, tiny, clips, Card(10**9), *phases)
    first.at_once = {0: 4}
    for _ in range(3):
        first.run_step()
    assert first.at_once == {0: 4, 2: 6}, "each phase is measured on its own"
    first.save()
    expected = first.run_step()["loss"]
    card = Card(10**9)
    second = trainer(tmp_path, tiny, clips, card, *phases)
    assert second.at_once == {0: 4, 2: 6} and second.run_step()["loss"] == pytest.approx(expected, rel=1e-6)
    assert card.seen == [6] and card.used == 160, "nothing is measured again"


def test_parts_add_up_to_the_whole(tiny: str, clips: ClipMaker, tmp_path: Path) -> None:
    """The same batch is asked for whatever the card, and its parts give the gradients and the log of the whole."""
    asked: list[tuple[int, ...]] = []

    class Asked(ClipMaker):
        def __init__(self) -> None:
            pass

        def batch(self, step: int, clips_: int, length: int, size: int, objects: int) -> Batch:
            asked.append((step, clips_, length, size, objects))
            return clips.batch(step, clips_, length, size, objects)

    def gradients(at_once: int) -> tuple[Tensor, float]:
        made = trainer(tmp_path / "none", tiny, Asked(), Card(10**9))
        made.at_once = {0: at_once}
        batch = made.clips.batch(0, 8, 2, 64, 2)
        said = made._fitting(batch)
        found = [p.grad.flatten() for p in made.net.parameters() if p.grad is not None]
        return torch.cat(found), float(said["loss"])

    whole, loss = gradients(8)
    for at_once in (4, 3, 1):
        parted, parted_loss = gradients(at_once)
        torch.testing.assert_close(parted, whole, rtol=1e-4, atol=1e-7)
        assert parted_loss == pytest.approx(loss, rel=1e-5)
    assert {*asked} == {(0, 8, 2, 64, 2)}


def test_a_part_that_is_forgotten_shows(
    tiny: str, clips: ClipMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the one above."""
    made, batch, found = trainer(tmp_path, tiny, clips, Card(10**9)), clips.batch(0, 8, 2, 64, 2), []
    made.at_once, real = {0: 4}, Batch.parts
    for until in (2, 1):
        monkeypatch.setattr(Batch, "parts", lambda batch, most, until=until: real(batch, most)[:until])
        made._fitting(batch)
        found.append(torch.cat([p.grad.flatten() for p in made.net.parameters() if p.grad is not None]))
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-7)


@pytest.mark.slow
def test_the_network_learns_the_same_way_in_parts(tiny: str, clips: ClipMaker, tmp_path: Path) -> None:
    """Its prompts are drawn anew for each part, so that gradients differ; over some steps they point the same way."""

    class Real(Trainer):
        def mean_gradient(self, at_once: int) -> Tensor:
            total = []
            for step in range(6):
                self.step = step
                self._gradients(self.clips.batch(step, 8, 2, 64, 2), at_once)
                total.append(torch.cat([p.grad.flatten() for p in self.net.parameters() if p.grad is not None]))
            return torch.stack(total).mean(0)

    config = TrainConfig((PHASE,), preset=tiny)
    made = Real(config, lambda _: clips, tmp_path, CPU, bf16=False)
    whole, parted = made.mean_gradient(8), made.mean_gradient(2)
    assert torch.nn.functional.cosine_similarity(whole, parted, dim=0) > 0.6
    assert 0.5 < parted.norm() / whole.norm() < 2


def test_clips_without_an_object_teach_features_alone(tiny: str, clips: ClipMaker, tmp_path: Path) -> None:
    whole = clips.batch(0, 4, 2, 64, 2)
    rows = torch.isin(whole.clip_b, torch.tensor([0, 3]))
    batch = Batch(whole.image_ntchw, whole.clip_b[rows], whole.mask_bthw[rows], whole.place_ntgg4)
    seen: dict[bool, list[int]] = {}
    for learns_features in (False, True):
        card = Card(10**9)
        made = trainer(tmp_path, tiny, clips, card)
        made.teacher = made.net if learns_features else None
        made._gradients(batch, 1)
        seen[learns_features] = card.seen
    assert seen == {False: [1, 1], True: [1, 1, 1, 1]}


def test_parts_are_the_batch(clips: ClipMaker) -> None:
    batch = clips.batch(3, 7, 2, 64, 2)
    for most in (1, 2, 3, 7, 9):
        parts = batch.parts(most)
        assert max(len(p.image_ntchw) for p in parts) <= most
        assert torch.equal(torch.cat([p.mask_bthw for p in parts]), batch.mask_bthw)
        shown = [p.image_ntchw[p.clip_b] for p in parts]
        assert torch.equal(torch.cat(shown), batch.image_ntchw[batch.clip_b])
    assert batch.parts(7)[0] is batch
    wrong = replace(batch.parts(2)[1], clip_b=batch.parts(2)[1].clip_b + 2)  # negative control
    with pytest.raises(IndexError):
        wrong.image_ntchw[wrong.clip_b]
