"""A bottleneck with space-depth transposition (Medical SAM Adapter, arXiv 2304.12620).

In the paper each adapter has two branches over a stack of slices: one looks along space, the other along depth, by the
same layers on transposed axes. Here depth is time: this frame and the memories of the latest ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..presets import Preset
from .base import Adapter, Past, zero

WIDTH = 32


class Bottleneck(Adapter):
    """Down to WIDTH channels, mixed along space and along time, and up again."""

    source = "Medical SAM Adapter, arXiv 2304.12620"

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.down = nn.Conv2d(preset.dim, WIDTH, kernel_size=1)
        self.past = nn.Conv2d(preset.memory_dim, WIDTH, kernel_size=1)
        self.space = nn.Conv2d(WIDTH, WIDTH, kernel_size=3, padding=1, groups=WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.up = zero(nn.Conv2d(WIDTH, preset.dim, kernel_size=1))

    def attended(self, conditioned_bdhw: Tensor, past: Past) -> Tensor:
        now_brhw = self.down(conditioned_bdhw)
        before_brthw = self.past(past.maps_btmhw.flatten(0, 1)).unflatten(0, past.maps_btmhw.shape[:2]).transpose(1, 2)
        mixed_brhw = self.space(now_brhw) + self._depth(torch.cat((now_brhw[:, :, None], before_brthw), 2))
        out: Tensor = conditioned_bdhw + self.up(nn.functional.gelu(now_brhw + mixed_brhw))
        return out

    def _depth(self, stack_brthw: Tensor) -> Tensor:
        """Attention of each cell of this frame to the same cell at all times."""
        cells_bhwtr = stack_brthw.permute(0, 3, 4, 2, 1)
        query_bhw1r = self.query(cells_bhwtr[:, :, :, :1])
        weights_bhw1t = (query_bhw1r @ self.key(cells_bhwtr).transpose(-2, -1) * WIDTH**-0.5).softmax(-1)
        out: Tensor = (weights_bhw1t @ self.value(cells_bhwtr))[:, :, :, 0].permute(0, 3, 1, 2)
        return out
