"""What every policy promises; and those that keep nothing back do what their definitions say, read slowly in numpy.

Those that pin memories are in tests/track/test_pinned.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtseg.base.errors import ConfigError
from rtseg.engine import Remembered
from rtseg.engine.policy import MAX_CONDITIONING, MaskQuality
from rtseg.track import POLICIES, BankSize, Choice, Memory, get_policy

SIZE = BankSize(window=7, spatial=5)
MOST: dict[str, Callable[[int], int]] = {  # memories that are looked at, with so many conditioning ones
    "fifo": lambda prompted: prompted + 6,
    "efp-window": lambda prompted: prompted + 6,
    "efp": lambda prompted: max(5, prompted + 1),
    "efp-confident": lambda prompted: max(5, prompted + 1),
    "confident": lambda prompted: max(7, prompted + 1),
    "anchor": lambda prompted: max(7, prompted + 1 + 1),
    "diverse": lambda prompted: max(7, prompted + 3 + 1),
    "distractor": lambda prompted: max(7, prompted + 3 + 1),
}
UNSEEN = {"efp-window": 2, "anchor": 4, "diverse": 4}  # kept, and not looked at


def bank(seed: int, conditioning: list[int], steps: list[int], unsure: float = 0.0) -> list[Memory]:
    """Memories of these steps; `unsure` is the share of those that the network does not trust."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(len(steps), 8, 3, 3)).astype(np.float32)
    memories = []
    for s, m in zip(steps, maps, strict=True):
        lost, vague = rng.random(2) < unsure / 2
        quality = MaskQuality(0.4 if lost else 0.99, 0.3 if vague else 0.97, int(rng.integers(95, 106)), rng.random())
        memories.append(Memory(s, Remembered(torch.from_numpy(m)), torch.zeros(4), s in conditioning, s, quality))
    return memories


def slow_similarity(a: Memory, b: Memory) -> float:
    """Cosine over channels at each cell, then the mean over cells: one cell at a time."""
    cells = []
    for row in range(a.map_chw.shape[1]):
        for col in range(a.map_chw.shape[2]):
            u, v = a.map_chw[:, row, col].numpy().astype(float), b.map_chw[:, row, col].numpy().astype(float)
            cells.append(float(u @ v) / (float(np.linalg.norm(u)) * float(np.linalg.norm(v))))
    return sum(cells) / len(cells)


def slow_efp_window(memories: list[Memory]) -> dict[int, int]:
    """What the next frame looks at: step to temporal slot."""
    now = memories[-1].step + 1
    candidates = {m.step: 6 for m in memories if m.conditioning}
    for back in range(6, 0, -1):
        candidates.update({m.step: back - 1 for m in memories if m.step == now - back and not m.conditioning})
    newest = memories[-1]
    free = [m for m in memories if m.step in candidates and not m.conditioning and m is not newest]
    for m in sorted(free, key=lambda m: -slow_similarity(m, newest))[: min(max(len(candidates) - 5, 0), 2)]:
        del candidates[m.step]
    return candidates


def slow_efp(memories: list[Memory]) -> list[int]:
    """The steps that stay in the bank."""
    stay = list(memories)
    while len(stay) > 5:
        free = [m for m in stay[:-1] if not m.conditioning]
        if not free:
            break
        stay.remove(max(free, key=lambda m: slow_similarity(m, memories[-1])))
    return [m.step for m in stay]


def slow_confident(memories: list[Memory]) -> dict[int, int]:
    """What the next frame looks at: step to temporal slot."""
    prompted = [m.step for m in memories if m.conditioning]
    loose: list[int] = []
    for m in reversed(memories):
        trusted = m.quality.score > 0.5 and m.quality.iou > 0.5
        if not m.conditioning and (trusted or m is memories[-1]) and len(prompted) + len(loose) < 7:
            loose.append(m.step)
    return dict.fromkeys(prompted, 6) | {step: rank for rank, step in enumerate(loose)}


def random_bank(seed: int, unsure: float = 0.0) -> list[Memory]:
    """As a tracker may leave it: frame 0 prompted, perhaps another, then a run of recent frames."""
    rng = np.random.default_rng(seed)
    newest = int(rng.integers(0, 30))
    steps = sorted({0, *range(max(0, newest - int(rng.integers(0, 9))), newest + 1)})
    prompted = [0] + ([int(rng.choice(steps))] if rng.random() < 0.3 else [])
    return bank(seed, prompted, steps, unsure)


def test_efp_window_is_the_definition_on_1000_banks() -> None:
    pruned = 0
    for seed in range(1000):
        memories = random_bank(seed)
        choice = POLICIES["efp-window"](memories, SIZE)
        assert {memories[i].step: slot for i, slot in choice.attend} == slow_efp_window(memories)
        pruned += len(choice.attend) < len(choice.keep)
    assert pruned > 300  # the rule was exercised


