"""EdgeTAM's 2D spatial perceiver (arXiv 2501.07256): a memory of as many latents whatever the size of the image.

Attribute names are those of the published checkpoint.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import attention, sine_2d
from .presets import Preset


class FeedForward(nn.Sequential):
    """Norm and two linear layers, added to the input."""

    def __init__(self, dim: int) -> None:
        super().__init__(
            nn.LayerNorm(dim), nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class _Projections(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)


class LatentsRead(_Projections):
    """Latents [b, l, M] read cells [b, n, M], whose position [n, M] is in their keys and in their values."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm_x, self.norm_latents = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, latents_blm: Tensor, cells_bnm: Tensor, position_nm: Tensor | None) -> Tensor:
        q = self.to_q(self.norm_latents(latents_blm))
        k, v = self.to_kv(self.norm_x(cells_bnm)).chunk(2, dim=-1)
        if position_nm is not None:
            k, v = k + position_nm, v + position_nm
        out: Tensor = latents_blm + self.to_out(attention(q[:, None], k[:, None], v[:, None])[:, 0])
        return out


class LatentsTalk(_Projections):
    """Self-attention of the latents [b, l, M]."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, latents_blm: Tensor) -> Tensor:
        x = self.norm(latents_blm)
        k, v = self.to_kv(x).chunk(2, dim=-1)
        if latents_blm.shape[1] > 1:  # a latent that is alone attends to itself
            v = attention(self.to_q(x)[:, None], k[:, None], v[:, None])[:, 0]
        out: Tensor = latents_blm + self.to_out(v)
        return out


class PerceiverLayer(nn.Module):
    """Latents read the cells, and then one another."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attn, self.ff = LatentsRead(dim), FeedForward(dim)
        self.self_attn, self.self_ff = LatentsTalk(dim), FeedForward(dim)

    def forward(self, latents_blm: Tensor, cells_bnm: Tensor, position_nm: Tensor | None) -> Tensor:
        latents = self.ff(self.attn(latents_blm, cells_bnm, position_nm))
        out: Tensor = self.self_ff(self.self_attn(latents))
        return out


class Perceiver(nn.Module):
    """A memory map [b, M, g, g] to latents [b, M, 2p, p].

    The first p rows are the global latents, which read the whole map: their order means nothing but which latent it is.
    The last p rows are one latent for each of p x p windows of the map, in the order of the windows.
    """

    position: Tensor

    def __init__(self, preset: Preset, grid: int) -> None:
        super().__init__()
        dim, self.side = preset.memory_dim, preset.perceiver
        self.latents = nn.Parameter(torch.randn(self.side**2, dim))
        self.latents_2d = nn.Parameter(torch.randn(self.side**2, dim))
        self.layers = nn.ModuleList(PerceiverLayer(dim) for _ in range(2))
        self.norm = nn.LayerNorm(dim)
        self.register_buffer("position", sine_2d(dim, grid).flatten(2)[0].T.contiguous(), persistent=False)

    def forward(self, memory_bmhw: Tensor) -> Tensor:
        b, m, g, _ = memory_bmhw.shape
        p = self.side
        everywhere = self.latents.expand(b, -1, -1)
        windows = self.latents_2d.expand(b, -1, -1).reshape(b * p * p, 1, m)
        cells_bnm = memory_bmhw.flatten(2).transpose(1, 2)
        cells_of_windows = F.pixel_unshuffle(memory_bmhw, g // p).flatten(2)  # [b, M * w, p * p], w cells of a window
        cells_of_windows = cells_of_windows.unflatten(1, (m, -1)).permute(0, 3, 2, 1).flatten(0, 1)
        for layer in self.layers:
            everywhere = layer(everywhere, cells_bnm, self.position)
            windows = layer(windows, cells_of_windows, None)
        latents = self.norm(torch.cat((everywhere, windows.view(b, p * p, m)), dim=1))
        out: Tensor = latents.transpose(1, 2).unflatten(2, (2 * p, p))
        return out
