"""A bottleneck whose weights are made from the prompt's embedding (Hyper-Prompting Adapter of arXiv 2304.12620).

On a prompted frame the embedding is that of its points and boxes. On a tracked frame it is the object pointer of the
first conditioning frame, which is what the network remembers of the prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..presets import Preset
from ..values import PromptBatch
from .base import Adapter, Past, zero

WIDTH, EMBEDDING = 16, 16


class PromptConditioned(Adapter):
    """WIDTH channels, mixed by a matrix [WIDTH, WIDTH] that is a linear function of the prompt's embedding."""

    source = "Medical SAM Adapter (Hyper-Prompting Adapter), arXiv 2304.12620"

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.down = nn.Conv2d(preset.dim, WIDTH, kernel_size=1)
        self.matrix = nn.Linear(EMBEDDING, WIDTH * WIDTH)
        self.up = zero(nn.Conv2d(WIDTH, preset.dim, kernel_size=1))
        self.of_pointer = nn.Linear(preset.dim, EMBEDDING)
        self.of_label = nn.Embedding(4, EMBEDDING)  # background, object, the corners of a box
        self.of_place = nn.Linear(2, EMBEDDING)

    def attended(self, conditioned_bdhw: Tensor, past: Past) -> Tensor:
        return self._adapted(conditioned_bdhw, self.of_pointer(past.pointer_bd))

    def prompted(self, conditioned_bdhw: Tensor, prompts: PromptBatch, image_size: int) -> Tensor:
        if not prompts.points_bpc.shape[1]:
            return conditioned_bdhw
        points_bpc = torch.as_tensor(prompts.points_bpc).to(conditioned_bdhw)
        labels_bp = torch.as_tensor(prompts.labels_bp).to(conditioned_bdhw.device)
        each_bpe = self.of_place(2 * points_bpc / image_size - 1).tanh() + self.of_label(labels_bp.clamp(0, 3))
        return self._adapted(conditioned_bdhw, each_bpe.mean(1))

    def _adapted(self, conditioned_bdhw: Tensor, embedding_be: Tensor) -> Tensor:
        matrix_brr = self.matrix(embedding_be).unflatten(1, (WIDTH, WIDTH))
        mixed_brn = matrix_brr @ self.down(conditioned_bdhw).flatten(2)
        mixed_brhw = nn.functional.gelu(mixed_brn).unflatten(2, conditioned_bdhw.shape[2:])
        out: Tensor = conditioned_bdhw + self.up(mixed_brhw)
        return out