def test_efp_is_the_definition_on_1000_banks() -> None:
    pruned = 0
    for seed in range(1000):
        memories = random_bank(seed)
        choice = POLICIES["efp"](memories, SIZE)
        assert [memories[i].step for i in choice.keep] == slow_efp(memories)
        pruned += len(choice.keep) < len(memories)
    assert pruned > 300


def test_confident_is_the_definition_on_1000_banks() -> None:
    gone = 0
    for seed in range(1000):
        memories = random_bank(seed, unsure=0.4)
        choice = POLICIES["confident"](memories, SIZE)
        assert {memories[i].step: slot for i, slot in choice.attend} == slow_confident(memories)
        gone += len(choice.keep) < len(memories)
    assert gone > 300


def test_efp_confident_is_efp_where_the_unsure_never_were() -> None:
    differs = 0
    for seed in range(300):
        memories = random_bank(seed, unsure=0.4)
        trusted = [m for m in memories[:-1] if m.conditioning or (m.visible and m.quality.iou > 0.5)]
        kept = [memories[i].step for i in POLICIES["efp-confident"](memories, SIZE).keep]
        assert kept == slow_efp([*trusted, memories[-1]])
        differs += kept != slow_efp(memories)
    assert differs > 100


def test_confident_is_fifo_where_all_is_sure_and_prompted_once() -> None:
    for newest in range(20):
        memories = bank(newest, [0], list(range(newest + 1)))
        assert POLICIES["confident"](memories, SIZE) == POLICIES["fifo"](memories, SIZE)


def test_an_object_that_is_long_gone_is_remembered_as_it_was_last_seen() -> None:
    seen, gone = bank(5, [0], list(range(10))), bank(6, [], list(range(10, 40)), unsure=2.0)
    attended = [(seen + gone)[i].step for i, _ in POLICIES["confident"](seen + gone, SIZE).attend]
    assert attended == [0, 5, 6, 7, 8, 9, 39]  # the newest says that it has gone


def test_the_slow_reading_would_notice_the_opposite_rule() -> None:
    """Negative control: dropping the least similar is another policy."""
    memories = bank(1, [0], list(range(8)))
    newest = memories[-1]
    free = sorted(memories[1:-1], key=lambda m: slow_similarity(m, newest))
    assert [m.step for m in memories if m not in free[:3]] != slow_efp(memories)


@st.composite
def banks(draw: st.DrawFn) -> list[Memory]:
    steps = sorted(draw(st.sets(st.integers(0, 40), min_size=1, max_size=14)))
    prompted = draw(st.sets(st.sampled_from(steps), max_size=4))
    memories = bank(draw(st.integers(0, 999)), sorted(prompted), steps, draw(st.sampled_from((0.0, 0.5))))
    held = draw(st.sets(st.sampled_from(steps), max_size=5)) - prompted
    return [replace(m, pinned_at=m.step) if m.step in held else m for m in memories]


@pytest.mark.parametrize("name", sorted(POLICIES))
@given(memories=banks())
@settings(max_examples=150, deadline=None)
def test_what_every_policy_promises(name: str, memories: list[Memory]) -> None:
    choice = POLICIES[name](memories, SIZE)
    attended = [i for i, _ in choice.attend]
    protected = {i for i, m in enumerate(memories) if m.conditioning} | {len(memories) - 1}
    assert protected <= set(choice.keep) and protected <= set(attended)
    assert list(choice.keep) == sorted(set(choice.keep)) and attended == sorted(set(attended))
    assert set(attended) <= set(choice.keep)
    assert all(0 <= slot < SIZE.window for _, slot in choice.attend)
    assert set(choice.pin) <= set(choice.keep) and not any(memories[i].conditioning for i in choice.pin)
    prompted = sum(m.conditioning for m in memories)
    assert len(attended) <= MOST[name](prompted)
    assert len(choice.keep) <= len(attended) + UNSEEN.get(name, 0)
    assert POLICIES[name](memories, SIZE) == choice
    if prompted <= MAX_CONDITIONING:
        assert len(attended) <= SIZE.window - 1 + MAX_CONDITIONING  # what engines have room for


def test_survivors_keep_their_slots_in_the_window_and_their_rank_in_the_bank() -> None:
    memories = bank(3, [0], list(range(7)))
    window = dict(POLICIES["fifo"](memories, SIZE).attend)
    assert window == {0: 6, 1: 5, 2: 4, 3: 3, 4: 2, 5: 1, 6: 0}
    pruned = dict(POLICIES["efp-window"](memories, SIZE).attend)
    assert len(pruned) == 5 and pruned.items() < window.items()
    assert [slot for _, slot in POLICIES["efp"](memories, SIZE).attend] == [6, 3, 2, 1, 0]


def test_equal_memories_leave_oldest_first() -> None:
    one = torch.ones(8, 3, 3)
    memories = [Memory(s, Remembered(one), torch.zeros(4), s == 0) for s in range(6)]
    assert POLICIES["efp"](memories, SIZE) == Choice((0, 2, 3, 4, 5), ((0, 6), (2, 3), (3, 2), (4, 1), (5, 0)))


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'efp-window'"):
        get_policy("efp_window")
