"""A bank holds no more than it says, frees what leaves, and recalls pointers by their age."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
import torch

from rtseg.engine import Remembered
from rtseg.engine.policy import MAX_CONDITIONING, similarity
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


def test_a_bank_says_what_it_holds_and_why_memories_left() -> None:
    bank = Bank(POLICIES["efp"], BankSize(spatial=3))
    assert bank.report().plain() == {"memories": (), "dropped": (), "pointers": 0}
    seen = [replace(memory(step, conditioning=step == 0), seq=100 + step) for step in range(13)]
    expected: list[tuple[int, str]] = []
    for one in seen:
        before = bank.memories
        bank.add(one)
        for gone in (m for m in before if m not in bank.memories):
            alike = similarity([m for m in before if not m.conditioning], one)
            assert similarity([gone], one)[0] == alike.max()  # it is the one that EFP removes
            expected.append((gone.seq, f"efp left it out for frame {one.seq}: its similarity is {alike.max():.2f}"))
    report = bank.report()
    assert [m.seq for m in report.memories] == [m.seq for m in bank.memories]
    assert [m.conditioning for m in report.memories] == [True, False, False] and report.memories[-1].seq == 112
    assert [m.similarity for m in report.memories] == pytest.approx(list(similarity(bank.memories, seen[-1])))
    assert [(one.seq, one.why) for one in report.dropped] == expected[::-1][:8] and len(expected) == 10
    assert report.pointers == 1 + 12
    assert bank.before(105).report().dropped == report.dropped


def test_why_a_memory_left_is_said_for_every_policy() -> None:
    for name, policy in POLICIES.items():
        bank = Bank(policy, BankSize())
        for step in range(60):
            bank.add(memory(step, conditioning=step % 10 == 0))
        words = {one.why for one in bank.report().dropped}
        assert words and all("other frames are prompted" in why or f"{name} left it out" in why for why in words)
    assert Bank(POLICIES["fifo"], BankSize()).report().dropped == ()
