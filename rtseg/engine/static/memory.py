"""Memory attention, which reads memories in their own few channels, and the encoder that writes them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...sam2 import Sam2, upsample
from ...sam2.layers import rope_tables, sine_1d, sine_2d
from ...sam2.memory import Rope, memory_cells, memory_rope
from .parts import Attention, Linear, Mlp, chained, copied, linear, norm_of, sizes
from .perceive import Perceive

Read = Callable[[int, Tensor], Tensor]
"""(layer, rotated queries [1 or b, n, D]) -> what each object's memory answers [b, n, M]."""


def paired(layer: nn.Linear) -> Linear:
    """A query or key projection whose rotated pairs (2i, 2i + 1) become (i, i + D/2)."""
    order = torch.cat((torch.arange(0, layer.out_features, 2), torch.arange(1, layer.out_features, 2)))
    return linear(layer.weight[order], layer.bias[order])


class Rotation(nn.Module):
    """Axial RoPE of [..., n, D] for pairs (i, i + D/2)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, rope: Rope) -> None:
        super().__init__()
        cos, sin = rope
        self.register_buffer("cos", torch.cat((cos[:, 0::2], cos[:, 1::2]), dim=1))
        self.register_buffer("sin", torch.cat((sin[:, 0::2], sin[:, 1::2]), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        turned: Tensor = x * self.cos + torch.cat((second, first), dim=-1) * self.sin
        return turned


class ReadLayer(nn.Module):
    """One layer of memory attention on [1 or b, n, D]; the caller determines how the memory is read."""

    def __init__(self, layer: Any, attention: Attention) -> None:
        super().__init__()
        own, cross = layer.self_attn, layer.cross_attn_image
        self.norm1, self.norm2, self.norm3 = (norm_of(n) for n in (layer.norm1, layer.norm2, layer.norm3))
        self.own_q, self.own_k, self.own_out = paired(own.q_proj), paired(own.k_proj), chained(own.v_proj, own.out_proj)
        self.q, self.out = paired(cross.q_proj), chained(cross.v_proj, cross.out_proj)
        self.mlp = Mlp(copied(layer.linear1), copied(layer.linear2), "relu")
        self.attention = attention

    def forward(self, x: Tensor, index: int, read: Read, rotate: Rotation) -> Tensor:
        y = self.norm1(x)
        q, k = rotate(self.own_q(y)), rotate(self.own_k(y))
        x = x + self.own_out(self.attention(q[:, None], k[:, None], y[:, None])[:, 0])
        x = x + self.out(read(index, rotate(self.q(self.norm2(x)))))
        out: Tensor = x + self.mlp(self.norm3(x))
        return out


class Attend(nn.Module):
    """Image features conditioned on memories: [1, D, g, g] to [b, D, g, g]."""

    position: Tensor
    fresh: Tensor
    cells: Tensor
    slots: Tensor

    def __init__(self, net: Sam2, attention: Attention) -> None:
        super().__init__()
        p, grid = net.preset, net.grid
        layers: Any = net.memory_attention.layers
        self.preset, self.attention = p, attention
        self.rotate = Rotation(rope_tables(p.dim, grid))
        self.rotate_memory = Rotation(memory_rope(p, grid)) if p.perceiver else self.rotate
        self.layers = nn.ModuleList(ReadLayer(layer, attention) for layer in layers)
        self.norm = norm_of(net.memory_attention.norm)
        self.register_buffer("position", 0.1 * sine_2d(p.dim, grid).permute(0, 2, 3, 1).flatten(1, 2))
        keys = [paired(layer.cross_attn_image.k_proj) for layer in layers]
        self.keys = linear(torch.cat([k.weight for k in keys]), torch.cat([k.bias for k in keys]))  # of all layers
        self.ages = copied(net.obj_ptr_tpos_proj) if net.obj_ptr_tpos_proj is not None else None
        self.register_buffer("fresh", net.no_mem_embed.detach().view(1, -1, 1, 1))
        cells_nd = self.keys(memory_cells(p, grid)) - self.keys.bias
        self.register_buffer("cells", cells_nd)  # [n, L * D], not yet rotated
        rows_tm = net.maskmem_tpos_enc.detach().view(p.num_maskmem, p.memory_dim)
        rows_tld = (self.keys(rows_tm) - self.keys.bias).view(p.num_maskmem, p.attention_layers, 1, p.dim)
        self.register_buffer("slots", self.rotate_memory(rows_tld))  # [num_maskmem, L, n, D]

    def keys_of(self, values_bnm: Tensor) -> Tensor:
        """The keys [b, L, n, D] of memories as tokens, without their temporal slots."""
        p, n = self.preset, int(values_bnm.shape[1])
        keys = (self.keys(values_bnm) + self.cells).reshape(-1, n, p.attention_layers, p.dim)
        turned: Tensor = self.rotate_memory(keys.transpose(1, 2))
        return turned

    def pointer_tokens(self, pointers_bpd: Tensor, ages_bp: Tensor) -> tuple[Tensor, Tensor]:
        """Values [b, s, M] and keys [b, L, s, D] of p object pointers, each split into s / p tokens."""
        p = self.preset
        values = pointers_bpd.unflatten(2, (p.pointer_tokens, p.memory_dim))
        coded = values
        if self.ages is not None:
            sine = sine_1d(ages_bp.flatten() / (p.max_pointers - 1), p.dim)
            coded = values + self.ages(sine).view(*ages_bp.shape, 1, p.memory_dim)
        keys = self.keys(coded.flatten(1, 2)).unflatten(2, (p.attention_layers, -1)).transpose(1, 2)
        return values.flatten(1, 2), keys

    def forward(self, top_1dhw: Tensor, read: Read) -> Tensor:
        x = top_1dhw.permute(0, 2, 3, 1).flatten(1, 2) + self.position
        for i, layer in enumerate(self.layers):
            x = layer(x, i, read, self.rotate)
        d, h, w = sizes(top_1dhw)
        return self.norm(x).reshape(-1, h, w, d).permute(0, 3, 1, 2)


class PaddedRead:
    """Memories in a fixed number of slots, all objects together: what one captured graph can read.

    `keys_btlnd` [b, t, L, n, D] (as `Attend.keys_of` made them), `values_btnm` [b, t, n, M], `slots_bt` rows of the
    temporal table, `present_bt` which slots are used; `pointers_bpd`, `ages_bp`, `real_bp` likewise. Unused
    slots are masked exactly, and must be finite. `whole`: all slots are used, so there is no mask, and attention may be
    of a kind that accepts none.
    """

    def __init__(
        self, attend: Attend, keys_btlnd: Tensor, values_btnm: Tensor, slots_bt: Tensor, present_bt: Tensor,
        pointers_bpd: Tensor, ages_bp: Tensor, real_bp: Tensor, whole: bool = False,
    ) -> None:  # fmt: skip
        b, _, _, n, _ = keys_btlnd.shape
        values_bsm, own_blsd = attend.pointer_tokens(pointers_bpd, ages_bp)
        maps = (keys_btlnd + attend.slots[slots_bt].to(keys_btlnd.dtype)).transpose(1, 2).flatten(2, 3)
        self.keys_blnd = torch.cat((maps, own_blsd.to(maps.dtype)), dim=2)
        self.values_b1nm = torch.cat((values_btnm.flatten(1, 2), values_bsm.to(values_btnm.dtype)), dim=1)[:, None]
        self.mask(attend, present_bt, real_bp, n, whole)
        self.attention, self.objects = attend.attention, b

    def mask(self, attend: Attend, present_bt: Tensor, real_bp: Tensor, n: int, whole: bool) -> None:
        """The attention mask of the unused slots."""
        self.bias: Tensor | None = None
        if not whole:
            split = attend.preset.pointer_tokens
            seen = (present_bt.repeat_interleave(n, dim=1), real_bp.repeat_interleave(split, dim=1))
            bias = torch.where(torch.cat(seen, dim=1), 0.0, float("-inf"))
            self.bias = bias.to(self.keys_blnd.dtype)[:, None, None]

    def __call__(self, layer: int, q_bnd: Tensor) -> Tensor:
        q = q_bnd.expand(self.objects, -1, -1)[:, None]
        answer: Tensor = self.attention(q, self.keys_blnd[:, layer, None], self.values_b1nm, self.bias)[:, 0]
        return answer


class Remember(nn.Module):
    """Masks to memories: logits [b, 1, 4g, 4g], scores [b] and which are `certain_b` to tokens [b, n, M].

    With a perceiver the tokens are its latents, else the cells of a map.
    """

    absent: Tensor

    def __init__(self, net: Sam2, attention: Attention) -> None:
        super().__init__()
        encoder: Any = net.memory_encoder
        self.size = net.image_size
        convs = [copy.deepcopy(m) for m in encoder.mask_downsampler.encoder if isinstance(m, nn.Conv2d)]
        norms = [m for m in encoder.mask_downsampler.encoder if isinstance(m, nn.LayerNorm)]
        self.convs, self.norms = nn.ModuleList(convs[:4]), nn.ModuleList(norm_of(n) for n in norms)
        self.last, self.image = copied(convs[4]), copied(encoder.pix_feat_proj)
        self.mixers = nn.ModuleList(copy.deepcopy(layer.dwconv) for layer in encoder.fuser.layers)
        self.mix_norms = nn.ModuleList(norm_of(layer.norm) for layer in encoder.fuser.layers)
        self.mlps = nn.ModuleList()
        for layer in encoder.fuser.layers:
            scaled = linear(layer.gamma[:, None] * layer.pwconv2.weight, layer.gamma * layer.pwconv2.bias)
            self.mlps.append(Mlp(copied(layer.pwconv1), scaled, "gelu"))
        self.out = copied(encoder.out_proj)
        absent = net.no_obj_embed_spatial if net.preset.no_object_in_memory else torch.zeros(1, net.preset.memory_dim)
        self.register_buffer("absent", absent.detach().clone())
        self.perceiver = None if net.spatial_perceiver is None else Perceive(net.spatial_perceiver, attention)

    def forward(self, top: Tensor, logits_b1hw: Tensor, score_b: Tensor, certain_b: Tensor) -> Tensor:
        full = upsample(logits_b1hw.float(), self.size)
        full = torch.where(certain_b[:, None, None, None], torch.where(full > 0, 100.0, -100.0), full)
        x = full.sigmoid() * 20 - 10
        convs: Any = self.convs
        for conv, norm in zip(convs, self.norms, strict=True):
            x = conv(x.to(conv.weight.dtype)).permute(0, 2, 3, 1)
            x = F.gelu(norm(x.to(norm.weight.dtype))).permute(0, 3, 1, 2)
        x = self.last(x.permute(0, 2, 3, 1)).to(self.absent.dtype) + self.image(top.permute(0, 2, 3, 1))
        mixers: Any = self.mixers
        for mixer, norm, mlp in zip(mixers, self.mix_norms, self.mlps, strict=True):
            mixed = mixer(x.permute(0, 3, 1, 2).to(mixer.weight.dtype)).permute(0, 2, 3, 1)
            x = x + mlp(norm(mixed.to(norm.weight.dtype)))
        h, w, c = sizes(x)
        memory = self.out(x.reshape(-1, h * w, c)).float()
        memory = torch.where((score_b <= 0)[:, None, None], memory + self.absent.float(), memory)
        return memory if self.perceiver is None else self.perceiver(memory)
