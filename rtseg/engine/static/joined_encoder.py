"""The image encoder in fewer kernels, for a GPU: exact as `HieraEncoder` is, and over the same weights.

- Where windows divide the map, tokens stay in window order through the whole stage, without reordering around
  attention: all other layers process tokens one by one. Pooling keeps the order: half a window of the map is a window
  of half the map.
- Padded windows are projected before the padding is cut off; the next kernel cuts it.
- A pooled block's shortcut is one product with its queries, keys and values.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import Block, HieraEncoder
from .joined import beside
from .parts import sizes


class JoinedBlock(nn.Module):
    """`Block` on [windows, s, s, c] if `sorted`, else on [1, h, w, c]; the answer is in the same order."""

    def __init__(self, plain: Block, side: int) -> None:
        super().__init__()
        self.pooled, self.heads, self.attention = plain.pooled, plain.heads, plain.attention
        self.norm1, self.norm2, self.mlp, self.proj = plain.norm1, plain.norm2, plain.mlp, plain.proj
        self.window = plain.window or side
        self.sorted = plain.window > 0 and side % plain.window == 0
        self.widened = plain.shortcut is not None
        # The shortcut is pooled with the queries, so it is placed beside them.
        self.first = plain.qkv if plain.shortcut is None else beside([plain.shortcut, plain.qkv])
        self.width = plain.proj.out_features

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        found, shortcut = self.in_windows(normed) if self.sorted else self.on_map(normed)
        x = (x if shortcut is None else shortcut.to(x.dtype)) + found
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def in_windows(self, normed_wssc: Tensor) -> tuple[Tensor, Tensor | None]:
        made, shortcut = self.first(normed_wssc), None
        if self.pooled or self.widened:
            shared, c = self.widened * self.width, self.width
            asked, rest = made.split((shared + c, 2 * c), dim=3)
            asked = pooled(asked) if self.pooled else asked
            shortcut = asked[..., :c] if self.widened else None
            q, (k, v) = asked[..., shared:], rest.chunk(2, dim=3)
        else:
            q, k, v = made.chunk(3, dim=3)
        found: Tensor = self.proj(self.attend(q, k, v)).view(q.shape)
        return found, shortcut

    def on_map(self, normed_1hwc: Tensor) -> tuple[Tensor, Tensor | None]:
        h, w, _ = sizes(normed_1hwc)
        side, c, bias, shortcut = self.window, self.width, self.first.bias, None
        made = self.first.unbiased(normed_1hwc) if h % side or w % side else self.first(normed_1hwc)
        if self.widened:
            shortcut, made = made.split((c, 3 * c), dim=3)
            shortcut = pooled(shortcut) if self.pooled else shortcut
            if h % side or w % side:
                shortcut = shortcut + bias[:c]
        if h % side or w % side:
            # Padding is projected to the bias, as in `Block`.
            made = F.pad(made, (0, 0, 0, -w % side, 0, -h % side)) + bias[-3 * c :]
        q, k, v = to_windows(made, side).chunk(3, dim=3)
        if self.pooled:
            q, side, h, w = pooled(q), side // 2, h // 2, w // 2
        found = to_map(self.proj(self.attend(q, k, v)).view(q.shape), -(-h // side), -(-w // side))
        return found[:, :h, :w], shortcut

    def attend(self, *qkv: Tensor) -> Tensor:
        """[windows, s * s, c] of queries, keys and values [windows, s, s, c]."""
        q, k, v = (t.flatten(1, 2).unflatten(2, (self.heads, -1)).transpose(1, 2) for t in qkv)
        out: Tensor = self.attention(q, k, v).transpose(1, 2).flatten(2)
        return out


class JoinedEncoder(nn.Module):
    """As `HieraEncoder`: normalised image [1, 3, S, S] to `top`, `mid` and `fine`."""

    position: Tensor

    def __init__(self, plain: HieraEncoder) -> None:
        super().__init__()
        self.patches, self.ends = plain.patches, plain.ends
        self.register_buffer("position", plain.position)
        side, blocks = int(plain.position.shape[1]), []
        plain_blocks: Any = plain.blocks
        for block in plain_blocks:
            blocks.append(JoinedBlock(block, side))
            side //= 1 + block.pooled
        self.blocks = nn.ModuleList(blocks)
        self.c32, self.c16, self.mid, self.fine = plain.c32, plain.c16, plain.mid, plain.fine

    def forward(self, image_1chw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        patches = self.patches(image_1chw.to(self.patches.weight.dtype)).permute(0, 2, 3, 1)
        x = patches + self.position
        maps: list[Tensor] = []
        blocks: Any = self.blocks
        side, order = int(x.shape[1]), 0
        layers: list[Any] = [self.fine, self.mid, self.c16, self.c32]
        for i, block in enumerate(blocks):
            wanted = block.window if block.sorted else 0
            x, order = in_order(x, order, wanted, side), wanted
            x = block(x)
            side, order = (side // 2, order // 2) if block.pooled else (side, order)
            if i in self.ends:
                maps.append(in_order(layers[len(maps)](x), order, 0, side))
        fine, mid, high, low = maps
        h, w, c = sizes(low)
        # Each cell of stride 32 covers four of stride 16: nearest-neighbour upsampling, without a copy.
        top = (high.view(1, h, 2, w, 2, c) + low.view(1, h, 1, w, 1, c)).view(1, 2 * h, 2 * w, c)
        top, mid, fine = (t.permute(0, 3, 1, 2) for t in (top, mid, fine))
        return top, mid, fine


def pooled(x_nhwc: Tensor) -> Tensor:
    """2x2 max pooling of [n, h, w, c] maps, as a maximum that a compiler fuses with the next operation."""
    _, h, w, c = (int(size) for size in x_nhwc.shape)
    return x_nhwc.reshape(-1, h // 2, 2, w // 2, 2, c).amax(dim=(2, 4))


def in_order(x: Tensor, order: int, wanted: int, side: int) -> Tensor:
    """From windows of side `order` (0: a map of `side` rows) to windows of side `wanted` (0: the map)."""
    if order == wanted:
        return x
    mapped = to_map(x, side // order, side // order) if order else x
    return to_windows(mapped, wanted) if wanted else mapped


def to_windows(x_1hwc: Tensor, side: int) -> Tensor:
    """[1, h, w, c] to [windows, side, side, c]."""
    h, w, c = sizes(x_1hwc)
    return x_1hwc.reshape(h // side, side, w // side, side, c).transpose(1, 2).reshape(-1, side, side, c)


def to_map(x_wssc: Tensor, rows: int, cols: int) -> Tensor:
    """The inverse of `to_windows`, for `rows` by `cols` windows."""
    side, _, c = sizes(x_wssc)
    return x_wssc.reshape(rows, cols, side, side, c).transpose(1, 2).reshape(1, rows * side, cols * side, c)
