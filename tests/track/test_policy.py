"""The policies keep what the definition of Efficient Frame Pruning says, against a slow reading of it in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtseg.engine import Remembered
from rtseg.errors import ConfigError
from rtseg.track import POLICIES, Choice, Memory, Size, get_policy

SIZE = Size(window=7, spatial=5)


def bank(seed: int, conditioning: list[int], steps: list[int]) -> list[Memory]:
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(len(steps), 8, 3, 3)).astype(np.float32)
    return [
        Memory(s, Remembered(torch.from_numpy(m)), torch.zeros(4), s in conditioning)
        for s, m in zip(steps, maps, strict=True)
    ]


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
    if len(candidates) >= 7:
        newest = memories[-1]
        free = [m for m in memories if m.step in candidates and not m.conditioning and m is not newest]
        for m in sorted(free, key=lambda m: -slow_similarity(m, newest))[:2]:
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


def random_bank(seed: int) -> list[Memory]:
    """As a tracker may leave it: frame 0 prompted, perhaps another, then a run of recent frames."""
    rng = np.random.default_rng(seed)
    newest = int(rng.integers(0, 30))
    steps = sorted({0, *range(max(0, newest - int(rng.integers(0, 9))), newest + 1)})
    prompted = [0] + ([int(rng.choice(steps))] if rng.random() < 0.3 else [])
    return bank(seed, prompted, steps)


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
    return bank(draw(st.integers(0, 999)), sorted(prompted), steps)


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
    prompted = sum(m.conditioning for m in memories)
    limit = {"fifo": prompted + 6, "efp-window": prompted + 6, "efp": max(5, prompted + 1)}[name]
    assert len(choice.keep) <= limit


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
