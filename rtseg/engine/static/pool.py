"""The memories of an engine: slots of one device buffer, which graphs read and write by slot number.

A step gathers what each object recalls and writes the new memory into a free slot; nothing is copied. To the caller a
memory is a value: `Remembered` with views of its slot. The slot is free again when the last reference to the memory's
`map_chw` is dropped. A view of that tensor does not count, and must not outlive it.

A slot that the host frees may still be read by work that is queued on the device. Only work that is
queued later on the same stream writes it again, so the order is kept. If a caller changes streams, the engine makes the
new one wait for the old. Using two streams at once would not be safe.

Slot 0 is all zeros; it is read where an object has fewer memories than slots (masked values must be finite). The next
slots, one for each object, are scratch: a step writes there if no slot is free, and the memory is then copied out. The
first of them also holds the noise for checking a graph.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from ...sam2 import Preset, Remembered
from .copies import copies, copy_all

BLANK, SCRATCH = 0, 1


class Pool:
    """Keys `keys_slnd` [slots, L, n, D] in the type of the products, and values `values_snm` [slots, n, M] in fp32.

    Values are fp32, because policies compare them and the verbs return fp32.
    """

    def __init__(
        self, preset: Preset, grid: int, objects: int, kept: int, products: torch.dtype, device: torch.device
    ) -> None:
        """`kept`: how many memories may be kept at once without a copy."""
        slots, p, n = 1 + objects + kept, preset, preset.memory_tokens(grid)
        self._shape = p.memory_shape(grid)
        self.keys_slnd = torch.zeros(slots, p.attention_layers, n, p.dim, dtype=products, device=device)
        self.values_snm = torch.zeros(slots, n, p.memory_dim, device=device)
        self._storage = self.values_snm.untyped_storage()._cdata
        self._free = deque(range(slots - kept, slots))
        self._guests: dict[int, int] = {}  # slots of memories from elsewhere, by the identity of their map

    @property
    def free(self) -> int:
        """How many slots are free."""
        return len(self._free)

    def fresh(self, objects: int) -> tuple[list[int], list[Remembered | None]]:
        """For each object a slot to write to, and its future memory (None: `written` copies it out)."""
        slots, memories = [], []
        for i in range(objects):
            slot = self._take()
            memory = None if slot is None else self.view(slot)
            if memory is not None and slot is not None:
                self._until_dropped(memory, slot)
            slots.append(SCRATCH + i if slot is None else slot)
            memories.append(memory)
        return slots, memories

    def written(self, slots: Sequence[int], memories: Sequence[Remembered | None]) -> list[Remembered]:
        """The memories that a step wrote to these slots; copies of those in scratch slots."""
        lacking = [slot for slot, memory in zip(slots, memories, strict=True) if memory is None]
        values = copies([self.values_snm[slot] for slot in lacking])
        keys = copies([self.keys_slnd[slot] for slot in lacking])
        copied = iter([self._remembered(v, k) for v, k in zip(values, keys, strict=True)])
        return [next(copied) if memory is None else memory for memory in memories]

    def slot_of(self, memory: Remembered) -> int | None:
        """The slot of a memory; None if it is not in this pool."""
        map_chw: Tensor = memory.map_chw
        if map_chw.untyped_storage()._cdata == self._storage:
            return map_chw.storage_offset() // self.values_snm[0].numel()
        return self._guests.get(id(map_chw))

    def take_in(self, memory: Remembered, keys_lnd: Tensor) -> int | None:
        """Copy a memory from elsewhere into a slot, for as long as it exists. None: no slot is free."""
        slot, map_chw = self._take(), memory.map_chw
        if slot is None:
            return None
        self.values_snm[slot].copy_(map_chw.flatten(1).T)
        self.keys_slnd[slot].copy_(keys_lnd)
        self._guests[id(map_chw)] = slot
        weakref.finalize(map_chw, forget, self._guests, self._free, id(map_chw)).atexit = False
        return slot

    def write(self, slots_b: Tensor, tokens_bnm: Tensor, keys_blnd: Tensor) -> None:
        """Write new memories into these slots, whose numbers are a tensor on the device."""
        self.values_snm.index_copy_(0, slots_b, tokens_bnm.float())
        self.keys_slnd.index_copy_(0, slots_b, keys_blnd.to(self.keys_slnd.dtype))

    def put(self, tokens_bnm: Tensor, keys_blnd: Tensor) -> list[Remembered]:
        """Store new memories in free slots; those that find none are copies outside the pool."""
        slots, memories = self.fresh(len(tokens_bnm))
        pairs = [(self.values_snm[slot], tokens) for slot, tokens in zip(slots, tokens_bnm, strict=True)]
        copy_all(pairs + [(self.keys_slnd[slot], keys) for slot, keys in zip(slots, keys_blnd, strict=True)])
        return self.written(slots, memories)

    def view(self, slot: int) -> Remembered:
        """The memory in a slot, as views."""
        return self._remembered(self.values_snm[slot], self.keys_slnd[slot])

    def _remembered(self, values_nm: Tensor, keys_lnd: Tensor) -> Remembered:
        return Remembered(values_nm.T.unflatten(1, self._shape), keys_lnd)

    def _take(self) -> int | None:
        try:
            return self._free.popleft()
        except IndexError:
            return None

    def _until_dropped(self, memory: Remembered, slot: int) -> None:
        # Runs in the thread that drops it last; appending to a deque needs no lock.
        weakref.finalize(memory.map_chw, self._free.append, slot).atexit = False


def forget(guests: dict[int, int], free: deque[int], identity: int) -> None:
    """Free the slot of a memory from elsewhere that no longer exists."""
    free.append(guests.pop(identity))
