"""The cells that a network with `Match` compares frames with: they come with prompts and live as long as memories."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rtseg import Frame, Tracker
from rtseg.engine import Recall, Remembered
from rtseg.engine.policy import MAX_CONDITIONING
from rtseg.engine.recipe import Recipe
from rtseg.engine.reference import TorchEngine
from rtseg.track import POLICIES, Bank, BankSize, Memory
from tests.engine.conftest import LITE_MATCH, random_network

H, W = 90, 120


@pytest.fixture(scope="module")
def engine() -> TorchEngine:
    return TorchEngine(random_network(LITE_MATCH, 64), Recipe(image_size=64, max_objects=3), "", "cpu")


def frame(seq: int) -> Frame:
    return Frame(np.random.default_rng(seq).integers(0, 255, (H, W, 3), dtype=np.uint8), seq)


def bank_of(tracker: Tracker, object_id: int = 1) -> Bank:
    return tracker._objects[object_id].bank


def compared(tracker: Tracker, object_id: int = 1) -> Any:
    """What the next frame would be compared with."""
    return bank_of(tracker, object_id).recall(tracker._steps).cells_cgg


def played(engine: TorchEngine, until: int) -> Tracker:
    tracker = Tracker(engine, policy="fifo")
    tracker.prompt(1, box=(10, 10, 80, 70))
    for seq in range(until):
        tracker.step(frame(seq))
    return tracker


def test_a_prompt_brings_them_and_a_correction_replaces_them(engine: TorchEngine) -> None:
    tracker = played(engine, 9)
    first = compared(tracker)
    assert first.shape == (33, 8, 8) and first.dtype == torch.float32
    assert [m.written.cells_cgg is not None for m in bank_of(tracker).memories] == [True, *[False] * 6]
    tracker.prompt(1, points=[(60, 40, 1)])
    tracker.step(frame(9))
    corrected = compared(tracker)
    assert not torch.equal(corrected, first)
    tracker.step(frame(10))
    assert compared(tracker) is corrected


def test_the_mask_that_is_remembered_is_the_prompted_one(engine: TorchEngine) -> None:
    given = np.zeros((H, W), bool)
    given[:, :60] = True
    tracker = Tracker(engine)
    tracker.prompt(1, mask=given)
    tracker.step(frame(0))
    mask = compared(tracker)[-1]
    assert float(mask[:, :3].min()) > 0.99 and float(mask[:, 5:].max()) < 0.01


def test_they_are_freed_with_their_memories(engine: TorchEngine) -> None:
    """At most as many live as there are conditioning memories; none after the object is removed."""
    tracker, alive = Tracker(engine, policy="fifo"), []
    for seq in range(9):
        tracker.prompt(1, box=(10, 10, 80, 70))
        tracker.step(frame(seq))
        alive.append(weakref.ref(compared(tracker)))
    gc.collect()
    assert sum(ref() is not None for ref in alive) == MAX_CONDITIONING
    assert alive[-1]() is compared(tracker)
    tracker.remove(1)
    gc.collect()
    assert not any(ref() is not None for ref in alive)


def test_a_fork_is_compared_with_what_there_was_then(engine: TorchEngine) -> None:
    tracker = played(engine, 5)
    first = compared(tracker)
    tracker.prompt(1, points=[(60, 40, 1)])
    for seq in (5, 6):
        tracker.step(frame(seq))
    corrected = compared(tracker)
    assert bank_of(tracker).before(5).recall(5).cells_cgg is first
    fork = tracker.fork([1], 5)
    assert compared(fork) is first and compared(tracker) is corrected
    fork.prompt(1, points=[(20, 20, 1)])
    for seq in (5, 6):
        fork.step(frame(seq))
    tracker.adopt(fork)
    assert compared(tracker) is compared(fork)
    assert not any(torch.equal(compared(tracker), other) for other in (first, corrected))


def test_prompts_that_are_given_again_bring_them_back(engine: TorchEngine) -> None:
    """As after the restart of a feed's network: the prompted pictures are replayed, not the frames between."""
    tracker = played(engine, 4)
    tracker.prompt(1, points=[(60, 40, 1)])
    tracker.step(frame(4))
    restarted = Tracker(engine, policy="fifo")
    restarted.prompt(1, box=(10, 10, 80, 70))
    restarted.step(frame(0))
    torch.testing.assert_close(compared(restarted), bank_of(tracker).memories[0].written.cells_cgg)
    restarted.prompt(1, points=[(60, 40, 1)])
    restarted.step(frame(4))
    torch.testing.assert_close(compared(restarted)[:-1], compared(tracker)[:-1])


def test_objects_with_and_without_them_share_a_step(engine: TorchEngine) -> None:
    """An object whose prompted memory another network wrote, say, is tracked without."""
    tracker, alone = played(engine, 3), played(engine, 3)
    for one in (tracker, alone):
        bank = bank_of(one)
        bank._memories = [replace(m, written=replace(m.written, cells_cgg=None)) for m in bank._memories]
    tracker.prompt(2, points=[(60, 40, 1)])
    for seq in (3, 4):
        both, one = tracker.step(frame(seq)), alone.step(frame(seq))
        np.testing.assert_allclose(both.logits(1), one.logits(1), atol=1e-3, rtol=1e-3)
    assert compared(tracker) is None and compared(tracker, 2) is not None


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_policy_chooses_as_if_there_were_none(name: str) -> None:
    """It compares maps alone; and what is compared with is the newest conditioning frame's, whatever it keeps."""
    banks = [Bank(POLICIES[name], BankSize()) for _ in range(2)]
    for step in range(60):
        g, prompted = torch.Generator().manual_seed(step), step % 25 == 0
        bare = Remembered(torch.randn(8, 3, 3, generator=g))
        own = replace(bare, cells_cgg=torch.full((3, 6, 6), float(step))) if prompted else bare
        for bank, written in zip(banks, (bare, own), strict=True):
            bank.add(Memory(step, written, torch.zeros(4), prompted, step))
        plain, celled = (bank.recall(step + 1) for bank in banks)
        assert [id(m.map_chw) for m in plain.memories] == [id(m.map_chw) for m in celled.memories]
        assert plain.slots == celled.slots and plain.cells_cgg is None
        assert float(celled.cells_cgg[0, 0, 0]) == step // 25 * 25


def test_a_recall_without_conditioning_memories_has_none() -> None:
    assert Recall.from_maps(torch.zeros(2, 8, 3, 3), (0, 1), torch.zeros(1, 4), (1,)).cells_cgg is None
