"""The memory bank of one object. Its size is bounded: what the policy drops is freed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..engine import Array, Recall
from ..engine.arrays import namespace
from ..engine.policy import MAX_CONDITIONING, BankSize, Choice, Memory, PolicyFunction
from .bank_report import BankReport as BankReport
from .bank_report import Dropped, dropped, held

_DROPPED = 8  # memories that left the bank, of which it knows why


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What a bank will hold with one more memory; `Bank.apply` makes it so."""

    new: Memory
    memories: list[Memory]
    choice: Choice


class Bank:
    """Conditioning memories, spatial memories chosen by a policy, and the pointers of recent frames.

    It holds at most `MAX_CONDITIONING` conditioning memories, what the policy keeps beside them, and `pointers` - 1
    pointers of tracked frames. A conditioning memory has its own pointer, which stays as long as the memory.
    """

    def __init__(self, policy: PolicyFunction, size: BankSize, pointers: int = 16) -> None:
        self._policy, self._size = policy, size
        self._memories: list[Memory] = []
        self._choice = Choice((), ())
        self._pointers = pointers
        self._recent: deque[tuple[int, int, Array]] = deque(maxlen=max(0, pointers - 1))  # seq, step, pointer
        self._dropped: deque[Dropped] = deque(maxlen=_DROPPED)

    def __len__(self) -> int:
        """The number of spatial memories in the bank, conditioning ones included."""
        return len(self._memories)

    @property
    def memories(self) -> tuple[Memory, ...]:
        """The spatial memories, oldest first."""
        return tuple(self._memories)

    def report(self) -> BankReport:
        """What the bank holds, and why memories left it. On a GPU this waits for it."""
        pointers = sum(m.conditioning for m in self._memories) + len(self._recent)
        return BankReport(held(self._memories), tuple(reversed(self._dropped)), pointers)

    def add(self, memory: Memory) -> None:
        """Add the memory of the newest frame, and drop the memories that the policy does not keep."""
        self.apply(self.prepare(memory))

    def prepare(self, memory: Memory) -> Update:
        """Ask the policy what to keep when this memory is added. The bank itself does not change.

        Raises what the policy raises, and `ConfigError` if its choice is invalid.
        """
        memories = [*self._memories, memory]
        conditioning = [m for m in memories if m.conditioning]
        if len(conditioning) > MAX_CONDITIONING:
            memories = [m for m in memories if m is not conditioning[1]]
        return Update(memory, *self._selected(memories))

    def apply(self, update: Update) -> None:
        """Apply what `prepare` returned."""
        new, kept = update.new, {m.step for m in update.memories}
        self._dropped.extend(dropped(m, new, self._policy) for m in self._memories if m.step not in kept)
        self._memories, self._choice = update.memories, update.choice
        if not new.conditioning:
            self._recent.append((new.seq, new.step, new.pointer_c))

    def before(self, seq: int) -> Bank:
        """A new bank with what this one still holds of the frames before `seq`."""
        bank = Bank(self._policy, self._size, self._pointers)
        bank._recent.extend(recent for recent in self._recent if recent[0] < seq)
        bank._dropped.extend(self._dropped)
        memories = [m for m in self._memories if m.seq < seq]
        if memories:
            # A memory that was pinned after the last of these frames was not pinned then.
            last = memories[-1].step
            memories = [replace(m, pinned_at=None) if (m.pinned_at or 0) > last else m for m in memories]
            bank._memories, bank._choice = bank._selected(memories)
        return bank

    def _selected(self, memories: list[Memory]) -> tuple[list[Memory], Choice]:
        """The memories that the policy keeps, and its choice as indices into them. `memories` are oldest first."""
        choice = self._policy(memories, self._size)
        now, index = memories[-1].step, {old: new for new, old in enumerate(choice.keep)}
        kept = [replace(memories[i], pinned_at=now) if i in choice.pin else memories[i] for i in choice.keep]
        return kept, Choice(tuple(index.values()), tuple((index[i], slot) for i, slot in choice.attend))

    def recall(self, now: int) -> Recall:
        """What attention reads at step `now`, which has to be later than every memory."""
        (recall,) = recalls([self], now)
        assert recall is not None
        return recall

    def _attended(self, now: int) -> tuple[list[Memory], list[tuple[int, Array]]]:
        """The memories that are attended to at a step, and the pointers with their steps."""
        conditioning = [(m.step, m.pointer_c) for m in self._memories if m.conditioning]
        reach = self._recent.maxlen or 0
        pointers = conditioning + [(step, p) for _, step, p in reversed(self._recent) if now - step <= reach]
        return [self._memories[i] for i, _ in self._choice.attend], pointers


def recalls(banks: Sequence[Bank], now: int) -> list[Recall | None]:
    """What attention reads of each bank at step `now`; None for an empty one.

    The pointers of all banks are stacked together, in one kernel launch on a GPU, because the step waits for it.
    """
    per_bank = [bank._attended(now) if len(bank) else None for bank in banks]
    filled = [one for one in per_bank if one is not None]
    if not filled:
        return [None] * len(banks)
    newest_c = filled[0][0][-1].pointer_c
    all_c = [pointer_c for _, pointers in filled for _, pointer_c in pointers]
    pointers_pc = namespace(newest_c).stack(all_c) if all_c else newest_c[None][:0]
    out: list[Recall | None] = []
    end = 0
    for bank, one in zip(banks, per_bank, strict=True):
        if one is None:
            out.append(None)
            continue
        attended, pointers = one
        begin, end = end, end + len(pointers)
        slots = tuple(slot for _, slot in bank._choice.attend)
        ages = tuple(now - step for step, _ in pointers)
        out.append(Recall([m.written for m in attended], slots, pointers_pc[begin:end], ages))
    return out
