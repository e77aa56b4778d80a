"""A fixed-shape engine in torch: inputs that the step does not accept go through the plain network."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ...sam2 import Decoded, Features, PromptBatch, Recall
from ..reference import TorchEngine
from .engine import StaticEngine


class StaticTorchEngine(StaticEngine, TorchEngine):
    """`StaticEngine` whose prompted frames are those of `TorchEngine`, with the same weights on the same device."""

    def _call(self) -> AbstractContextManager[object]:
        return torch.inference_mode()

    def _attend_plainly(self, features: Features, recalls: Sequence[Recall | None]) -> Tensor:
        return TorchEngine.attend(self, features, recalls)

    def _matched(self, attended_bdhw: Tensor, features: Features, recalls: Sequence[Recall]) -> Tensor:
        with self._exact():
            return self._network.matched(attended_bdhw, features, recalls)

    def _fresh(self, features: Features) -> Tensor:
        fresh_1dhw: Tensor = features.top + self._network.no_mem_embed.view(1, -1, 1, 1)
        return fresh_1dhw

    def _decode_prompted(self, conditioned_bchw: Tensor, features: Features, prompts: PromptBatch) -> Decoded:
        return TorchEngine.decode(self, conditioned_bchw, features, prompts)
