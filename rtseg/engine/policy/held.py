"""Policies that hold on to a few memories, and look at the latest ones beside these.

A held memory is treated as a conditioning one: it stays, and it is attended to with the slot that stands for no time
in particular. It takes the place of a recent memory, so that attention has no more to read than with `fifo`. What was
held before a person's latest prompt is let go: it is what that prompt may have been meant to correct.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import cv2
import numpy as np

from ...base.types import BoolMask, Float32
from .values import Choice, Memory, Policy, Size
from .window import only, recent, similarity

# Thresholds are those of each paper's public settings; scores are probabilities, IoUs predicted.
CREDIBLE_SCORE, CREDIBLE_IOU, CREDIBLE_RUN = 0.9, 0.7, 5  # ReSurgSAM2: its credible initial frame
LONG_IOU, LONG_POOL, LONG_TERM = 0.95, 5, 3  # ReSurgSAM2: its long-term memory
ANCHORS, ANCHOR_IOU, ANCHOR_AREA, ANCHOR_RIVAL, ANCHOR_GAP = 3, 0.8, 0.2, 0.7, 5  # DAM4SAM: its distractor memory
RECENT_EVERY = 5  # steps; DAM4SAM: its memory of recent appearances


@dataclass(frozen=True, slots=True)
class Hold:
    """Indices of the memories to hold, of the one that is `new`, and of those that have to stay to be judged later."""

    held: tuple[int, ...]
    new: tuple[int, ...] = ()
    pool: tuple[int, ...] = ()


Rule = Callable[[Sequence[Memory]], Hold]


def anchor(memories: Sequence[Memory], size: Size) -> Choice:
    """After a prompt, the best frame of the first five in a row that are credible is held, until the next prompt.

    Credible: object score above 0.9 and predicted IoU above 0.7; the best has the highest predicted IoU. It is
    ReSurgSAM2's choice of a first frame (arXiv 2505.08581), which there takes the place of a prompt and here stands
    beside it: what a click or a box meant is known better a few frames later.
    """
    return holding(_first_credible, recent)(memories, size)


def diverse(memories: Sequence[Memory], size: Size) -> Choice:
    """Of every five frames whose predicted IoU is above 0.95, the one least like what was held last is held; three are.

    ReSurgSAM2's long-term memory (arXiv 2505.08581); the first is compared with the prompted frame. There the three
    come on top of SAM 2's seven, and similarity is taken along the rows of a map; here seven are all, and it is
    `similarity`.
    """
    return holding(_long_term, recent)(memories, size)


def distractor(memories: Sequence[Memory], size: Size) -> Choice:
    """Frames on which the mask is good and one that lost would have taken something else are held, the latest three.

    DAM4SAM (arXiv 2411.17576): predicted IoU above 0.8, an area within 20% of the median, more than 5 steps since the
    last one, and a box that overlaps by at most 0.7 with the box of it and its rival (`rivalry`). Beside them: the
    newest, and the latest memories of every fifth step on which the object is visible. There the median is over the
    last ten masks; here it is over those in the bank. The losing masks are drawn for it alone: its steps are slower.
    """
    return holding(_distractors, only(_recent_appearance, recent))(memories, size)


def holding(rule: Rule, policy: Policy) -> Policy:
    """`policy`, to which what `rule` holds looks like conditioning memories; but the newest stays what it is."""

    def choose(memories: Sequence[Memory], size: Size) -> Choice:
        hold, last = rule(memories), len(memories) - 1
        held = {*hold.held} - {last}
        shown = [replace(m, conditioning=True) if i in held else m for i, m in enumerate(memories)]
        choice = policy(shown, size)
        return Choice(tuple(sorted({*choice.keep, *hold.pool})), choice.attend, (*choice.hold, *hold.new))

    return choose


def rivalry(logits_hw: Float32, rivals_khw: Float32) -> tuple[int, float]:
    """Area of a mask in pixels, and how much its box overlaps with the box of it and its strongest rival together.

    A rival is the largest connected part of a mask that lost, outside of this one; the strongest leaves the smallest
    overlap of boxes. 1 where there is none.
    """
    mask_hw = logits_hw > 0
    overlap = 1.0
    for beside_hw in (rivals_khw > 0) & ~mask_hw:
        parts, labels_hw, stats, _ = cv2.connectedComponentsWithStats(beside_hw.astype(np.uint8))
        if parts > 1 and mask_hw.any():
            largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
            # The one box lies within the other.
            overlap = min(overlap, _box_area(mask_hw) / _box_area(mask_hw | (labels_hw == largest)))
    return int(np.count_nonzero(mask_hw)), overlap


def _box_area(mask_hw: BoolMask) -> int:
    _, _, width, height = cv2.boundingRect(mask_hw.astype(np.uint8))
    return int(width * height)


def _first_credible(memories: Sequence[Memory]) -> Hold:
    held = _held(memories)
    if held:
        return Hold((held[0],))
    run: list[int] = []
    for i in range(len(memories) - 1, _prompted(memories), -1):
        verdict = memories[i].verdict
        if verdict.score <= CREDIBLE_SCORE or verdict.iou <= CREDIBLE_IOU:
            break
        run.append(i)
    if len(run) < CREDIBLE_RUN:
        return Hold((), pool=tuple(run))
    best = max(run, key=lambda i: (memories[i].verdict.iou, -i))
    return Hold((best,), new=(best,))


def _long_term(memories: Sequence[Memory]) -> Hold:
    held, first = _held(memories), _prompted(memories)
    since = max((_held_at(memories[i]) for i in held), default=memories[first].step)
    pool = [
        i for i in range(first + 1, len(memories))
        if memories[i].step > since and memories[i].visible and memories[i].verdict.iou > LONG_IOU
    ]  # fmt: skip
    if len(pool) < LONG_POOL:
        return Hold(tuple(held[-LONG_TERM:]), pool=tuple(pool))
    last = memories[held[-1] if held else first]
    best = pool[int(similarity([memories[i] for i in pool], last).argmin())]
    return _with(held, best, LONG_TERM, memories)


def _distractors(memories: Sequence[Memory]) -> Hold:
    held, newest = _held(memories), memories[-1]
    verdict = newest.verdict
    areas = [m.verdict.area for m in memories if m.visible and m.verdict.area]
    waited = not held or newest.step - max(_held_at(memories[i]) for i in held) > ANCHOR_GAP
    good = waited and newest.visible and not newest.conditioning and verdict.iou > ANCHOR_IOU and verdict.area > 0
    steady = good and abs(verdict.area / median(areas) - 1) <= ANCHOR_AREA
    if not steady or verdict.rival > ANCHOR_RIVAL:
        return Hold(tuple(held[-ANCHORS:]))
    return _with(held, len(memories) - 1, ANCHORS, memories)


def _with(held: Sequence[int], new: int, most: int, memories: Sequence[Memory]) -> Hold:
    """Hold one more, `most` in all; but the newest, which stays anyway, drives nobody out yet."""
    held = held if new == len(memories) - 1 else (*held, new)
    return Hold(tuple(held[-most:]), new=(new,))


def _recent_appearance(memory: Memory) -> bool:
    return memory.visible and memory.step % RECENT_EVERY == 0


def _prompted(memories: Sequence[Memory]) -> int:
    """The latest frame that a person prompted."""
    return max((i for i, m in enumerate(memories) if m.conditioning), default=0)


def _held(memories: Sequence[Memory]) -> list[int]:
    """What is held, but for what was there before the latest prompt; oldest first."""
    first = _prompted(memories)
    return [i for i, m in enumerate(memories) if i > first and m.held_at is not None]


def _held_at(memory: Memory) -> int:
    return -1 if memory.held_at is None else memory.held_at
