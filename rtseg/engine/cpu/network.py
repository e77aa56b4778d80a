"""The tracked step on the kernels of simd/: the parts of `StaticNetwork` with packed weights.

Activations between layers are float32 rows [tokens, channels]; attention reads `Kernels.half`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...sam2 import Recall
from ..static.encoder import Block, HieraEncoder
from ..static.memory import Attend, ReadLayer, Rotation
from ..static.parts import Linear, Mlp, linear
from .isa import LANES
from .kernels import GELU, RELU, Kernels, Normed, Packed, rows


class Packer:
    """Packs layers for the kernels, in their precision."""

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels

    def __call__(self, *layers: Linear, exact: bool = False) -> Packed:
        """Pack one layer, or several layers with the same input as one. `exact`: never in eight bits."""
        bias = torch.cat([layer.bias for layer in layers])
        return Packed(self.kernels, torch.cat([layer.weight for layer in layers]), bias, exact)

    def mlp(self, mlp: Mlp) -> tuple[Packed, Packed, int]:
        return self(mlp.first), self(mlp.last), GELU if mlp.activation == "gelu" else RELU


def even_heads(qkv: Linear, proj: Linear, heads: int) -> tuple[Linear, Linear]:
    """The layers around an attention, with each head padded with zeros to a multiple of 16: 56 to 64, 72 to 80."""
    d = proj.in_features // heads
    fill = -d % LANES
    if not fill:
        return qkv, proj
    weight = F.pad(qkv.weight.unflatten(0, (3 * heads, d)), (0, 0, 0, fill)).flatten(0, 1)
    bias = F.pad(qkv.bias.view(3 * heads, d), (0, fill)).flatten()
    after = F.pad(proj.weight.unflatten(1, (heads, d)), (0, fill)).flatten(1)
    return linear(weight, bias), linear(after, proj.bias)


def windows_of(h: int, w: int, side: int) -> Tensor:
    """The tokens of an h x w map in each window, int32 [windows, side * side]; -1 outside the map."""
    tokens = torch.arange(h * w, dtype=torch.int32, device="cpu").view(1, h, w)
    tokens = F.pad(tokens, (0, -w % side, 0, -h % side), value=-1)[0]
    rows, cols = tokens.shape[0] // side, tokens.shape[1] // side
    return tokens.view(rows, side, cols, side).transpose(1, 2).reshape(-1, side * side).contiguous()


def real_first(index: Tensor) -> Tensor:
    """The same windows with the tokens of the map first, and the -1 after them."""
    return index.gather(1, (index < 0).int().argsort(dim=1, stable=True)).contiguous()


class CpuBlock:
    """A Hiera block on rows [h * w, c]. A pooled block halves h and w."""

    def __init__(self, pack: Packer, block: Block, h: int, w: int) -> None:
        self.kernels, self.heads, self.pooled = pack.kernels, block.heads, block.pooled
        self.h, self.w = h, w
        self.norm1, self.norm2 = Normed(block.norm1), Normed(block.norm2)
        qkv, proj = even_heads(block.qkv, block.proj, block.heads)
        self.qkv, self.proj, self.mlp = pack(qkv), pack(proj), pack.mlp(block.mlp)
        self.shortcut = None if block.shortcut is None else pack(block.shortcut)
        self.channels, self.scale = proj.in_features, (block.proj.in_features // block.heads) ** -0.5
        side, half = block.window or h, 2 if block.pooled else 1
        self.keys = windows_of(h, w, side)
        self.queries = real_first(windows_of(h // half, w // half, side // half))
        bias = qkv.bias.to(self.kernels.half)
        self.absent = bias[self.channels : 2 * self.channels].clone(), bias[2 * self.channels :].clone()

    def __call__(self, x: Tensor) -> Tensor:
        k, c = self.kernels, self.channels
        if self.shortcut is None:
            qkv = k.linear(self.qkv, x, self.norm1, half=True)
            q = qkv[:, :c]
        else:
            normed = k.norm(self.norm1, x, half=True)
            qkv = k.linear(self.qkv, normed, half=True)
            x = self.halved(k.linear(self.shortcut, normed)) if self.pooled else k.linear(self.shortcut, normed)
            q = self.halved(qkv[:, :c]) if self.pooled else qkv[:, :c]
        out = rows(len(x), c, dtype=k.half)
        k.attention(
            q, qkv[:, c : 2 * c], qkv[:, 2 * c :], self.heads, out, windows=len(self.keys), q_index=self.queries,
            k_index=self.keys, absent=self.absent, scale=self.scale,
        )  # fmt: skip
        k.linear(self.proj, out, added=x, out=x)
        return k.mlp(*self.mlp[:2], x, self.norm2, self.mlp[2], added=x)

    def halved(self, x: Tensor) -> Tensor:
        """2x2 max pooling of rows."""
        return self.kernels.pool(x.unflatten(0, (self.h, self.w))).flatten(0, 1)


class CpuHiera:
    """Normalised image [1, 3, S, S] to `top`, `mid` and `fine`, float32."""

    def __init__(self, pack: Packer, encoder: HieraEncoder, size: int) -> None:
        self.kernels, self.ends = pack.kernels, encoder.ends
        self.patches = Packed(pack.kernels, encoder.patches.weight.flatten(1), encoder.patches.bias, exact=True)
        self.position = encoder.position[0].flatten(0, 1).contiguous()
        h = w = size // 4
        self.blocks = []
        blocks: Any = encoder.blocks
        for block in blocks:
            self.blocks.append(CpuBlock(pack, block, h, w))
            h, w = (h // 2, w // 2) if block.pooled else (h, w)
        self.c32, self.c16, self.mid, self.fine = (
            pack(m) for m in (encoder.c32, encoder.c16, encoder.mid, encoder.fine)
        )

    def __call__(self, image_1chw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        k = self.kernels
        x = k.patches(self.patches, image_1chw[0].contiguous(), self.position)
        last = len(self.blocks) - 1
        found: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.ends and i != last:
                # The next block overwrites this map, so the neck's projection is computed now.
                found.append(k.linear((self.fine, self.mid, self.c16)[len(found)], x))
        fine, mid, high = found
        return as_features(high, k.linear(self.c32, x), mid, fine)


def as_features(high: Tensor, low: Tensor | None, mid: Tensor, fine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows at stride 16 plus those at stride 32 (None: nothing), at stride 8 and at 4, as `top`, `mid` and `fine`."""
    g = int(len(high) ** 0.5)
    if low is not None:
        high = high.view(g // 2, 2, g // 2, 2, -1) + low.view(g // 2, 1, g // 2, 1, -1)
    return as_map(high.view(g * g, -1), g), as_map(mid, 2 * g), as_map(fine, 4 * g)


def as_map(rows_nc: Tensor, side: int) -> Tensor:
    """A view of rows [b * side * side, c] as [b, c, side, side]."""
    return rows_nc.view(-1, side, side, rows_nc.shape[1]).permute(0, 3, 1, 2)


def as_rows(map_bchw: Tensor) -> Tensor:
    """The inverse of `as_map`; it does not copy a result of `as_map`."""
    return map_bchw.permute(0, 2, 3, 1).flatten(0, 2).contiguous()


@dataclass(frozen=True, slots=True, eq=False)
class PackedMemory:
    """Tokens packed for the kernels: `keys` [L, n, D], rounded if there are `scales` [L, n]; `values` [n, M]."""

    keys: Tensor
    scales: Tensor | None
    values: Tensor
    count: int


class CpuRead:
    """The packed memories of each object on one frame, for every layer. The keys include their slots' rows."""

    def __init__(self, attend: CpuAttend, recalls: Sequence[Recall]) -> None:
        self.kernels = attend.kernels
        self.objects = [list(self.packed(attend, recall)) for recall in recalls]

    def packed(self, attend: CpuAttend, recall: Recall) -> Iterator[PackedMemory]:
        for memory, slot in zip(recall.memories, recall.slots, strict=True):
            tokens_nm = memory.map_chw.flatten(1).T.contiguous()  # of another engine they are channels first
            keys = attend.keys_of(tokens_nm) if memory.keys_lnd is None else memory.keys_lnd
            yield self.at_slot(keys, attend.slots[slot], tokens_nm)
        if recall.ages:
            yield self.at_slot(*attend.pointers(recall))

    def at_slot(self, keys_lnd: Tensor, slot_lnd: Tensor | None, values_nm: Tensor) -> PackedMemory:
        values = self.kernels.pack_values(values_nm)
        if self.kernels.scores:
            keys, scales = self.kernels.round_keys(keys_lnd, slot_lnd, len(values_nm))
            return PackedMemory(keys, scales, values, len(values_nm))
        keys = keys_lnd if slot_lnd is None else self.kernels.add(keys_lnd, slot_lnd)
        return PackedMemory(keys, None, values, len(values_nm))

    def __call__(self, layer: int, q_bnd: Tensor) -> Tensor:
        """Attention of queries [1 or b, n, D] to the memories, [b * n, M]."""
        queries = q_bnd.expand(len(self.objects), -1, -1)
        return torch.cat(
            [self.one(layer, q_nd, memories) for q_nd, memories in zip(queries, self.objects, strict=True)]
        )

    def one(self, layer: int, q_nd: Tensor, memories: Sequence[PackedMemory]) -> Tensor:
        scales = [m.scales[layer] for m in memories if m.scales is not None]
        values, counts = [m.values for m in memories], [m.count for m in memories]
        return self.kernels.read(q_nd, [m.keys[layer] for m in memories], scales or None, values, counts)


class CpuAttend:
    """Conditions image features on memories."""

    def __init__(self, pack: Packer, attend: Attend, grid: int) -> None:
        self.kernels, self.plain, self.grid = pack.kernels, attend, grid
        self.preset = attend.preset
        self.position = attend.position[0]
        layers: Any = attend.layers
        self.layers = [CpuReadLayer(pack, layer, attend.rotate, grid * grid) for layer in layers]
        self.norm = Normed(attend.norm)
        self.keys, self.cells = pack(attend.keys, exact=True), attend.cells.contiguous()
        self.slots = [self.pack_layers(rows.to(self.kernels.half)) for rows in attend.slots]
        half = self.preset.dim // 2
        rope = attend.rotate_memory
        self.tables = rope.cos[:, :half].contiguous(), rope.sin[:, half:].contiguous()

    def pack_layers(self, keys_lnd: Tensor) -> Tensor:
        return torch.stack([self.kernels.pack_keys(keys) for keys in keys_lnd.contiguous()])

    def keys_of(self, tokens_nm: Tensor) -> Tensor:
        """The keys of one memory for every layer, rotated and packed, without the rows of its slot: [L, n, D]."""
        d = self.preset.dim
        keys = self.kernels.linear(self.keys, tokens_nm, added=self.cells, half=True)
        for layer in range(self.preset.attention_layers):
            self.kernels.rotate(keys[:, layer * d : (layer + 1) * d], *self.tables)
        return self.pack_layers(keys.view(len(keys), -1, d).transpose(0, 1))

    def pointers(self, recall: Recall) -> tuple[Tensor, None, Tensor]:
        """The object pointers as packed keys [L, s, D], no slot, and values [s, M]."""
        ages = torch.tensor([recall.ages], dtype=torch.float32, device="cpu")
        values, keys = self.plain.pointer_tokens(recall.pointers_pc[None].float(), ages)
        return self.pack_layers(keys[0].to(self.kernels.half)), None, values[0]

    def __call__(self, top_1dhw: Tensor, recalls: Sequence[Recall]) -> Tensor:
        read = CpuRead(self, recalls)
        x = as_rows(top_1dhw) + self.position
        for i, layer in enumerate(self.layers):
            x = layer(x, i, read, len(recalls))
        return as_map(self.kernels.norm(self.norm, x, half=False), self.grid)


class CpuReadLayer:
    """One layer of memory attention on rows [n or b * n, D]. The first layer gets one image and returns b."""

    def __init__(self, pack: Packer, layer: ReadLayer, rotation: Rotation, tokens: int) -> None:
        self.kernels, self.tokens = pack.kernels, tokens
        self.norm1, self.norm2, self.norm3 = Normed(layer.norm1), Normed(layer.norm2), Normed(layer.norm3)
        self.own, self.own_out = pack(layer.own_q, layer.own_k), pack(layer.own_out)
        self.q, self.out, self.mlp = pack(layer.q), pack(layer.out), pack.mlp(layer.mlp)
        self.dim = half = layer.q.out_features
        half //= 2
        self.tables = rotation.cos[:, :half].contiguous(), rotation.sin[:, half:].contiguous()

    def __call__(self, x: Tensor, index: int, read: CpuRead, objects: int) -> Tensor:
        k, d = self.kernels, self.dim
        y = k.norm(self.norm1, x, half=True)
        qk = k.linear(self.own, y, half=True)
        k.rotate(qk[:, :d], *self.tables)
        k.rotate(qk[:, d:], *self.tables)
        seen = k.attention(qk[:, :d], qk[:, d:], y, 1, torch.empty_like(y), windows=len(y) // self.tokens)
        k.linear(self.own_out, seen, added=x, out=x)
        q = k.linear(self.q, x, self.norm2, half=True)
        k.rotate(q, *self.tables)
        answer = read(index, q.unflatten(0, (-1, self.tokens)))
        if len(answer) != len(x):
            x = x.repeat(objects, 1)
        k.linear(self.out, answer, added=x, out=x)
        return k.mlp(*self.mlp[:2], x, self.norm3, self.mlp[2], added=x)
