"""Layers that several components share: norms, MLP, attention, and the three position encodings."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of an [n, c, h, w] map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x_nchw: Tensor) -> Tensor:
        return super().forward(x_nchw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Mlp(nn.Module):
    """Linear layers with an activation between; `sizes` are the widths from input to output."""

    def __init__(self, *sizes: int, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer(x))
        out: Tensor = last(x)
        return out


class _ExplicitAttention(torch.autograd.Function):
    """Attention with its weights kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (q * q.shape[-1] ** -0.5).contiguous(), k.contiguous(), v.contiguous()
        weights = torch.softmax(q @ k.transpose(-2, -1), -1)
        ctx.save_for_backward(q, k, v, weights)
        return weights @ v

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, weights = ctx.saved_tensors
        grad = grad.contiguous()
        scores_grad = torch._softmax_backward_data(grad @ v.transpose(-2, -1), weights, -1, weights.dtype)
        q_grad, k_grad = (scores_grad @ k) * q.shape[-1] ** -0.5, scores_grad.transpose(-2, -1) @ q
        return q_grad, k_grad, weights.transpose(-2, -1) @ grad


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(c)) v of [b, heads, n, c] queries and [b, heads, m, c] keys and values.

    For training on a CPU it is computed explicitly: torch's own kernel converts bfloat16 to float32 there, and takes 2
    to 4 times as long.
    """
    if mask is None and q.device.type == "cpu" and torch.is_grad_enabled() and q.requires_grad:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else q.dtype
        out: Tensor = _ExplicitAttention.apply(q.to(dtype), k.to(dtype), v.to(dtype))
        return out
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Attention(nn.Module):
    """Multi-head attention with its own inner width, as in SAM's two-way decoder."""

    def __init__(self, dim: int, heads: int, inner: int | None = None, kv_dim: int | None = None) -> None:
        super().__init__()
        inner, kv_dim = inner or dim, kv_dim or dim
        self.heads = heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(kv_dim, inner)
        self.v_proj = nn.Linear(kv_dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def split(self, x_bnc: Tensor) -> Tensor:
        """[b, n, c] to [b, heads, n, c / heads]."""
        return x_bnc.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def forward(self, q_bnc: Tensor, k_bnc: Tensor, v_bnc: Tensor) -> Tensor:
        q, k, v = self.split(self.q_proj(q_bnc)), self.split(self.k_proj(k_bnc)), self.split(self.v_proj(v_bnc))
        out: Tensor = self.out_proj(attention(q, k, v).transpose(1, 2).flatten(2))
        return out


def uploaded(x: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on a device. To a GPU it goes through pinned memory, which torch reuses: the host does not wait."""
    device = torch.device(device)
    if device.type != "cuda" or x.device == device:
        return x.to(device)
    if not x.numel():
        return torch.empty_like(x, device=device)
    return (x if x.is_cuda else x.pin_memory()).to(device, non_blocking=True)


def sine_2d(channels: int, side: int, temperature: float = 10000.0) -> Tensor:
    """DETR's sine encoding of the positions in a square map, [1, channels, side, side]; rows first, then columns."""
    half = channels // 2
    steps = torch.arange(1, side + 1, dtype=torch.float32) / (side + 1e-6) * 2 * math.pi
    period = temperature ** (2 * (torch.arange(half) // 2).float() / half)
    angle = steps[:, None] / period
    code = torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)  # [side, half]
    rows = code.T[:, :, None].expand(half, side, side)
    cols = code.T[:, None, :].expand(half, side, side)
    return torch.cat((rows, cols))[None]


def sine_1d(positions: Tensor, channels: int, temperature: float = 10000.0) -> Tensor:
    """Sine encoding of scalar positions [n], as [n, channels]: all sines, then all cosines."""
    half = channels // 2
    period = temperature ** (2 * (torch.arange(half, device=positions.device) // 2).float() / half)
    angle = positions[:, None] / period
    return torch.cat((angle.sin(), angle.cos()), dim=1)


def rope_tables(channels: int, side: int, theta: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines of axial RoPE on a square map, each [side * side, channels].

    Channel pairs (2i, 2i+1) rotate together: the first half of them by column, the second half by row. The
    sine table already holds the sign that the pair swap needs, so rotating is two products and a sum.
    """
    frequency = theta ** -(torch.arange(0, channels, 4).float() / channels)
    cell = torch.arange(side * side)
    columns, rows = (cell % side).float(), (cell // side).float()
    angle = torch.cat((torch.outer(columns, frequency), torch.outer(rows, frequency)), dim=1)
    cos = angle.cos().repeat_interleave(2, dim=1)
    sin = torch.stack((-angle.sin(), angle.sin()), dim=2).flatten(1)
    return cos, sin


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply RoPE to [..., n, c] with tables [n, c], in real arithmetic."""
    swapped = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return x * cos + swapped * sin
