"""Policies that look at the latest memories, at the least redundant ones, or only at those of sure frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...base.types import Float32
from ..arrays import likeness, namespace
from .values import Choice, Memory, Policy, Size

SURE_IOU = 0.5  # predicted; SAMURAI's threshold of its mask affinity


def fifo(memories: Sequence[Memory], size: Size) -> Choice:
    """The conditioning memories and the last `window - 1` frames; the slot is the distance in frames."""
    newest = memories[-1].step
    attend = []
    for i, m in enumerate(memories):
        if m.conditioning:
            attend.append((i, size.window - 1))
        elif newest - m.step < size.window - 1:
            attend.append((i, newest - m.step))
    return Choice(tuple(i for i, _ in attend), tuple(attend))


def efp_window(memories: Sequence[Memory], size: Size) -> Choice:
    """As `fifo`, but once the window is full `window - spatial` of it are not looked at; survivors keep their slots."""
    choice = fifo(memories, size)
    if len(choice.attend) < size.window:
        return choice
    loose = [i for i, _ in choice.attend[:-1] if not memories[i].conditioning]
    dropped = _redundant(memories, loose, size.window - size.spatial)
    return Choice(choice.keep, tuple((i, slot) for i, slot in choice.attend if i not in dropped))


def efp(memories: Sequence[Memory], size: Size) -> Choice:
    """At most `spatial` memories, or what must stay if that is more; the slot is the rank of the loose, newest first.

    `spatial` counts the conditioning memories, and these and the newest stay.
    """
    loose = [i for i, m in enumerate(memories[:-1]) if not m.conditioning]
    dropped = _redundant(memories, loose, max(0, len(memories) - size.spatial))
    return _ranked(memories, [i for i in range(len(memories)) if i not in dropped], size)


def recent(memories: Sequence[Memory], size: Size) -> Choice:
    """The conditioning memories and the latest others, `window` in all and at least the newest; the slot is the rank.

    With one prompt, and a memory of every frame, it is `fifo`. Where memories are missing it looks back further, as
    SAM 2's successors do, and many conditioning memories take the place of others instead of coming on top.
    """
    loose = [i for i, m in enumerate(memories) if not m.conditioning]
    room = size.window - (len(memories) - len(loose))
    latest = {*loose[-room:]} if room > 0 else {len(memories) - 1}
    return _ranked(memories, [i for i, m in enumerate(memories) if m.conditioning or i in latest], size)


def confident(memories: Sequence[Memory], size: Size) -> Choice:
    """`recent` among the memories of sure frames: the object is visible, and its predicted IoU above `SURE_IOU`.

    SAMURAI's memory selection (arXiv 2411.11922, equation 7) without its motion score. The newest is looked at once,
    sure or not, as there and in SAM 3: where the object was last, or that it has gone. If unsure, it then leaves.
    """
    return only(sure, recent)(memories, size)


def efp_confident(memories: Sequence[Memory], size: Size) -> Choice:
    """`efp` among the memories that `confident` would keep, so that what is pruned for is not a mistake."""
    return only(sure, efp)(memories, size)


def sure(memory: Memory) -> bool:
    """Whether the network trusts its mask."""
    return memory.visible and memory.verdict.iou > SURE_IOU


def only(wanted: Callable[[Memory], bool], policy: Policy) -> Policy:
    """`policy`, which is shown the wanted memories, the conditioning ones and the newest; the others leave."""

    def gated(memories: Sequence[Memory], size: Size) -> Choice:
        last = len(memories) - 1
        shown = [i for i, m in enumerate(memories) if m.conditioning or i == last or wanted(m)]
        choice = policy([memories[i] for i in shown], size)
        attend = tuple((shown[i], slot) for i, slot in choice.attend)
        return Choice(tuple(shown[i] for i in choice.keep), attend, tuple(shown[i] for i in choice.hold))

    return gated


def similarity(memories: Sequence[Memory], one: Memory) -> Float32:
    """How much each memory is like that one, [t]: as it was measured, else it is now.

    Of any two in a bank the older was there when the younger entered, which was measured with all that were.
    """
    known = [_measured(m, one) for m in memories]
    if None not in known:
        return np.array(known, np.float32)
    return likeness(namespace(one.map_chw).stack([m.map_chw for m in memories]), one.map_chw)


def _measured(one: Memory, other: Memory) -> float | None:
    older, younger = sorted((one, other), key=lambda m: m.step)
    return None if younger.alike is None else younger.alike.get(older.step)


def _ranked(memories: Sequence[Memory], keep: Sequence[int], size: Size) -> Choice:
    """Keep these and look at all of them; the slot is the rank among the loose, newest first."""
    loose = [i for i in reversed(keep) if not memories[i].conditioning]
    # The table has rows for `window - 1` ranks; what lies deeper than that shares the last one.
    slots = {i: min(rank, size.window - 2) for rank, i in enumerate(loose)}
    return Choice(tuple(keep), tuple((i, slots.get(i, size.window - 1)) for i in keep))


def _redundant(memories: Sequence[Memory], loose: Sequence[int], drop: int) -> frozenset[int]:
    """The `drop` of the loose memories that are most like the newest; of equals, the older."""
    if not loose or drop <= 0:
        return frozenset()
    alike_t = similarity([memories[i] for i in loose], memories[-1])
    return frozenset(loose[i] for i in np.argsort(-alike_t, kind="stable")[:drop])
