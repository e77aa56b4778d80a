"""Likenesses that were measured when a memory entered: policies choose as if they had asked, and never have to ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from rtseg.engine import Remembered
from rtseg.engine.arrays import cosine_similarities, cosine_similarity
from rtseg.engine.policy import MAX_CONDITIONING, MaskQuality, window
from rtseg.track import POLICIES, Bank, BankSize, Memory
from rtseg.track.host_copy import stacked_maps

SIZE = BankSize(window=7, spatial=5)


def memory(rng: np.random.Generator, step: int) -> Memory:
    map_chw = torch.from_numpy(rng.normal(size=(8, 3, 3)).astype(np.float32))
    sure = rng.random() < 0.8
    quality = MaskQuality(0.99 if sure else 0.3, 0.97 if sure else 0.4, int(rng.integers(95, 106)), float(rng.random()))
    return Memory(step, Remembered(map_chw), torch.zeros(4), step == 0 or rng.random() < 0.1, step, quality)


def measured(bank: Bank, new: Memory) -> Memory:
    """As the tracker does where maps are on a GPU."""
    if not len(bank):
        return new
    (alike_t,) = cosine_similarities(stacked_maps([bank.memories], [new.written])).numpy()
    return replace(new, similarities={m.step: float(v) for m, v in zip(bank.memories, alike_t, strict=True)})


def state(bank: Bank, now: int) -> tuple[object, ...]:
    recall = bank.recall(now)
    held = [(m.step, m.pinned_at) for m in bank.memories]
    return held, recall.slots, recall.ages, [id(written) for written in recall.memories]


Lives = list[tuple[tuple[object, ...], tuple[object, ...]]]


def lives(policy: str, seed: int, measure: Callable[[Bank, Memory], Memory]) -> Lives:
    """A bank that asks and one that was told, through corrections and forks: their states after each memory."""
    rng, chance = np.random.default_rng(seed), np.random.default_rng(seed)
    asking, told = Bank(POLICIES[policy], SIZE), Bank(POLICIES[policy], SIZE)
    after: Lives = []
    for step in range(40):
        new = memory(rng, step)
        told.add(measure(told, new))
        asking.add(new)
        if chance.random() < 0.1 and step > 5:  # back to an earlier frame, and on from there
            seq = int(chance.integers(step - 4, step))
            asking, told = asking.before(seq), told.before(seq)
        after.append((state(asking, step + 1), state(told, step + 1)))
    return after


@pytest.fixture()
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of memories without measures that a policy wanted to know the likeness of; real ones are answered."""
    steps: list[int] = []
    real = window.similarity

    def similarity(memories: list[Memory], one: Memory) -> np.ndarray:
        if any(window._measured(m, one) is None for m in memories):
            steps.append(one.step)
        return real(memories, one)

    monkeypatch.setattr(window, "similarity", similarity)
    monkeypatch.setattr("rtseg.engine.policy.pinned.similarity", similarity)
    return steps


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_a_bank_that_was_told_chooses_as_one_that_asks(policy: str) -> None:
    evicted = 0
    for seed in range(25):
        after = lives(policy, seed, measured)
        assert all(one == other for one, other in after)
        prompted = memory_steps(seed)
        evicted += len(prompted) > MAX_CONDITIONING
    assert evicted > 3  # prompted memories had to go, too


def memory_steps(seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    return [step for step in range(40) if memory(rng, step).conditioning]


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_who_was_told_never_asks(policy: str, asked: list[int]) -> None:
    """What a policy would ask of a GPU, the host would wait for."""
    rng = np.random.default_rng(3)
    bank = Bank(POLICIES[policy], SIZE)
    for step in range(60):
        bank.add(measured(bank, memory(rng, step)))
        if step % 13 == 12:
            bank = bank.before(step - 3)
    assert asked == []


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_those_that_need_likeness_are_named(policy: str, asked: list[int]) -> None:
    """Negative control: who was told nothing asks, and only who declares it."""
    rng = np.random.default_rng(3)
    bank = Bank(POLICIES[policy], SIZE)
    for step in range(60):
        bank.add(memory(rng, step))
    assert bool(asked) == (POLICIES[policy].needs_similarity)


@pytest.mark.parametrize("policy", [p.name for p in POLICIES.values() if p.needs_similarity])
def test_another_measure_is_another_choice(policy: str) -> None:
    """Negative control: the numbers that were told are those that decide."""

    def opposite(bank: Bank, new: Memory) -> Memory:
        new = measured(bank, new)
        told = new.similarities
        return replace(new, similarities=None if told is None else {step: -v for step, v in told.items()})

    assert any(one != other for seed in range(5) for one, other in lives(policy, seed, opposite))


def test_it_is_measured_as_it_is_asked() -> None:
    """Banks of several lengths at once, against one by one; a longer one does not change a shorter one's numbers."""
    rng = np.random.default_rng(0)
    banks = [[memory(rng, step) for step in range(count)] for count in (0, 1, 5, 3)]
    new = [memory(rng, 9).written for _ in banks]
    got_bt = cosine_similarities(stacked_maps(banks, new)).numpy()
    assert got_bt.shape == (4, 5)
    for bank, one, got_t in zip(banks, new, got_bt, strict=True):
        if bank:
            expected = cosine_similarity(torch.stack([m.map_chw for m in bank]), one.map_chw)
            np.testing.assert_allclose(got_t[: len(bank)], expected, rtol=1e-5, atol=1e-6)
            assert np.abs(got_t[: len(bank)][::-1] - expected).max() > 1e-3 or len(bank) == 1
