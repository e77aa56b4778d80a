"""What a memory bank holds, and what left it, for people who want to see why a mask is as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..engine.arrays import on_host
from ..engine.policy import MAX_CONDITIONING, Memory, similarity


@dataclass(frozen=True, slots=True)
class Held:
    """A memory in the bank: of frame `seq`; prompted (`conditioning`) or `pinned`; with the network's object score and
    predicted IoU there, and its similarity to the newest memory of the bank.
    """

    seq: int
    conditioning: bool
    pinned: bool
    score: float
    iou: float
    similarity: float


@dataclass(frozen=True, slots=True)
class Dropped:
    """A memory of frame `seq` that has left the bank, and why."""

    seq: int
    why: str


@dataclass(frozen=True, slots=True)
class BankReport:
    """The memories of one object, oldest first; those that left last, newest first; its number of pointers."""

    memories: tuple[Held, ...]
    dropped: tuple[Dropped, ...]
    pointers: int

    def plain(self) -> dict[str, Any]:
        """For the wire."""
        return asdict(self)


def held(memories: Sequence[Memory]) -> tuple[Held, ...]:
    """What a bank holds."""
    if not memories:
        return ()
    alike = similarity(memories, memories[-1])
    return tuple(
        Held(m.seq, m.conditioning, m.pinned_at is not None, m.quality.score, m.quality.iou, float(one))
        for m, one in zip(memories, alike, strict=True)
    )


def dropped(gone: Memory, newest: Memory, policy: object) -> Dropped:
    """Why a memory leaves when `newest` is added. Its similarity is not computed on a GPU for this alone."""
    if gone.conditioning:
        return Dropped(gone.seq, f"{MAX_CONDITIONING} other frames are prompted")
    why = f"{getattr(policy, 'name', 'the policy')} left it out for frame {newest.seq}"
    known = on_host(gone.map_chw) or (newest.similarities or {}).get(gone.step) is not None
    if getattr(policy, "needs_similarity", False) and known and gone is not newest:
        why += f": its similarity is {similarity([gone], newest)[0]:.2f}"
    return Dropped(gone.seq, why)
