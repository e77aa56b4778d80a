"""Policies without pins, which keep the latest memories, the least redundant ones, or those of confident frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...base.types import Float32
from ..arrays import cosine_similarity, namespace
from .registry import register_policy
from .values import MAX_CONDITIONING, BankSize, Choice, Memory, PolicyFunction

CONFIDENT_IOU = 0.5  # predicted IoU; SAMURAI's threshold for its mask affinity
ALWAYS_KEPT = 2  # the prompted memory and the newest one, so that a smaller `spatial` changes nothing


@register_policy("fifo", compared=True)
def fifo(memories: Sequence[Memory], size: BankSize) -> Choice:
    """The conditioning memories and those of the last `window - 1` frames; the slot is the distance in frames."""
    newest = memories[-1].step
    attend = []
    for i, m in enumerate(memories):
        if m.conditioning:
            attend.append((i, size.window - 1))
        elif newest - m.step < size.window - 1:
            attend.append((i, newest - m.step))
    return Choice(tuple(i for i, _ in attend), tuple(attend))


def _efp_window_full(size: BankSize) -> int:
    return min(size.window, max(ALWAYS_KEPT, size.spatial))


def _efp_window_warning(size: BankSize) -> str:
    if size.spatial >= size.window or size.window <= ALWAYS_KEPT:
        expected = f"spatial from 3 to {size.window - 1}, or policy 'fifo'" if size.window > 3 else "policy 'fifo'"
        return f"it prunes nothing and is 'fifo'; expected {expected}"
    return _too_few(size)


@register_policy(
    "efp-window", full_bank=_efp_window_full, needs_similarity=True, compared=True, warning=_efp_window_warning
)
def efp_window(memories: Sequence[Memory], size: BankSize) -> Choice:
    """Like `fifo`, but the next frame attends to at most `spatial` of the last frames' memories and the prompted one.

    The most redundant are left out, at most `window - spatial` of them. The others keep their slots, and all memories
    stay in the bank. With one prompt this is Surgical SAM 2's public code for SAM 2.1; that for SAM 2 leaves nothing
    out before the window is full, which is one frame later. Of several prompted memories, that code protects the first
    alone.
    """
    choice = fifo(memories, size)
    candidates = [i for i, _ in choice.attend[:-1] if not memories[i].conditioning]
    dropped = _redundant(memories, candidates, min(len(choice.attend), size.window) - size.spatial)
    return Choice(choice.keep, tuple((i, slot) for i, slot in choice.attend if i not in dropped))


def _efp_full(size: BankSize) -> int:
    return max(ALWAYS_KEPT, size.spatial)


def _efp_most(size: BankSize) -> int:
    return max(size.spatial, MAX_CONDITIONING + 1)


def _too_few(size: BankSize) -> str:
    if size.spatial > ALWAYS_KEPT:
        return ""
    return "it keeps the prompted memories and the newest, and compares none; expected spatial of 3 or more"


@register_policy("efp", full_bank=_efp_full, most=_efp_most, needs_similarity=True, compared=True, warning=_too_few)
def efp(memories: Sequence[Memory], size: BankSize) -> Choice:
    """At most `spatial` memories, including the conditioning ones and the newest, which always stay.

    The most redundant of the others leave the bank. The slot is the rank among those not prompted, newest first.
    """
    candidates = [i for i, m in enumerate(memories[:-1]) if not m.conditioning]
    dropped = _redundant(memories, candidates, max(0, len(memories) - size.spatial))
    return _ranked(memories, [i for i in range(len(memories)) if i not in dropped], size)


def recent(memories: Sequence[Memory], size: BankSize) -> Choice:
    """The conditioning memories and the latest others, at least the newest: `window` in all. The slot is the rank.

    With one prompt, and a memory of every frame, it equals `fifo`. If memories are missing it reaches further back, as
    SAM 2's successors do; and conditioning memories replace others instead of adding to them.
    """
    tracked = [i for i, m in enumerate(memories) if not m.conditioning]
    free = size.window - (len(memories) - len(tracked))
    latest = {*tracked[-free:]} if free > 0 else {len(memories) - 1}
    return _ranked(memories, [i for i, m in enumerate(memories) if m.conditioning or i in latest], size)


def _confident_warning(size: BankSize) -> str:
    return "" if size.window > ALWAYS_KEPT else "with a window of 2 it attends to the newest alone and is 'fifo'"


@register_policy("confident", warning=_confident_warning)
def confident(memories: Sequence[Memory], size: BankSize) -> Choice:
    """`recent` among the memories of confident frames: object visible, predicted IoU above `CONFIDENT_IOU`.

    SAMURAI's memory selection (arXiv 2411.11922, equation 7) without its motion score. As there and in SAM 3, the next
    frame attends to the newest memory, confident or not: it says where the object was last, or that it is gone. A
    memory of a frame that was not confident leaves after that.
    """
    return only(is_confident, recent)(memories, size)


@register_policy("efp-confident", full_bank=_efp_full, most=_efp_most, needs_similarity=True, warning=_too_few)
def efp_confident(memories: Sequence[Memory], size: BankSize) -> Choice:
    """`efp` among the memories of confident frames, so that pruning does not keep mistakes."""
    return only(is_confident, efp)(memories, size)


def is_confident(memory: Memory) -> bool:
    """Whether the network is confident of its mask: object visible, predicted IoU above `CONFIDENT_IOU`."""
    return memory.visible and memory.quality.iou > CONFIDENT_IOU


def only(wanted: Callable[[Memory], bool], policy: PolicyFunction) -> PolicyFunction:
    """A policy that applies `policy` to the wanted memories, the conditioning ones and the newest. All others leave."""

    def filtered(memories: Sequence[Memory], size: BankSize) -> Choice:
        last = len(memories) - 1
        shown = [i for i, m in enumerate(memories) if m.conditioning or i == last or wanted(m)]
        choice = policy([memories[i] for i in shown], size)
        attend = tuple((shown[i], slot) for i, slot in choice.attend)
        return Choice(tuple(shown[i] for i in choice.keep), attend, tuple(shown[i] for i in choice.pin))

    return filtered


def similarity(memories: Sequence[Memory], reference: Memory) -> Float32:
    """The similarity of each memory with `reference`, [t]: the cosine over the channels of each cell, averaged.

    It uses values measured beforehand, if there are any: each memory is compared on arrival with those in the bank.
    """
    known = [_measured(m, reference) for m in memories]
    if None not in known:
        return np.array(known, np.float32)
    return cosine_similarity(namespace(reference.map_chw).stack([m.map_chw for m in memories]), reference.map_chw)


def _measured(one: Memory, other: Memory) -> float | None:
    older, younger = sorted((one, other), key=lambda m: m.step)
    return None if younger.similarities is None else younger.similarities.get(older.step)


def _ranked(memories: Sequence[Memory], keep: Sequence[int], size: BankSize) -> Choice:
    """Keep these memories and attend to all of them. The slot is the rank among those not prompted, newest first."""
    tracked = [i for i in reversed(keep) if not memories[i].conditioning]
    # The table has rows for `window - 1` ranks; higher ranks share the last row.
    slots = {i: min(rank, size.window - 2) for rank, i in enumerate(tracked)}
    return Choice(tuple(keep), tuple((i, slots.get(i, size.window - 1)) for i in keep))


def _redundant(memories: Sequence[Memory], candidates: Sequence[int], drop: int) -> frozenset[int]:
    """The `drop` candidates that are most similar to the newest memory; of equal ones, the older."""
    if not candidates or drop <= 0:
        return frozenset()
    similarity_t = similarity([memories[i] for i in candidates], memories[-1])
    return frozenset(candidates[i] for i in np.argsort(-similarity_t, kind="stable")[:drop])
