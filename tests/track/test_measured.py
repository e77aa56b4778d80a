"""Similarities measured when a memory entered a bank: policies choose as if they computed them, and never have to."""

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
    (similarity_t,) = cosine_similarities(stacked_maps([bank.memories], [new.written])).numpy()
    return replace(new, similarities={m.step: float(v) for m, v in zip(bank.memories, similarity_t, strict=True)})


def state(bank: Bank, now: int) -> tuple[object, ...]:
    recall = bank.recall(now)
    held = [(m.step, m.pinned_at) for m in bank.memories]
    return held, recall.slots, recall.ages, [id(written) for written in recall.memories]


Lives = list[tuple[tuple[object, ...], tuple[object, ...]]]


def lives(policy: str, seed: int, measure: Callable[[Bank, Memory], Memory]) -> Lives:
    """A bank that computes and one with measured similarities, through corrections and forks: states after each."""
    rng, chance = np.random.default_rng(seed), np.random.default_rng(seed)
    computing, given = Bank(POLICIES[policy], SIZE), Bank(POLICIES[policy], SIZE)
    after: Lives = []
    for step in range(40):
        new = memory(rng, step)
        given.add(measure(given, new))
        computing.add(new)
        if chance.random() < 0.1 and step > 5:  # back to an earlier frame, and on from there
            seq = int(chance.integers(step - 4, step))
            computing, given = computing.before(seq), given.before(seq)
        after.append((state(computing, step + 1), state(given, step + 1)))
    return after


@pytest.fixture()
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps of memories whose similarities a policy computed, because they were not measured."""
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
def test_a_bank_with_measured_similarities_chooses_like_one_that_computes_them(policy: str) -> None:
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
def test_measured_similarities_are_never_computed_again(policy: str, computed: list[int]) -> None:
    """If a policy computed them on a GPU, the host would wait."""
    rng = np.random.default_rng(3)
    bank = Bank(POLICIES[policy], SIZE)
    for step in range(60):
        bank.add(measured(bank, memory(rng, step)))
        if step % 13 == 12:
            bank = bank.before(step - 3)
    assert computed == []


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_policies_declare_that_they_need_similarities(policy: str, computed: list[int]) -> None:
    """Negative control: without measured similarities they are computed, by those that declare it alone."""
    rng = np.random.default_rng(3)
    bank = Bank(POLICIES[policy], SIZE)
    for step in range(60):
        bank.add(memory(rng, step))
    assert bool(computed) == (POLICIES[policy].needs_similarity)


@pytest.mark.parametrize("policy", [p.name for p in POLICIES.values() if p.needs_similarity])
def test_other_similarities_are_another_choice(policy: str) -> None:
    """Negative control: the measured numbers are those that decide."""

    def opposite(bank: Bank, new: Memory) -> Memory:
        new = measured(bank, new)
        values = new.similarities
        return replace(new, similarities=None if values is None else {step: -v for step, v in values.items()})

    assert any(one != other for seed in range(5) for one, other in lives(policy, seed, opposite))


def test_it_is_measured_as_it_is_computed() -> None:
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
