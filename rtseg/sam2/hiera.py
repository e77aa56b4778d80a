"""The Hiera trunk (arXiv 2306.00989; windowed absolute positions of 2311.05613)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch import zeros as torch_zeros

from .layers import Mlp, attention
from .presets import Preset


def pool(x_nhwc: Tensor) -> Tensor:
    """2x2 max pooling of an [n, h, w, c] map."""
    return F.max_pool2d(x_nhwc.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def to_windows(x_nhwc: Tensor, side: int) -> Tensor:
    """Cut a map into windows [n * windows, side, side, c], padded with zeros to whole windows.

    In SAM 2 attention reads these zeros, so they must not be masked.
    """
    n, h, w, c = x_nhwc.shape
    x = F.pad(x_nhwc, (0, 0, 0, -w % side, 0, -h % side))
    x = x.view(n, x.shape[1] // side, side, x.shape[2] // side, side, c)
    return x.transpose(2, 3).reshape(-1, side, side, c)


def from_windows(x_mhwc: Tensor, n: int, h: int, w: int) -> Tensor:
    """The inverse of `to_windows`: the map [n, h, w, c], without the padding."""
    side, c = x_mhwc.shape[1], x_mhwc.shape[3]
    rows, cols = -(-h // side), -(-w // side)
    x = x_mhwc.view(n, rows, cols, side, side, c).transpose(2, 3)
    return x.reshape(n, rows * side, cols * side, c)[:, :h, :w]


class HieraAttention(nn.Module):
    """Attention over the tokens of each window; queries are pooled where a stage begins."""

    def __init__(self, dim_in: int, dim_out: int, heads: int, pooled: bool) -> None:
        super().__init__()
        self.heads, self.pooled = heads, pooled
        self.qkv = nn.Linear(dim_in, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x_mhwc: Tensor) -> Tensor:
        m, h, w, _ = x_mhwc.shape
        q, k, v = self.qkv(x_mhwc).chunk(3, dim=3)
        if self.pooled:
            q, h, w = pool(q), h // 2, w // 2
        q, k, v = (t.flatten(1, 2).unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        out = attention(q, k, v).transpose(1, 2).reshape(m, h, w, -1)
        projected: Tensor = self.proj(out)
        return projected


class HieraBlock(nn.Module):
    """One transformer block on [n, h, w, c]. `window` 0 means global attention; `pooled` halves h and w."""

    def __init__(self, dim_in: int, dim_out: int, heads: int, window: int, pooled: bool) -> None:
        super().__init__()
        self.window, self.pooled = window, pooled
        self.norm1 = nn.LayerNorm(dim_in, eps=1e-6)
        self.attn = HieraAttention(dim_in, dim_out, heads, pooled)
        self.norm2 = nn.LayerNorm(dim_out, eps=1e-6)
        self.mlp = Mlp(dim_out, 4 * dim_out, dim_out, activation=nn.GELU)
        if dim_in != dim_out:
            self.proj = nn.Linear(dim_in, dim_out)

    def forward(self, x_nhwc: Tensor) -> Tensor:
        normed = self.norm1(x_nhwc)
        shortcut = pool(self.proj(normed)) if self.pooled else x_nhwc
        if self.window:
            windows = self.attn(to_windows(normed, self.window))
            out = shortcut + from_windows(windows, *shortcut.shape[:3])
        else:
            out = shortcut + self.attn(normed)
        result: Tensor = out + self.mlp(self.norm2(out))
        return result


class PatchEmbed(nn.Module):
    """Overlapping 7x7 patches at stride 4: [n, 3, S, S] to [n, S/4, S/4, c]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=7, stride=4, padding=3)

    def forward(self, image_nchw: Tensor) -> Tensor:
        patches: Tensor = self.proj(image_nchw)
        return patches.permute(0, 2, 3, 1)


class Hiera(nn.Module):
    """The trunk: from an image to one map for each stage, finest first."""

    stride = 4  # pixels, of the first map and of the position embedding

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        dim = preset.embed_dim
        self.patch_embed = PatchEmbed(dim)
        self.pos_embed = nn.Parameter(torch_zeros(1, dim, preset.background, preset.background))
        self.pos_embed_window = nn.Parameter(torch_zeros(1, dim, preset.windows[0], preset.windows[0]))
        self.baked: Tensor | None = None  # the position embedding, computed once for inference
        self.blocks = nn.ModuleList()
        self.stage_ends: list[int] = []
        for stage, depth in enumerate(preset.stages):
            for i in range(depth):
                first = stage > 0 and i == 0
                # The first block of a stage still attends in the windows of the stage before it.
                window = preset.windows[stage - 1 if first else stage]
                index = len(self.blocks)
                dim_out = preset.stage_dims[stage]
                window = 0 if index in preset.global_blocks else window
                self.blocks.append(HieraBlock(dim, dim_out, preset.heads * 2**stage, window, first))
                dim = dim_out
            self.stage_ends.append(len(self.blocks) - 1)

    def positions(self, side: int) -> Tensor:
        """Position embedding [1, side, side, c]: the resized background plus the repeated window."""
        repeats = side // self.pos_embed_window.shape[-1]
        background = F.interpolate(self.pos_embed, size=(side, side), mode="bicubic")
        return (background + self.pos_embed_window.tile(1, 1, repeats, repeats)).permute(0, 2, 3, 1)

    def forward(self, image_nchw: Tensor) -> list[Tensor]:
        x = self.patch_embed(image_nchw)
        x = x + (self.positions(x.shape[1]) if self.baked is None else self.baked)
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.stage_ends:
                maps.append(x.permute(0, 3, 1, 2))
        return maps
