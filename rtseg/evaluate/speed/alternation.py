"""Engines take turns in blocks of frames until every ratio is precise enough, or time is up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from .budget import Budget, Deadline
from .statistics import median_interval, medians, ratios

TIGHT = 0.03  # half the relative width of a ratio's 95% interval that is precise enough
BLOCK_MS = 600.0  # length of a block, if there is time for all
# Frames after a change of engines that do not count, because caches hold the other's data; and their ms at most.
SETTLE, SETTLE_MS = 2, 250.0


class Timed(Protocol):
    """A runner that takes turns: its blocks so far, in ms of each frame, and the expected time of a frame."""

    @property
    def blocks_ms(self) -> Sequence[Sequence[float]]: ...
    @property
    def step_ms(self) -> float: ...
    def block(self, frames: int) -> None: ...


def settling(step_ms: float) -> int:
    """How many frames to skip at the start of a block. Fewer for long steps, which fill the caches sooner."""
    return min(SETTLE, int(SETTLE_MS / max(step_ms, 1e-6)))


def take_turns(
    runners: Sequence[Timed], pairs: Sequence[tuple[Timed, Timed]],
    budget: Budget, deadline: Deadline, frames: int, rounds: int, most: float = math.inf,
) -> None:  # fmt: skip
    """Time a block of each runner in turn, round after round, so that noise affects them alike.

    It ends when each has `frames` frames in `rounds` blocks or more, and the ratio of each pair is known to 3%; after
    `most` rounds; or when time is up. A slow engine's blocks last as long as a fast one's. The first round is always
    complete.
    """
    share_ms = deadline.left_ms / (rounds * len(runners))
    sizes = [block_frames(r.step_ms, share_ms, -(-frames // rounds)) for r in runners]
    needed = rounds * sum((n + settling(r.step_ms)) * r.step_ms for n, r in zip(sizes, runners, strict=True)) / 1e3
    done = 0
    while done < most and not enough(runners, pairs, frames, rounds):
        budget.say(_state(done, pairs), needed * max(0.2, 1 - done / rounds))
        for runner, size in zip(runners, sizes, strict=True):
            if done and deadline.left_ms < size * runner.step_ms:
                return
            runner.block(size)
        done += 1


def block_frames(step_ms: float, share_ms: float, most: int) -> int:
    """The number of frames of a block that takes no longer than its share of the time; at least one."""
    whole = int(min(BLOCK_MS, share_ms) / max(step_ms, 1e-6)) - settling(step_ms)
    return max(1, min(most, whole))


def enough(runners: Sequence[Timed], pairs: Sequence[tuple[Timed, Timed]], frames: int, rounds: int) -> bool:
    """Whether all runners have enough frames, and all ratios are precise enough."""
    counts = all(len(r.blocks_ms) >= rounds and sum(map(len, r.blocks_ms)) >= frames for r in runners)
    return counts and uncertainty(pairs) <= TIGHT


def uncertainty(pairs: Sequence[tuple[Timed, Timed]]) -> float:
    """Half the widest interval among the ratios of these pairs, relative; 0 without pairs."""
    known = [median_interval(ratios(medians(a.blocks_ms), medians(b.blocks_ms))) for a, b in pairs]
    return max((math.log(found[1] / found[0]) / 2 if found else math.inf for found in known), default=0.0)


def _state(done: int, pairs: Sequence[tuple[Timed, Timed]]) -> str:
    known = uncertainty(pairs)
    note = f"; ratios known to {known:.0%} or better" if pairs and math.isfinite(known) else ""
    return f"round {done + 1}{note}"
