"""What every engine with a fixed-shape step does alike: which prompts take the step, and which the plain network.

The engine of a runtime says how its step attends and decodes. It works in numpy or in torch; nothing here needs torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from ...sam2 import Array, Decoded, Features, PromptBatch, Recall
from ..arrays import namespace
from ..base import Verbs

SPARE = (
    3  # memories of an object that an engine has memory for beside those that attention reads: the new, and a fork's
)


def is_prompted(prompts: PromptBatch) -> bool:
    """Whether anything was prompted: a point, a box, an earlier mask, or a mask that is the answer."""
    return bool(prompts.points_bpc.shape[1]) or prompts.mask_b1hw is not None or prompts.answer_b1hw is not None


class StaticEngine(Verbs, ABC):
    """`attend` and `decode` of an engine whose tracked step has fixed shapes.

    b objects share one image; features of one image for each object are left to `_attend_plainly` and
    `_decode_prompted`.
    """

    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Array:
        """As in `Engine`: objects with memories by the step, those without by `_fresh`, merged in order."""
        with self._call():
            known = [recall for recall in recalls if recall is not None]
            if not self._takes(features, known):
                return self._attend_plainly(features, recalls)
            attended_bdhw = self._attend_known(features, known) if known else None
            if attended_bdhw is not None and len(known) == len(recalls):
                return attended_bdhw
            fresh_dhw = self._fresh(features)[0]
            rows = iter(()) if attended_bdhw is None else iter(attended_bdhw)
            return namespace(fresh_dhw).stack([fresh_dhw if recall is None else next(rows) for recall in recalls])

    def decode(self, conditioned_bchw: Array, features: Features, prompts: PromptBatch) -> Decoded:
        """As in `Engine`: the step decodes where nothing is prompted, the plain network where something is."""
        with self._call():
            if is_prompted(prompts) or len(features.top) > 1:
                return self._decode_prompted(conditioned_bchw, features, prompts)
            return self._decode_tracked(conditioned_bchw, features)

    def _call(self) -> AbstractContextManager[object]:
        """What holds while a verb runs: an engine whose threads share buffers takes turns here."""
        return nullcontext()

    def _takes(self, features: Features, known: Sequence[Recall]) -> bool:
        """Whether the step can attend for objects with these memories."""
        return len(features.top) == 1

    def _attend_plainly(self, features: Features, recalls: Sequence[Recall | None]) -> Array:
        """`attend` of what the step does not take."""
        raise NotImplementedError

    @abstractmethod
    def _attend_known(self, features: Features, recalls: Sequence[Recall]) -> Array:
        """The step's attention: features conditioned on each object's memories, [b, D, g, g]."""

    @abstractmethod
    def _fresh(self, features: Features) -> Array:
        """The features of an object without memories, [1, D, g, g]."""

    @abstractmethod
    def _decode_tracked(self, conditioned_bchw: Array, features: Features) -> Decoded:
        """The step's decoder, which no prompt enters."""

    @abstractmethod
    def _decode_prompted(self, conditioned_bchw: Array, features: Features, prompts: PromptBatch) -> Decoded:
        """The plain network's decoder."""
