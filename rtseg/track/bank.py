"""The memory of one object, bounded by construction: what a policy drops is freed, not skipped."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from ..engine import Array, Recall
from ..engine.arrays import namespace
from ..engine.policy import Choice, Memory, Policy, Size
from ..engine.recipe import CONDITIONING


class Bank:
    """Conditioning memories, spatial memories chosen by a policy, and the pointers of recent frames.

    Holds at most `CONDITIONING` prompted frames, what the policy keeps beside them, and `pointers` - 1 pointers of
    tracked frames (a conditioning memory brings its own, which stays as long as it does).
    """

    def __init__(self, policy: Policy, size: Size, pointers: int = 16) -> None:
        self._policy, self._size = policy, size
        self._memories: list[Memory] = []
        self._choice = Choice((), ())
        self._pointers = pointers
        self._recent: deque[tuple[int, int, Array]] = deque(maxlen=max(0, pointers - 1))  # seq, step, pointer

    def __len__(self) -> int:
        """Spatial memories held, conditioning ones included."""
        return len(self._memories)

    @property
    def memories(self) -> tuple[Memory, ...]:
        """Oldest first."""
        return tuple(self._memories)

    def add(self, memory: Memory) -> None:
        """Take in the memory of the newest frame, and drop what the policy no longer wants."""
        memories = [*self._memories, memory]
        prompted = [m for m in memories if m.conditioning]
        if len(prompted) > CONDITIONING:
            memories = [m for m in memories if m is not prompted[1]]
        self._keep(memories)
        if not memory.conditioning:
            self._recent.append((memory.seq, memory.step, memory.pointer_c))

    def before(self, seq: int) -> Bank:
        """A bank of its own, with what this one still holds of the frames before `seq`."""
        bank = Bank(self._policy, self._size, self._pointers)
        bank._recent.extend(recent for recent in self._recent if recent[0] < seq)
        memories = [m for m in self._memories if m.seq < seq]
        if memories:
            # What was only decided later is not known there.
            last = memories[-1].step
            bank._keep([replace(m, held_at=None) if (m.held_at or 0) > last else m for m in memories])
        return bank

    def _keep(self, memories: list[Memory]) -> None:
        """Ask the policy, and keep what it wants of these, oldest first."""
        choice = self._policy(memories, self._size)
        now, place = memories[-1].step, {old: new for new, old in enumerate(choice.keep)}
        self._memories = [replace(memories[i], held_at=now) if i in choice.hold else memories[i] for i in choice.keep]
        self._choice = Choice(tuple(place.values()), tuple((place[i], slot) for i, slot in choice.attend))

    def recall(self, now: int) -> Recall:
        """What attention sees at step `now`, which is later than every memory."""
        (recall,) = recalls([self], now)
        assert recall is not None
        return recall

    def _looked_at(self, now: int) -> tuple[list[Memory], list[tuple[int, Array]]]:
        """The memories that are attended to at a step, and the pointers with the steps that they are from."""
        prompted = [(m.step, m.pointer_c) for m in self._memories if m.conditioning]
        reach = self._recent.maxlen or 0
        pointers = prompted + [(step, p) for _, step, p in reversed(self._recent) if now - step <= reach]
        return [self._memories[i] for i, _ in self._choice.attend], pointers


def recalls(banks: Sequence[Bank], now: int) -> list[Recall | None]:
    """What attention sees of each bank at step `now`; None of an empty one.

    The pointers of all are laid out together: on a GPU that is one launch, before which the step cannot begin.
    """
    seen = [bank._looked_at(now) if len(bank) else None for bank in banks]
    found = [one for one in seen if one is not None]
    if not found:
        return [None] * len(banks)
    newest_c = found[0][0][-1].pointer_c
    all_c = [pointer_c for _, pointers in found for _, pointer_c in pointers]
    pointers_pc = namespace(newest_c).stack(all_c) if all_c else newest_c[None][:0]
    out: list[Recall | None] = []
    end = 0
    for bank, one in zip(banks, seen, strict=True):
        if one is None:
            out.append(None)
            continue
        attended, pointers = one
        begin, end = end, end + len(pointers)
        slots = tuple(slot for _, slot in bank._choice.attend)
        ages = tuple(now - step for step, _ in pointers)
        out.append(Recall([m.written for m in attended], slots, pointers_pc[begin:end], ages))
    return out
