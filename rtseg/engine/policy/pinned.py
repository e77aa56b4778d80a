"""Policies that pin a few memories for the long term, and attend to the latest memories as well.

A pinned memory is treated as a conditioning one: it stays, and attention uses it with the slot that stands for no
particular time. It replaces a recent memory, so that attention reads no more than with `fifo`. A new prompt releases
the memories pinned before, because it may correct a mistake in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from .registry import register_policy
from .values import MAX_CONDITIONING, BankSize, Choice, Memory, PolicyFunction
from .window import only, recent, similarity

# Thresholds of each paper's public settings; scores are probabilities, IoUs are predicted ones.
CREDIBLE_SCORE, CREDIBLE_IOU, CREDIBLE_RUN = 0.9, 0.7, 5  # ReSurgSAM2: its credible initial frame
LONG_IOU, LONG_POOL, LONG_TERM = 0.95, 5, 3  # ReSurgSAM2: its long-term memory
ANCHORS, ANCHOR_IOU, ANCHOR_AREA, ANCHOR_RIVAL, ANCHOR_GAP = 3, 0.8, 0.2, 0.7, 5  # DAM4SAM: its distractor memory
RECENT_EVERY = 5  # steps; DAM4SAM: its memory of recent appearances


@dataclass(frozen=True, slots=True)
class Pins:
    """Indices of memories: `pinned` are pinned, `new` is pinned from now on, and `candidates` have to stay in the bank
    because they may be pinned later.
    """

    pinned: tuple[int, ...]
    new: tuple[int, ...] = ()
    candidates: tuple[int, ...] = ()


PinRule = Callable[[Sequence[Memory]], Pins]


def _full(pins: int) -> Callable[[BankSize], int]:
    """`full_bank` with this many pins: they replace memories of the window, but not the prompted and the newest one."""
    return lambda size: max(size.window, 1 + pins + 1)


def _most(pins: int) -> Callable[[BankSize], int]:
    return lambda size: MAX_CONDITIONING + max(size.window - 1, pins + 1)


@register_policy("anchor", full_bank=_full(1), most=_most(1))
def anchor(memories: Sequence[Memory], size: BankSize) -> Choice:
    """Pins the best of the first five credible frames in a row after a prompt, until the next prompt.

    A frame is credible with an object score above 0.9 and a predicted IoU above 0.7; the best has the highest predicted
    IoU. This is ReSurgSAM2's choice of a first frame (arXiv 2505.08581). There it replaces the prompted frame; here it
    is kept beside it. A few frames later the network knows better what a click or a box meant.
    """
    return with_pins(_first_credible, recent)(memories, size)


@register_policy("diverse", full_bank=_full(LONG_TERM), most=_most(LONG_TERM), needs_similarity=True)
def diverse(memories: Sequence[Memory], size: BankSize) -> Choice:
    """Pins, of every five frames with a predicted IoU above 0.95, the one least similar to the last pin.

    ReSurgSAM2's long-term memory (arXiv 2505.08581): three frames are pinned, and the first is compared with the
    prompted frame. There the three are added to SAM 2's seven memories, and the cosine is taken along the rows of a
    map; here there are seven in all, and the cosine is that of `similarity`.
    """
    return with_pins(_long_term, recent)(memories, size)


@register_policy("distractor", full_bank=_full(ANCHORS), most=_most(ANCHORS), needs_rivals=True)
def distractor(memories: Sequence[Memory], size: BankSize) -> Choice:
    """Pins the latest three frames with a good mask on which a rival mask shows something else.

    DAM4SAM (arXiv 2411.17576): predicted IoU above 0.8, an area within 20% of the median, more than 5 steps after the
    last pin, and a rival (`MaskQuality.rival_overlap` of at most 0.7). Beside the pins it keeps the newest memory, and
    those of every fifth step if the object is visible there. DAM4SAM takes the median over the last ten masks; here it
    is over those in the bank. Only this policy needs rival masks to be decoded, so its steps are slower.
    """
    return with_pins(_distractors, only(_recent_appearance, recent))(memories, size)


def with_pins(rule: PinRule, policy: PolicyFunction) -> PolicyFunction:
    """A policy that shows `policy` the memories that `rule` pins, except the newest, as conditioning ones."""

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
    """One more pin, with at most `most` in all. A new pin that is the newest memory replaces no other pin yet, because
    the newest stays anyway.
    """
    pinned = pinned if new == len(memories) - 1 else (*pinned, new)
    return Pins(tuple(pinned[-most:]), new=(new,))


def _recent_appearance(memory: Memory) -> bool:
    return memory.visible and memory.step % RECENT_EVERY == 0


def _latest_prompt(memories: Sequence[Memory]) -> int:
    """The index of the latest conditioning memory."""
    return max((i for i, m in enumerate(memories) if m.conditioning), default=0)


def _pinned(memories: Sequence[Memory]) -> list[int]:
    """The indices of the memories pinned since the latest prompt, oldest first."""
    first = _latest_prompt(memories)
    return [i for i, m in enumerate(memories) if i > first and m.pinned_at is not None]


def _pinned_at(memory: Memory) -> int:
    return -1 if memory.pinned_at is None else memory.pinned_at
