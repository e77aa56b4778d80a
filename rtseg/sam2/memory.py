"""Memory attention, which reads the memories, and the memory encoder, which writes them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import Attention, LayerNorm2d, attention, rope_tables, rotate, sine_1d, sine_2d, uploaded
from .presets import Preset
from .values import Recall

Rope = tuple[Tensor, Tensor]
"""Tables of `rotate`, each [n, D]."""


def memory_cells(preset: Preset, grid: int) -> Tensor:
    """The position of each token of a memory, [n, M]: that of its cell, of its window, or 0 for a global latent."""
    side = preset.perceiver or grid
    cells_nm = sine_2d(preset.memory_dim, side).flatten(2).transpose(1, 2)[0]
    return torch.cat((torch.zeros_like(cells_nm), cells_nm)) if preset.perceiver else cells_nm


def memory_rope(preset: Preset, grid: int) -> Rope:
    """Rotation tables for the tokens of a memory, each [n, D]. Those of global latents change nothing."""
    cos, sin = rope_tables(preset.dim, preset.perceiver or grid)
    if not preset.perceiver:
        return cos, sin
    return torch.cat((torch.ones_like(cos), cos)), torch.cat((torch.zeros_like(sin), sin))


class RopeAttention(Attention):
    """Single-head attention whose queries and spatial keys carry axial RoPE; other keys (pointers) do not."""

    def attend(self, q_bnc: Tensor, k_bnc: Tensor, v_bnc: Tensor, mask_b1n: Tensor | None = None) -> Tensor:
        """Attention over queries and keys that are already projected and rotated."""
        mask = None if mask_b1n is None else mask_b1n[:, None]
        out = attention(self.split(q_bnc), self.split(k_bnc), self.split(v_bnc), mask)
        result: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))
        return result


class MemoryTokens:
    """A batch of objects' memories as attention tokens, padded to one length.

    `values_bnc` [b, n, M], `keys_bnc` (values plus positions), `spatial`: how many of the n tokens are maps (they
    rotate), `mask_b1n`: which tokens are real, or None where all are.
    """

    __slots__ = ("keys_bnc", "mask_b1n", "spatial", "values_bnc")

    def __init__(self, values_bnc: Tensor, keys_bnc: Tensor, spatial: int, mask_b1n: Tensor | None) -> None:
        self.values_bnc, self.keys_bnc, self.spatial, self.mask_b1n = values_bnc, keys_bnc, spatial, mask_b1n


class MemoryAttentionLayer(nn.Module):
    """Self-attention over the image, cross-attention to the memories, feed-forward; norms first."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        dim = preset.dim
        self.self_attn = RopeAttention(dim, heads=1)
        self.cross_attn_image = RopeAttention(dim, heads=1, kv_dim=preset.memory_dim)
        self.linear1 = nn.Linear(dim, preset.attention_ffn)
        self.linear2 = nn.Linear(preset.attention_ffn, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x_bnc: Tensor, memory: MemoryTokens, rope: Rope, memory_rope: Rope) -> Tensor:
        own, cross = self.self_attn, self.cross_attn_image
        x = self.norm1(x_bnc)
        q, k = rotate(own.q_proj(x), *rope), rotate(own.k_proj(x), *rope)
        x_bnc = x_bnc + own.attend(q, k, own.v_proj(x))
        q = rotate(cross.q_proj(self.norm2(x_bnc)), *rope)
        keys = cross.k_proj(memory.keys_bnc)
        maps = keys[:, : memory.spatial].unflatten(1, (-1, len(memory_rope[0])))
        keys = torch.cat((rotate(maps, *memory_rope).flatten(1, 2), keys[:, memory.spatial :]), dim=1)
        x_bnc = x_bnc + cross.attend(q, keys, cross.v_proj(memory.values_bnc), memory.mask_b1n)
        out: Tensor = x_bnc + self.linear2(F.relu(self.linear1(self.norm3(x_bnc))))
        return out


class MemoryAttention(nn.Module):
    """Image features [b, D, g, g] conditioned on each object's memories."""

    def __init__(self, preset: Preset, grid: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MemoryAttentionLayer(preset) for _ in range(preset.attention_layers))
        self.norm = nn.LayerNorm(preset.dim)
        cos, sin = rope_tables(preset.dim, grid)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.register_buffer("position", sine_2d(preset.dim, grid), persistent=False)
        self.cos: Tensor
        self.sin: Tensor
        self.position: Tensor
        self.latents = bool(preset.perceiver)
        if self.latents:
            cos, sin = memory_rope(preset, grid)
            self.register_buffer("memory_cos", cos, persistent=False)
            self.register_buffer("memory_sin", sin, persistent=False)
            self.memory_cos: Tensor
            self.memory_sin: Tensor

    def forward(self, image_bchw: Tensor, memory: MemoryTokens) -> Tensor:
        x = (image_bchw + 0.1 * self.position).flatten(2).transpose(1, 2)
        rope = self.cos, self.sin
        memory_rope = (self.memory_cos, self.memory_sin) if self.latents else rope
        for layer in self.layers:
            x = layer(x, memory, rope, memory_rope)
        return self.norm(x).transpose(1, 2).unflatten(2, image_bchw.shape[2:])


