"""Which memories an object keeps, and which it looks at: pure functions, one name each.

A policy sees a bank right after the newest memory has entered it, and answers for the next frame. Conditioning
memories (frames that a person prompted) and the newest one always stay.

    fifo        SAM 2's own: the conditioning memories and those of the last six frames
    efp-window  Surgical SAM 2's public code: of these, the ones most like the newest are not looked at
    efp         Surgical SAM 2's paper (arXiv 2408.07931): the one most like the newest leaves the bank for good
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..engine import Remembered
from ..errors import ConfigError, did_you_mean


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """One frame of one object: what the engine wrote of it, its pointer [D], and the tracker's step it is from.

    `seq` is the frame's own number, by which `Bank.before` knows what was later.
    """

    step: int
    written: Remembered
    pointer_c: Tensor
    conditioning: bool
    seq: int = -1

    @property
    def map_chw(self) -> Tensor:
        """[M, g, g]; what policies compare."""
        return self.written.map_chw


@dataclass(frozen=True, slots=True)
class Size:
    """`window`: memories that SAM 2 was trained to look at (7); `spatial`: how many of them a pruned bank keeps."""

    window: int = 7
    spatial: int = 5


@dataclass(frozen=True, slots=True)
class Choice:
    """`keep`: indices of the memories that stay. `attend`: (index, slot) of those that the next frame looks at.

    A slot is a row of the temporal position table: `window - 1` for a conditioning memory, else 0 for one frame
    ago, 1 for two, and so on.
    """

    keep: tuple[int, ...]
    attend: tuple[tuple[int, int], ...]


Policy = Callable[[Sequence[Memory], Size], Choice]


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
    keep = [i for i in range(len(memories)) if i not in dropped]
    ranked = [i for i in reversed(keep) if not memories[i].conditioning]
    # The table has rows for `window - 1` ranks; what lies deeper than that shares the last one.
    slots = {i: min(rank, size.window - 2) for rank, i in enumerate(ranked)}
    return Choice(tuple(keep), tuple((i, slots.get(i, size.window - 1)) for i in keep))


POLICIES: dict[str, Policy] = {"fifo": fifo, "efp-window": efp_window, "efp": efp}


def get_policy(name: str) -> Policy:
    """The policy of this name; `ConfigError` that names the nearest one if there is none."""
    if name not in POLICIES:
        raise ConfigError(f"memory policy {name!r}: no such policy; {did_you_mean(name, POLICIES)}")
    return POLICIES[name]


def similarity(maps_tchw: Tensor, newest_chw: Tensor) -> Tensor:
    """How much each memory is like the newest, [t]: cosine over the channels of each cell, then the mean over cells."""
    return F.cosine_similarity(maps_tchw.float(), newest_chw[None].float(), dim=1).mean(dim=(1, 2))


def _redundant(memories: Sequence[Memory], loose: Sequence[int], drop: int) -> frozenset[int]:
    """The `drop` of the loose memories that are most like the newest; of equals, the older."""
    if not loose or drop <= 0:
        return frozenset()
    maps_tchw = torch.stack([memories[i].map_chw for i in loose])
    order = similarity(maps_tchw, memories[-1].map_chw).argsort(descending=True, stable=True).tolist()
    return frozenset(loose[i] for i in order[:drop])
