"""Engines that keep the memories of their objects in one device buffer, and track a frame as one recorded step."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from ...base.types import ImageU8
from ...sam2 import Decoded, Recall, Remembered
from ..base import Verbs
from .copies import copies
from .pool import Pool
from .torch_engine import StaticTorchEngine


class PooledEngine(StaticTorchEngine):
    """`track` as one step that reads memories in place, by the numbers of their slots in the pool.

    Results are copies, because the next frame overwrites the buffers; memories are views of their slots. A frame that
    the step does not accept goes through the verbs.
    """

    _pool: Pool

    def track(self, image_hwc: ImageU8, recalls: Sequence[Recall]) -> tuple[Decoded, list[Remembered]]:
        """As in `Engine`. The host waits for the device only on the first frame of a new size."""
        with self._call():
            slots = self._pool_slots(recalls) if self._step_takes(recalls) else None
            if slots is None:
                return Verbs.track(self, image_hwc, recalls)
            own, memories = self._pool.fresh(len(recalls))
            answers = self._run_step(image_hwc, recalls, slots, own)
            return Decoded(*copies(answers)), self._pool.written(own, memories)

    def _pool_slots(self, recalls: Sequence[Recall]) -> list[list[int]] | None:
        """The slots of each object's memories; memories from elsewhere are copied in. None: the pool is full."""
        slots: list[list[int]] = []
        for recall in recalls:
            found = [self._slot(memory) for memory in recall.memories]
            known = [slot for slot in found if slot is not None]
            if len(known) < len(found):
                return None
            slots.append(known)
        return slots

    def _slot(self, memory: Remembered) -> int | None:
        slot = self._pool.slot_of(memory)
        return self._pool.take_in(memory, self._keys_of(memory)) if slot is None else slot

    @abstractmethod
    def _keys_of(self, memory: Remembered) -> Tensor:
        """A memory's keys [L, n, D] in the type of the pool."""

    @abstractmethod
    def _step_takes(self, recalls: Sequence[Recall]) -> bool:
        """Whether the step has room for these objects, their memories and pointers."""

    @abstractmethod
    def _run_step(
        self, image_hwc: ImageU8, recalls: Sequence[Recall], slots: Sequence[Sequence[int]], own: Sequence[int]
    ) -> Sequence[Tensor]:
        """Run the step: logits, IoU, score and pointer, valid until the next step; new memories go to slots `own`."""
