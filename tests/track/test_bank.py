"""A bank holds no more than it says, frees what leaves, and recalls pointers by their age."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from rtseg.engine import Remembered
from rtseg.engine.policy import MAX_CONDITIONING
from rtseg.track import POLICIES, Bank, BankSize, Memory
from rtseg.track.bank import recalls


def memory(step: int, conditioning: bool = False) -> Memory:
    g = torch.Generator().manual_seed(step)
    return Memory(step, Remembered(torch.randn(8, 3, 3, generator=g)), torch.full((4,), float(step)), conditioning)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_bounded_and_freed(name: str) -> None:
    bank = Bank(POLICIES[name], BankSize())
    judged_later = 4 if name in ("anchor", "diverse") else 0
    alive: list[weakref.ref[torch.Tensor]] = []
    for step in range(200):
        m = memory(step, conditioning=step % 20 == 0)
        alive.append(weakref.ref(m.map_chw))
        bank.add(m)
        assert len(bank) <= MAX_CONDITIONING + 6 + judged_later
    del m
    gc.collect()
    assert sum(ref() is not None for ref in alive) == len(bank)


def test_the_first_and_the_latest_prompted_frames_stay() -> None:
    bank = Bank(POLICIES["efp"], BankSize())
    for step in range(100):
        bank.add(memory(step, conditioning=step % 10 == 0))
    assert [m.step for m in bank.memories if m.conditioning] == [0, 70, 80, 90]


def test_pointers_outlive_the_memories_that_were_pruned() -> None:
    bank = Bank(POLICIES["efp"], BankSize(), pointers=16)
    for step in range(40):
        bank.add(memory(step, conditioning=step == 0))
    recall = bank.recall(40)
    assert recall.ages == (40, *range(1, 16))
    assert recall.pointers_pc[:, 0].tolist() == [0.0, *range(39, 24, -1)]
    assert len(recall.slots) == len(recall.memories) == 5


def test_a_prompted_frame_inside_the_window_has_one_pointer_and_one_map() -> None:
    bank = Bank(POLICIES["fifo"], BankSize())
    for step in range(12):
        bank.add(memory(step, conditioning=step in (0, 9)))
    recall = bank.recall(12)
    assert recall.slots == (6, 5, 4, 3, 6, 1, 0)
    assert recall.ages == (12, 3, 1, 2, *range(4, 12))


def test_what_several_recall_together_is_what_each_recalls() -> None:
    banks = [Bank(POLICIES["efp"], BankSize()) for _ in range(4)]
    for offset, bank in zip((0, 3, 10), banks, strict=False):
        for step in range(offset, 12):
            bank.add(memory(step, conditioning=step == offset))
    alone = [bank.recall(12) for bank in banks[:3]]
    together = recalls([banks[0], banks[3], banks[1], banks[2]], 12)
    assert together.pop(1) is None
    for one, recall in zip(alone, together, strict=True):
        assert recall is not None and (recall.ages, recall.slots) == (one.ages, one.slots)
        assert recall.pointers_pc.equal(one.pointers_pc)
        assert recall.pointers_pc[:, 0].tolist() == [12.0 - age for age in one.ages]
