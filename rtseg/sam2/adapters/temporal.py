"""Attention to the frame before (MediViSTA, arXiv 2309.13539): every cell looks at all cells of the newest memory."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..presets import Preset
from .base import Adapter, Past, zero

WIDTH = 32


class Temporal(Adapter):
    """One head of attention, WIDTH wide, from this frame to the newest memory."""

    source = "MediViSTA, arXiv 2309.13539"

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.query = nn.Conv2d(preset.dim, WIDTH, kernel_size=1)
        self.key = nn.Conv2d(preset.memory_dim, WIDTH, kernel_size=1)
        self.value = nn.Conv2d(preset.memory_dim, WIDTH, kernel_size=1)
        self.up = zero(nn.Conv2d(WIDTH, preset.dim, kernel_size=1))

    def attended(self, conditioned_bdhw: Tensor, past: Past) -> Tensor:
        before_bmhw = past.maps_btmhw[:, 0]
        maps = (self.query(conditioned_bdhw), self.key(before_bmhw), self.value(before_bmhw))
        query_bnr, key_bnr, value_bnr = (x.flatten(2).transpose(1, 2) for x in maps)
        found_bnr = F.scaled_dot_product_attention(query_bnr, key_bnr, value_bnr)
        out: Tensor = conditioned_bdhw + self.up(found_bnr.transpose(1, 2).unflatten(2, conditioned_bdhw.shape[2:]))
        return out
