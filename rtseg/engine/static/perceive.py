"""The perceiver that makes a memory of few tokens, in fewer products than the plain network, and as exact.

- The cells are projected once for both halves: global latents read all of them, a window's latent its own. They are in
  the order of the windows from the start, so that a window's cells lie side by side.
- The values are projected through the output: a latent adds what it reads.
- Both halves share norms and MLPs: one product for all latents.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...sam2.perceiver import Perceiver
from .parts import Attention, Linear, Mlp, copied, linear, norm_of


def by_window(cells_bnm: Tensor, grid: int, side: int) -> Tensor:
    """Cells [b, grid * grid, M] in the order of side x side windows."""
    width, m = grid // side, int(cells_bnm.shape[2])
    windows = cells_bnm.view(-1, side, width, side, width, m).transpose(2, 3)
    return windows.reshape(-1, grid * grid, m)


def unbiased(weight: Tensor) -> Linear:
    """A layer whose bias is 0: kernels expect one."""
    return linear(weight, torch.zeros(len(weight)))


class FeedForward(nn.Module):
    """x + MLP(norm(x))."""

    def __init__(self, ff: Any) -> None:
        super().__init__()
        self.norm, self.mlp = norm_of(ff[0]), Mlp(unbiased(ff[1].weight), unbiased(ff[3].weight), "gelu")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.mlp(self.norm(x))
        return out


class PerceiveLayer(nn.Module):
    """Global latents and those of windows, [b, l + p * p, M], read cells [b, n, M]; then the global ones each other."""

    code: Tensor

    def __init__(self, layer: Any, position_nm: Tensor, globals_: int, attention: Attention) -> None:
        super().__init__()
        read, talk, self.globals_, self.attention = layer.attn, layer.self_attn, globals_, attention
        k, v = read.to_kv.weight.chunk(2)
        own_k, own_v = talk.to_kv.weight.chunk(2)
        self.norm_x, self.norm_latents, self.norm = map(norm_of, (read.norm_x, read.norm_latents, talk.norm))
        self.q, self.kv = unbiased(read.to_q.weight), unbiased(torch.cat((k, _through(read.to_out, v))))
        self.own_qk = unbiased(torch.cat((talk.to_q.weight, own_k)))
        self.own_v = unbiased(_through(talk.to_out, own_v))
        self.ff, self.own_ff = FeedForward(layer.ff), FeedForward(layer.self_ff)
        # What a position adds to the keys, and through the output to the values, which only global latents see.
        self.register_buffer("code", torch.cat((position_nm, position_nm @ read.to_out.weight.T), dim=1).detach())

    def forward(self, latents_blm: Tensor, cells_bnm: Tensor) -> Tensor:
        x, n = latents_blm, self.globals_
        m = int(cells_bnm.shape[2])
        kv = self.kv(self.norm_x(cells_bnm))
        q = self.q(self.norm_latents(x))
        k, v = (kv + self.code).split(m, dim=2)
        everything = self.attention(q[:, None, :n].to(k.dtype), k[:, None], v[:, None])[:, 0]
        windows = self.windows(q[:, n:], kv)
        x = self.ff(x + torch.cat((everything.to(x.dtype), windows.to(x.dtype)), dim=1)).to(x.dtype)
        y = self.norm(x)
        own_q, own_k = self.own_qk(y[:, :n]).split(m, dim=2)
        own_v = self.own_v(y)
        talked = self.attention(own_q[:, None], own_k[:, None], own_v[:, None, :n])[:, 0]
        x = x + torch.cat((talked.to(x.dtype), own_v[:, n:].to(x.dtype)), dim=1)
        out: Tensor = self.own_ff(x)
        return out

    def windows(self, q_bwm: Tensor, kv_bn2m: Tensor) -> Tensor:
        """Attention of one query to the cells of its window: too small for a product, and sums fuse."""
        windows, m = int(q_bwm.shape[1]), int(q_bwm.shape[2])
        k, v = kv_bn2m.reshape(-1, windows, int(kv_bn2m.shape[1]) // windows, 2 * m).float().split(m, dim=3)
        scores = (k * q_bwm[:, :, None].float()).sum(dim=3, keepdim=True) * m**-0.5
        return (scores.softmax(dim=2) * v).sum(dim=2)


class Perceive(nn.Module):
    """Cells [b, grid * grid, M] of a memory to latents [b, n, M]: the global ones, then one for each window."""

    latents: Tensor

    def __init__(self, net: Perceiver, attention: Attention) -> None:
        super().__init__()
        self.side, self.grid = net.side, round(len(net.position) ** 0.5)
        self.register_buffer("latents", torch.cat((net.latents, net.latents_2d)).detach()[None].clone())
        position_nm = by_window(net.position[None], self.grid, self.side)[0]
        layers: Any = net.layers
        self.layers = nn.ModuleList(PerceiveLayer(layer, position_nm, len(net.latents), attention) for layer in layers)
        self.norm = norm_of(net.norm)

    def forward(self, cells_bnm: Tensor) -> Tensor:
        cells = by_window(cells_bnm, self.grid, self.side).to(self.latents.dtype)
        x = self.latents.expand(cells.shape[0], -1, -1)
        for layer in self.layers:
            x = layer(x, cells).to(self.latents.dtype)
        out: Tensor = self.norm(x).float()
        return out


def _through(out: nn.Linear, weight: Tensor) -> Tensor:
    """The weight of a projection and the output layer after it, as one."""
    return (copied(out).weight.double() @ weight.double()).float()