class MemoryTokenizer:
    """From recalls to tokens. Positions are constants of the network: an encoding of each cell, a row for each slot."""

    def __init__(self, preset: Preset, grid: int) -> None:
        self.preset = preset
        self.cells = memory_cells(preset, grid)  # [n, M]

    def one(self, recall: Recall, slot_table: Tensor, age_code: nn.Module | None) -> tuple[Tensor, Tensor, Tensor]:
        """Values of the maps [t * n, M], values of the pointers [p * splits, M], and positions of both."""
        p = self.preset
        maps = torch.stack([m.map_chw for m in recall.memories]).flatten(2).transpose(1, 2)  # [t, n, M]
        rows = torch.stack([slot_table[slot] for slot in recall.slots]).view(
            -1, 1, p.memory_dim
        )  # no index list, which would have to be uploaded
        cells = self.cells.to(maps)
        pointers = recall.pointers_pc.reshape(-1, p.memory_dim)
        ages = pointers.new_zeros(len(recall.ages), p.memory_dim)
        if age_code is not None:
            ages_p = uploaded(torch.tensor(recall.ages, dtype=torch.float32), maps.device)
            relative = ages_p / (p.max_pointers - 1)
            ages = age_code(sine_1d(relative, p.dim).to(pointers))
        positions = torch.cat(((rows + cells).flatten(0, 1), ages.repeat_interleave(p.pointer_tokens, dim=0)))
        return maps.flatten(0, 1), pointers, positions

    def batch(self, recalls: list[Recall], slot_table: Tensor, age_code: nn.Module | None) -> MemoryTokens:
        """Tokens of several objects, padded to one length. The padding is masked: each object reads only its own."""
        parts = [self.one(r, slot_table, age_code) for r in recalls]
        spatial = max(len(maps) for maps, _, _ in parts)
        others = max(len(pointers) for _, pointers, _ in parts)
        values, keys, real = [], [], []
        for maps, pointers, positions in parts:
            pad = (0, 0, 0, spatial - len(maps)), (0, 0, 0, others - len(pointers))
            values.append(torch.cat((F.pad(maps, pad[0]), F.pad(pointers, pad[1]))))
            at = positions.split((len(maps), len(pointers)))
            keys.append(torch.cat((F.pad(maps + at[0], pad[0]), F.pad(pointers + at[1], pad[1]))))
            slots = torch.arange(spatial + others, device=maps.device)
            real.append((slots < len(maps)) | ((slots >= spatial) & (slots < spatial + len(pointers))))
        alike = all(len(maps) == spatial and len(pointers) == others for maps, pointers, _ in parts)
        return MemoryTokens(
            torch.stack(values), torch.stack(keys), spatial, None if alike else torch.stack(real)[:, None]
        )


class MaskDownsampler(nn.Module):
    """A mask [b, 1, S, S] to [b, D, g, g], by four strided convolutions."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for power in range(4):
            a, b = 4**power, 4 ** (power + 1)
            layers += [nn.Conv2d(a, b, kernel_size=3, stride=2, padding=1), LayerNorm2d(b), nn.GELU()]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(256, dim, kernel_size=1))

    def forward(self, mask_b1hw: Tensor) -> Tensor:
        out: Tensor = self.encoder(mask_b1hw)
        return out


class FuserBlock(nn.Module):
    """A ConvNeXt block."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = LayerNorm2d(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 0.1))

    def forward(self, x_bchw: Tensor) -> Tensor:
        x = self.norm(self.dwconv(x_bchw)).permute(0, 2, 3, 1)
        x = self.gamma * self.pwconv2(F.gelu(self.pwconv1(x)))
        return x_bchw + x.permute(0, 3, 1, 2)


class Fuser(nn.Module):
    """Two ConvNeXt blocks."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FuserBlock(dim) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """Raw image features and a scaled mask to a memory [b, M, g, g]."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownsampler(preset.dim)
        self.pix_feat_proj = nn.Conv2d(preset.dim, preset.dim, kernel_size=1)
        self.fuser = Fuser(preset.dim)
        self.out_proj = nn.Conv2d(preset.dim, preset.memory_dim, kernel_size=1)

    def forward(self, image_nchw: Tensor, mask_b1hw: Tensor) -> Tensor:
        x = self.pix_feat_proj(image_nchw) + self.mask_downsampler(mask_b1hw)
        out: Tensor = self.out_proj(self.fuser(x))
        return out
