"""Policies that pin a few memories for the long term, and attend to the latest memories as well.

A pinned memory is treated as a conditioning one: it stays, and it is attended to with the slot that stands for no
particular time. It takes the place of a recent memory, so that attention reads no more than with `fifo`. Memories
pinned before the latest prompt are released: that prompt may have been meant to correct them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from .registry import register_policy
from .values import MAX_CONDITIONING, BankSize, Choice, Memory, PolicyFunction
from .window import only, recent, similarity

# Thresholds are those of each paper's public settings; scores are probabilities, IoUs predicted.
CREDIBLE_SCORE, CREDIBLE_IOU, CREDIBLE_RUN = 0.9, 0.7, 5  # ReSurgSAM2: its credible initial frame
LONG_IOU, LONG_POOL, LONG_TERM = 0.95, 5, 3  # ReSurgSAM2: its long-term memory
ANCHORS, ANCHOR_IOU, ANCHOR_AREA, ANCHOR_RIVAL, ANCHOR_GAP = 3, 0.8, 0.2, 0.7, 5  # DAM4SAM: its distractor memory
RECENT_EVERY = 5  # steps; DAM4SAM: its memory of recent appearances


@dataclass(frozen=True, slots=True)
class Pins:
    """Indices of memories: those that are `pinned`, the one that is pinned `new`ly, and the `candidates` that have to
    stay in the bank to be judged later.
    """

    pinned: tuple[int, ...]
    new: tuple[int, ...] = ()
    candidates: tuple[int, ...] = ()


PinRule = Callable[[Sequence[Memory]], Pins]


def _full(pins: int) -> Callable[[BankSize], int]:
    """With this many pins: they take the place of others in the window, but not of the prompted and the newest one."""
    return lambda size: max(size.window, 1 + pins + 1)


def _most(pins: int) -> Callable[[BankSize], int]:
    return lambda size: MAX_CONDITIONING + max(size.window - 1, pins + 1)


@register_policy("anchor", full_bank=_full(1), most=_most(1))
def anchor(memories: Sequence[Memory], size: BankSize) -> Choice:
    """After a prompt, the best of the first five credible frames in a row is pinned, until the next prompt.

    Credible: object score above 0.9 and predicted IoU above 0.7; the best has the highest predicted IoU. This is
    ReSurgSAM2's choice of a first frame (arXiv 2505.08581). There it replaces the prompted frame, here it is added to
    it: what a click or a box meant is known better a few frames later.
    """
    return with_pins(_first_credible, recent)(memories, size)


@register_policy("diverse", full_bank=_full(LONG_TERM), most=_most(LONG_TERM), needs_similarity=True)
def diverse(memories: Sequence[Memory], size: BankSize) -> Choice:
    """Of every five frames with a predicted IoU above 0.95, the one least similar to the last pin is pinned.

    ReSurgSAM2's long-term memory (arXiv 2505.08581): three are pinned, and the first is compared with the prompted
    frame. There the three are added to SAM 2's seven memories, and similarity is taken along the rows of a map; here
    there are seven in all, and it is `similarity`.
    """
    return with_pins(_long_term, recent)(memories, size)


@register_policy("distractor", full_bank=_full(ANCHORS), most=_most(ANCHORS), needs_rivals=True)
def distractor(memories: Sequence[Memory], size: BankSize) -> Choice:
    """Frames with a good mask on which a losing mask shows something else are pinned, the latest three.

    DAM4SAM (arXiv 2411.17576): predicted IoU above 0.8, an area within 20% of the median, more than 5 steps after the
    last pin, and a rival (`MaskQuality.rival_overlap` of at most 0.7). Beside the pins: the newest memory, and those
    of every fifth step on which the object is visible. There the median is over the last ten masks, here over those in
    the bank. The losing masks are decoded for this policy alone, so its steps are slower.
    """
    return with_pins(_distractors, only(_recent_appearance, recent))(memories, size)


def with_pins(rule: PinRule, policy: PolicyFunction) -> PolicyFunction:
    """`policy`, to which pinned memories look like conditioning ones; the newest memory stays what it is."""

    def choose(memories: Sequence[Memory], size: BankSize) -> Choice:
        pins, last = rule(memories), len(memories) - 1
        pinned = {*pins.pinned} - {last}
        shown = [replace(m, conditioning=True) if i in pinned else m for i, m in enumerate(memories)]
        choice = policy(shown, size)
        return Choice(tuple(sorted({*choice.keep, *pins.candidates})), choice.attend, (*choice.pin, *pins.new))

    return choose


def _first_credible(memories: Sequence[Memory]) -> Pins:
    pinned = _pinned(memories)
    if pinned:
        return Pins((pinned[0],))
    run: list[int] = []
    for i in range(len(memories) - 1, _latest_prompt(memories), -1):
        quality = memories[i].quality
        if quality.score <= CREDIBLE_SCORE or quality.iou <= CREDIBLE_IOU:
            break
        run.append(i)
    if len(run) < CREDIBLE_RUN:
        return Pins((), candidates=tuple(run))
    best = max(run, key=lambda i: (memories[i].quality.iou, -i))
    return Pins((best,), new=(best,))


def _long_term(memories: Sequence[Memory]) -> Pins:
    pinned, first = _pinned(memories), _latest_prompt(memories)
    since = max((_pinned_at(memories[i]) for i in pinned), default=memories[first].step)
    candidates = [
        i for i in range(first + 1, len(memories))
        if memories[i].step > since and memories[i].visible and memories[i].quality.iou > LONG_IOU
    ]  # fmt: skip
    if len(candidates) < LONG_POOL:
        return Pins(tuple(pinned[-LONG_TERM:]), candidates=tuple(candidates))
    last = memories[pinned[-1] if pinned else first]
    best = candidates[int(similarity([memories[i] for i in candidates], last).argmin())]
    return _with_new(pinned, best, LONG_TERM, memories)


def _distractors(memories: Sequence[Memory]) -> Pins:
    pinned, newest = _pinned(memories), memories[-1]
    quality = newest.quality
    areas = [m.quality.area for m in memories if m.visible and m.quality.area]
    waited = not pinned or newest.step - max(_pinned_at(memories[i]) for i in pinned) > ANCHOR_GAP
    good = waited and newest.visible and not newest.conditioning and quality.iou > ANCHOR_IOU and quality.area > 0
    same_size = good and abs(quality.area / median(areas) - 1) <= ANCHOR_AREA
    if not same_size or quality.rival_overlap > ANCHOR_RIVAL:
        return Pins(tuple(pinned[-ANCHORS:]))
    return _with_new(pinned, len(memories) - 1, ANCHORS, memories)


def _with_new(pinned: Sequence[int], new: int, most: int, memories: Sequence[Memory]) -> Pins:
    """One more pin, `most` in all; the newest memory stays anyway, and so replaces no other pin yet."""
    pinned = pinned if new == len(memories) - 1 else (*pinned, new)
    return Pins(tuple(pinned[-most:]), new=(new,))


def _recent_appearance(memory: Memory) -> bool:
    return memory.visible and memory.step % RECENT_EVERY == 0


def _latest_prompt(memories: Sequence[Memory]) -> int:
    """Index of the latest conditioning memory."""
    return max((i for i, m in enumerate(memories) if m.conditioning), default=0)


def _pinned(memories: Sequence[Memory]) -> list[int]:
    """Indices of the memories pinned since the latest prompt, oldest first."""
    first = _latest_prompt(memories)
    return [i for i, m in enumerate(memories) if i > first and m.pinned_at is not None]


def _pinned_at(memory: Memory) -> int:
    return -1 if memory.pinned_at is None else memory.pinned_at
