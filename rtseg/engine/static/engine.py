"""Common to all engines with a fixed-shape step: which prompts take the step, and which the plain network.

The engine of a runtime implements the step, in numpy or in torch; this file does not need torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from ...sam2 import Array, Decoded, Features, Preset, PromptBatch, Recall
from ..arrays import namespace
from ..base import Verbs

SPARE = 3  # slots of an object beyond the memories that attention reads: for the new memory, and for those of a fork


def is_prompted(prompts: PromptBatch) -> bool:
    """Whether anything is prompted: a point, a box, an earlier mask, or a mask that is itself the answer."""
    return bool(prompts.points_bpc.shape[1]) or prompts.mask_b1hw is not None or prompts.answer_b1hw is not None


class StaticEngine(Verbs, ABC):
    """`attend` and `decode` of an engine whose tracked step has fixed shapes.

    b objects share one image; features of one image for each object are left to `_attend_plainly` and
    `_decode_prompted`.
    """

    preset: Preset

    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Array:
        """As in `Engine`. The step serves objects with memories, `_fresh` those without; the order is kept."""
        with self._call():
            known = [recall for recall in recalls if recall is not None]
            if not self._takes(features, known):
                return self._attend_plainly(features, recalls)
            attended_bdhw = self._attend_known(features, known) if known else None
            if known and self.preset.match_dim:
                attended_bdhw = self._matched(attended_bdhw, features, known)
            if attended_bdhw is not None and len(known) == len(recalls):
                return attended_bdhw
            fresh_dhw = self._fresh(features)[0]
            rows = iter(()) if attended_bdhw is None else iter(attended_bdhw)
            return namespace(fresh_dhw).stack([fresh_dhw if recall is None else next(rows) for recall in recalls])

    def decode(self, conditioned_bchw: Array, features: Features, prompts: PromptBatch) -> Decoded:
        """As in `Engine`. The step decodes if nothing is prompted, otherwise the plain network does."""
        with self._call():
            if is_prompted(prompts) or len(features.top) > 1:
                return self._decode_prompted(conditioned_bchw, features, prompts)
            return self._decode_tracked(conditioned_bchw, features)

    def _call(self) -> AbstractContextManager[object]:
        """A context around each verb: an engine whose threads share buffers takes its lock here."""
        return nullcontext()

    def _takes(self, features: Features, known: Sequence[Recall]) -> bool:
        """Whether the step can attend for objects with these memories."""
        return len(features.top) == 1

    def _attend_plainly(self, features: Features, recalls: Sequence[Recall | None]) -> Array:
        """`attend` for inputs that the step does not accept."""
        raise NotImplementedError

    @abstractmethod
    def _attend_known(self, features: Features, recalls: Sequence[Recall]) -> Array:
        """The step's attention: features conditioned on each object's memories, [b, D, g, g]."""

    def _matched(self, attended_bdhw: Array, features: Features, recalls: Sequence[Recall]) -> Array:
        """With the comparison of a network with `Match` added, unless `_attend_known` has added it."""
        return attended_bdhw

    @abstractmethod
    def _fresh(self, features: Features) -> Array:
        """The features of an object without memories, [1, D, g, g]."""

    @abstractmethod
    def _decode_tracked(self, conditioned_bchw: Array, features: Features) -> Decoded:
        """The step's decoder, which takes no prompts."""

    @abstractmethod
    def _decode_prompted(self, conditioned_bchw: Array, features: Features, prompts: PromptBatch) -> Decoded:
        """The plain network's decoder."""
