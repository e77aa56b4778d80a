"""The image encoder, with a neck folded into the decoder's convolutions; Hiera's blocks do not project padding."""

from __future__ import annotations

import copy
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ...sam2 import Sam2
from ...sam2.presets import HIERA, VIT_HEADS
from .parts import Attention, Mlp, chained, copied, norm_of, sizes


class Block(nn.Module):
    """One Hiera block on [1, h, w, c]; `window` 0 attends globally, `pooled` halves h and w."""

    def __init__(self, b: Any, attention: Attention) -> None:
        super().__init__()
        self.window, self.pooled, self.heads = int(b.window), bool(b.pooled), int(b.attn.heads)
        self.norm1, self.norm2 = norm_of(b.norm1), norm_of(b.norm2)
        self.qkv, self.proj = copied(b.attn.qkv), copied(b.attn.proj)
        self.mlp = Mlp(copied(b.mlp.layers[0]), copied(b.mlp.layers[1]), "gelu")
        self.shortcut = copied(b.proj) if hasattr(b, "proj") else None
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        shortcut = x if self.shortcut is None else pool(self.shortcut(normed)).to(x.dtype)
        x = shortcut + self.attend(normed)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def attend(self, x_1hwc: Tensor) -> Tensor:
        h, w, _ = sizes(x_1hwc)
        side = self.window or h
        qkv = self.windows(x_1hwc, side)
        q, k, v = qkv.chunk(3, dim=3)
        if self.pooled:
            q, side, h, w = pool(q), side // 2, h // 2, w // 2
        q, k, v = (t.flatten(1, 2).unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        out = self.attention(q, k, v).transpose(1, 2).flatten(2)  # [windows, side * side, c]
        rows, cols = -(-h // side), -(-w // side)
        out = out.view(rows, cols, side, side, -1).transpose(1, 2).reshape(1, rows * side, cols * side, -1)
        result: Tensor = self.proj(out[:, :h, :w])
        return result

    def windows(self, x_1hwc: Tensor, side: int) -> Tensor:
        """Queries, keys and values by window, [windows, side, side, 3 c].

        SAM 2 pads the last windows with zeros and projects them. The result is the bias, which is inserted directly.
        """
        h, w, _ = sizes(x_1hwc)
        if h % side == 0 and w % side == 0:
            qkv = self.qkv(x_1hwc)
        else:
            qkv = F.pad(self.qkv.unbiased(x_1hwc), (0, 0, 0, -w % side, 0, -h % side)) + self.qkv.bias
        h, w, c = sizes(qkv)
        return qkv.view(h // side, side, w // side, side, c).transpose(1, 2).reshape(-1, side, side, c)


def pool(x_nhwc: Tensor) -> Tensor:
    """2x2 max pooling of an [n, h, w, c] map."""
    return F.max_pool2d(x_nhwc.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


class Encoder(nn.Module):
    """Normalised image [1, 3, S, S] to `top` [1, D, g, g], `mid` [1, D/4, 2g, 2g], `fine` [1, D/8, 4g, 4g]."""

    def forward(self, image_1chw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raise NotImplementedError


class HieraEncoder(Encoder):
    """`Encoder` with Hiera as its trunk."""

    position: Tensor

    def __init__(self, net: Sam2, attention: Attention) -> None:
        super().__init__()
        trunk: Any = net.image_encoder.trunk
        neck: Any = net.image_encoder.neck
        self.patches = copy.deepcopy(trunk.patch_embed.proj)
        self.register_buffer("position", trunk.positions(net.image_size // 4).detach())
        self.blocks = nn.ModuleList(Block(b, attention) for b in trunk.blocks)
        self.ends = list(trunk.stage_ends)
        c32, c16, c8, c4 = (c.conv for c in neck.convs)
        self.c32, self.c16 = copied(c32), copied(c16)
        self.mid = chained(c8, net.sam_mask_decoder.conv_s1)
        self.fine = chained(c4, net.sam_mask_decoder.conv_s0)

    def forward(self, image_1chw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        patches = self.patches(image_1chw.to(self.patches.weight.dtype)).permute(0, 2, 3, 1)
        x = patches + self.position
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.ends:
                maps.append(x)
        stride4, stride8, stride16, stride32 = maps
        low = self.c32(stride32)
        high = self.c16(stride16)
        h, w, c = sizes(low)
        # Each cell of stride 32 covers four of stride 16: nearest-neighbour upsampling, without a copy.
        top = (high.view(1, h, 2, w, 2, c) + low.view(1, h, 1, w, 1, c)).view(1, 2 * h, 2 * w, c)
        top, mid, fine = (t.permute(0, 3, 1, 2) for t in (top, self.mid(stride8), self.fine(stride4)))
        return top, mid, fine


class ConvEncoder(Encoder):
    """`Encoder` with a trunk of convolutions, which is taken as it is; everything is [1, c, h, w]."""

    def __init__(self, net: Sam2) -> None:
        super().__init__()
        neck: Any = net.image_encoder.neck
        self.trunk = copy.deepcopy(net.image_encoder.trunk)
        *coarser, c8, c4 = (c.conv for c in neck.convs)
        self.c16 = copy.deepcopy(coarser[-1])
        self.c32 = copy.deepcopy(coarser[0]) if len(coarser) > 1 else None
        self.mid = as_conv(chained(c8, net.sam_mask_decoder.conv_s1))
        self.fine = as_conv(chained(c4, net.sam_mask_decoder.conv_s0))

    def laterals(self) -> list[nn.Conv2d]:
        """The neck's convolution of each map of the trunk, finest first."""
        return [self.fine, self.mid, self.c16] + ([] if self.c32 is None else [self.c32])

    def forward(self, image_1chw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stride4, stride8, stride16, *rest = self.trunk(image_1chw.to(self.c16.weight.dtype))
        top = self.c16(stride16)
        if self.c32 is not None:
            low = self.c32(rest[0])
            c, h, w = sizes(low)
            top = (top.view(1, c, h, 2, w, 2) + low.view(1, c, h, 1, w, 1)).view(1, c, 2 * h, 2 * w)
        return top, self.mid(stride8), self.fine(stride4)


class VitEncoder(Encoder):
    """`Encoder` with a plain ViT as its trunk. There are no finer maps: they are 0."""

    position: Tensor

    def __init__(self, net: Sam2, attention: Attention) -> None:
        super().__init__()
        trunk: Any = net.image_encoder.trunk
        neck: Any = net.image_encoder.neck
        self.dim = net.preset.dim
        self.patches = copy.deepcopy(trunk.patch_embed.proj)
        self.register_buffer("position", trunk.positions(net.grid).detach())
        self.blocks = nn.ModuleList(Block(b, attention) for b in trunk.blocks)
        (layers,) = neck.convs
        self.narrow, self.conv = copied(layers.conv_1x1), copy.deepcopy(layers.conv_3x3)
        self.norm1, self.norm2 = norm_of(layers.norm_0), norm_of(layers.norm_1)

    def forward(self, image_1chw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.patches(image_1chw.to(self.patches.weight.dtype)).permute(0, 2, 3, 1) + self.position
        for block in self.blocks:
            x = block(x)
        x = self.norm1(self.narrow(x).to(x.dtype))
        mixed = self.conv(x.permute(0, 3, 1, 2).to(self.conv.weight.dtype))
        top = self.norm2(mixed.permute(0, 2, 3, 1).to(x.dtype)).to(mixed.dtype).permute(0, 3, 1, 2)
        g = int(top.shape[2])
        mid, fine = (top.new_zeros(1, self.dim // cut, side, side) for cut, side in ((4, 2 * g), (8, 4 * g)))
        return top, mid, fine


def as_conv(layer: nn.Linear) -> nn.Conv2d:
    """A linear map as a 1x1 convolution."""
    conv = nn.Conv2d(layer.in_features, layer.out_features, 1)
    conv.weight.data, conv.bias = layer.weight.data[:, :, None, None].clone(), layer.bias
    return conv


def encoder_of(net: Sam2, attention: Attention) -> Encoder:
    """The encoder of a network."""
    if net.preset.trunk == HIERA:
        return HieraEncoder(net, attention)
    return VitEncoder(net, attention) if net.preset.trunk in VIT_HEADS else ConvEncoder(net)
