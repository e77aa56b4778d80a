"""The tracked frame with fixed shapes: the function of `rtseg.sam2`, rewritten so that nothing is done twice.

Every rewrite is exact (the same function, other roundings); tests/engine/test_static.py holds them to the reference:

- What depends on the weights alone is a constant: position and rotation tables, the tokens of a frame without a
  prompt (through the decoder's first self-attention), what window padding becomes.
- Linear maps in a row are one: neck and high-resolution convolutions; value and output projections of attention,
  so that the memory is attended to in its own M channels.
- A memory's keys are projected and rotated once, when it is written; a row for its temporal slot is added later.
- What depends on the image alone is done once for all objects: the first self-attention over the image, and the
  projection that the memory encoder starts from.
- Rotated channel pairs lie half a row apart (the rows of the query and key projections are permuted), so rotating
  needs no shuffling.

Maps are channels last inside; a verb's answers have the shapes of `rtseg.sam2.values`. Products run in the type of
their weights, all else in the type of the activations: `precise` below sets both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..sam2 import ABSENT_LOGIT, Preset, Sam2, upsample
from ..sam2.layers import rope_tables, sine_1d, sine_2d

Read = Callable[[int, Tensor], Tensor]
"""(layer, rotated queries [1 or b, n, D]) -> what each object's memory answers [b, n, M]."""


class Linear(nn.Linear):
    """A linear map in the type of its weights, whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)

    def unbiased(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight)


class Attention(nn.Module):
    """Softmax attention [b, heads, n, d] over keys [b, heads, m, d] and values [b, heads, m, any]."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=bias)


class Mlp(nn.Module):
    """Two linear maps with an activation between."""

    def __init__(self, first: Linear, last: Linear, activation: str) -> None:
        super().__init__()
        self.first, self.last, self.activation = first, last, activation

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        out: Tensor = self.last(F.gelu(hidden) if self.activation == "gelu" else F.relu(hidden))
        return out


def linear(weight: Tensor, bias: Tensor | None) -> Linear:
    made = Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return made


def copied(layer: nn.Module) -> Linear:
    """A linear layer, or a 1x1 convolution, as `Linear`."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return linear(layer.weight.flatten(1), layer.bias)


def chained(first: nn.Module, then: nn.Module) -> Linear:
    """Two layers without anything between, as one; multiplied in float64, for the product is made once."""
    a, b = copied(first), copied(then)
    weight = b.weight.double() @ a.weight.double()
    bias = b.weight.double() @ a.bias.double() + b.bias.double()
    return linear(weight.float(), bias.float())


def norm_of(layer: nn.LayerNorm) -> nn.LayerNorm:
    made = nn.LayerNorm(layer.normalized_shape, eps=layer.eps)
    made.load_state_dict(layer.state_dict())
    return made


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
        _, h, w, _ = x_1hwc.shape
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

        SAM 2 fills the last windows with zeros and projects them; that gives the bias, which is put there directly.
        """
        _, h, w, _ = x_1hwc.shape
        if h % side == 0 and w % side == 0:
            qkv = self.qkv(x_1hwc)
        else:
            qkv = F.pad(self.qkv.unbiased(x_1hwc), (0, 0, 0, -w % side, 0, -h % side)) + self.qkv.bias
        _, h, w, c = qkv.shape
        return qkv.view(h // side, side, w // side, side, c).transpose(1, 2).reshape(-1, side, side, c)


def pool(x_nhwc: Tensor) -> Tensor:
    """2x2 max pooling of an [n, h, w, c] map."""
    return F.max_pool2d(x_nhwc.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


class Encoder(nn.Module):
    """Normalised image [1, 3, S, S] to `top` [1, D, g, g], `mid` [1, D/4, 2g, 2g], `fine` [1, D/8, 4g, 4g]."""

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
        _, h, w, c = low.shape
        # Each cell of stride 32 lies on four of stride 16: nearest-neighbour upsampling, without a copy.
        top = (high.view(1, h, 2, w, 2, c) + low.view(1, h, 1, w, 1, c)).view(1, 2 * h, 2 * w, c)
        top, mid, fine = (t.permute(0, 3, 1, 2) for t in (top, self.mid(stride8), self.fine(stride4)))
        return top, mid, fine


def paired(layer: nn.Linear) -> Linear:
    """A query or key projection whose rotated pairs (2i, 2i + 1) become (i, i + D/2)."""
    order = torch.cat((torch.arange(0, layer.out_features, 2), torch.arange(1, layer.out_features, 2)))
    return linear(layer.weight[order], layer.bias[order])


class Rotation(nn.Module):
    """Axial RoPE of [..., n, D] for pairs (i, i + D/2)."""

    cos: Tensor
    sin: Tensor

    def __init__(self, dim: int, grid: int) -> None:
        super().__init__()
        cos, sin = rope_tables(dim, grid)
        self.register_buffer("cos", torch.cat((cos[:, 0::2], cos[:, 1::2]), dim=1))
        self.register_buffer("sin", torch.cat((sin[:, 0::2], sin[:, 1::2]), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        turned: Tensor = x * self.cos + torch.cat((second, first), dim=-1) * self.sin
        return turned


class ReadLayer(nn.Module):
    """One layer of memory attention on [1 or b, n, D]; how the memory is read is the caller's."""

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
        self.rotate = Rotation(p.dim, grid)
        self.layers = nn.ModuleList(ReadLayer(layer, attention) for layer in layers)
        self.norm = norm_of(net.memory_attention.norm)
        self.register_buffer("position", 0.1 * sine_2d(p.dim, grid).permute(0, 2, 3, 1).flatten(1, 2))
        keys = [paired(layer.cross_attn_image.k_proj) for layer in layers]
        self.keys = linear(torch.cat([k.weight for k in keys]), torch.cat([k.bias for k in keys]))  # of all layers
        self.ages = copied(net.obj_ptr_tpos_proj) if net.obj_ptr_tpos_proj is not None else None
        self.register_buffer("fresh", net.no_mem_embed.detach().view(1, -1, 1, 1))
        cells_nm = sine_2d(p.memory_dim, grid).flatten(2).transpose(1, 2)[0]
        self.register_buffer("cells", self.keys(cells_nm) - self.keys.bias)  # [n, L * D], not yet rotated
        rows_tm = net.maskmem_tpos_enc.detach().view(p.num_maskmem, p.memory_dim)
        rows_tld = (self.keys(rows_tm) - self.keys.bias).view(p.num_maskmem, p.attention_layers, 1, p.dim)
        self.register_buffer("slots", self.rotate(rows_tld))  # [num_maskmem, L, n, D]

    def keys_of(self, values_bnm: Tensor) -> Tensor:
        """The keys [b, L, n, D] of memories as tokens, without their temporal slots."""
        keys = (self.keys(values_bnm) + self.cells).unflatten(2, (self.preset.attention_layers, -1))
        turned: Tensor = self.rotate(keys.transpose(1, 2))
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
        return self.norm(x).unflatten(1, top_1dhw.shape[2:]).permute(0, 3, 1, 2)


class PaddedRead:
    """Memories in a fixed number of slots, all objects together: what one captured graph can read.

    `keys_btlnd` [b, t, L, n, D] (as `Attend.keys_of` made them), `values_btnm` [b, t, n, M], `slots_bt` rows of the
    temporal table, `present_bt` which slots hold anything; `pointers_bpd`, `ages_bp`, `real_bp` likewise. What is
    absent is masked exactly, and must be finite.
    """

    def __init__(
        self, attend: Attend, keys_btlnd: Tensor, values_btnm: Tensor, slots_bt: Tensor, present_bt: Tensor,
        pointers_bpd: Tensor, ages_bp: Tensor, real_bp: Tensor,
    ) -> None:  # fmt: skip
        b, _, _, n, _ = keys_btlnd.shape
        values_bsm, own_blsd = attend.pointer_tokens(pointers_bpd, ages_bp)
        maps = (keys_btlnd + attend.slots[slots_bt].to(keys_btlnd.dtype)).transpose(1, 2).flatten(2, 3)
        self.keys_blnd = torch.cat((maps, own_blsd.to(maps.dtype)), dim=2)
        self.values_b1nm = torch.cat((values_btnm.flatten(1, 2), values_bsm.to(values_btnm.dtype)), dim=1)[:, None]
        split = attend.preset.pointer_tokens
        seen_bn = torch.cat((present_bt.repeat_interleave(n, dim=1), real_bp.repeat_interleave(split, dim=1)), dim=1)
        self.bias = torch.where(seen_bn, 0.0, float("-inf")).to(maps.dtype)[:, None, None]
        self.attention, self.objects = attend.attention, b

    def __call__(self, layer: int, q_bnd: Tensor) -> Tensor:
        q = q_bnd.expand(self.objects, -1, -1)[:, None]
        answer: Tensor = self.attention(q, self.keys_blnd[:, layer, None], self.values_b1nm, self.bias)[:, 0]
        return answer


class TokenAttention(nn.Module):
    """The decoder's attention between tokens and image, with heads."""

    def __init__(self, source: Any, attention: Attention) -> None:
        super().__init__()
        self.heads, self.attention = int(source.heads), attention
        self.q, self.k, self.v = copied(source.q_proj), copied(source.k_proj), copied(source.v_proj)
        self.out = copied(source.out_proj)

    def forward(self, q_bnc: Tensor, k_bnc: Tensor, v_bnc: Tensor) -> Tensor:
        q, k, v = (
            t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (self.q(q_bnc), self.k(k_bnc), self.v(v_bnc))
        )
        out: Tensor = self.out(self.attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class Decode(nn.Module):
    """The mask of each object where nobody prompts: [b, D, g, g] to logits, IoU, object score and pointer."""

    token_pos: Tensor
    tokens: Tensor
    image_pos: Tensor
    no_mask: Tensor
    no_pointer: Tensor

    def __init__(self, net: Sam2, attention: Attention) -> None:
        super().__init__()
        decoder: Any = net.sam_mask_decoder
        prompt, grid = net.sam_prompt_encoder, net.grid
        first, second = decoder.transformer.layers
        own = torch.cat((decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight))
        tokens = torch.cat((own, prompt.padding(1, 2)[0]))[None].detach()
        self.register_buffer("token_pos", tokens)
        self.register_buffer("tokens", first.norm1(first.self_attn(tokens, tokens, tokens)).detach())
        self.register_buffer("image_pos", prompt.pe_layer.grid(grid).permute(0, 2, 3, 1).flatten(1, 2).detach())
        self.register_buffer("no_mask", prompt.no_mask_embed.weight.detach()[:, None])
        self.own = TokenAttention(second.self_attn, attention)
        self.own_norm = norm_of(second.norm1)
        self.looks = nn.ModuleList()
        for layer in (first, second):
            parts = {
                "see": TokenAttention(layer.cross_attn_token_to_image, attention), "norm2": norm_of(layer.norm2),
                "mlp": Mlp(copied(layer.mlp.layers[0]), copied(layer.mlp.layers[1]), "relu"),
                "norm3": norm_of(layer.norm3), "norm4": norm_of(layer.norm4),
                "tell": TokenAttention(layer.cross_attn_image_to_token, attention),
            }  # fmt: skip
            self.looks.append(nn.ModuleDict(parts))
        self.last = TokenAttention(decoder.transformer.final_attn_token_to_image, attention)
        self.last_norm = norm_of(decoder.transformer.norm_final_attn)
        up1, norm, _, up2, _ = decoder.output_upscaling
        self.up1, self.up_norm, self.up2 = quartered(up1), norm_of(norm), quartered(up2)
        self.mixing = nn.ModuleList(chain_of(m) for m in list(decoder.output_hypernetworks_mlps)[1:])
        self.iou, self.score = chain_of(decoder.iou_prediction_head), chain_of(decoder.pred_obj_score_head)
        self.pointer = chain_of(net.obj_ptr_proj)
        self.register_buffer("no_pointer", net.no_obj_ptr.detach().clone())

    def forward(self, conditioned_bdhw: Tensor, mid: Tensor, fine: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tokens, image = self.transform(conditioned_bdhw)
        mix_bc, iou_b, score_b, pointer_bc = self.answers(tokens)
        drawn_bhw = self.draw(image, mid, fine, mix_bc, conditioned_bdhw.shape[2]).float()
        logits_bhw = torch.where(score_b[:, None, None] > 0, drawn_bhw, ABSENT_LOGIT)
        return logits_bhw[:, None], iou_b, score_b, pointer_bc

    def answers(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the tokens [b, t, D] say: the mix [b, c] that draws the mask, its IoU, the object score, the pointer."""
        iou_bk = self.iou(tokens[:, 1]).float().sigmoid()[:, 1:]
        score_b = self.score(tokens[:, 0])[:, 0].float()
        # Three masks compete where nothing was prompted; only the winner is drawn.
        best_b11 = iou_bk.argmax(dim=1)[:, None, None]
        mixes = torch.stack([mix(tokens[:, 3 + i]) for i, mix in enumerate(self.mixing)], dim=1)
        mix_bc = mixes.gather(1, best_b11.expand(-1, 1, mixes.shape[2]))[:, 0]
        token_bc = tokens[:, 3:6].gather(1, best_b11.expand(-1, 1, tokens.shape[2]))[:, 0]
        pointer_bc = torch.where(score_b[:, None] > 0, self.pointer(token_bc).float(), self.no_pointer.float())
        return mix_bc, iou_bk.gather(1, best_b11[:, 0])[:, 0], score_b, pointer_bc

    def transform(self, conditioned_bdhw: Tensor) -> tuple[Tensor, Tensor]:
        image = conditioned_bdhw.permute(0, 2, 3, 1).flatten(1, 2) + self.no_mask
        tokens = self.tokens.expand(image.shape[0], -1, -1)
        looks: Any = self.looks
        for i, look in enumerate(looks):
            if i:
                q = tokens + self.token_pos
                tokens = self.own_norm(tokens + self.own(q, q, tokens))
            keys = image + self.image_pos
            tokens = look["norm2"](tokens + look["see"](tokens + self.token_pos, keys, image))
            tokens = look["norm3"](tokens + look["mlp"](tokens))
            image = look["norm4"](image + look["tell"](keys, tokens + self.token_pos, tokens))
        seen = self.last(tokens + self.token_pos, image + self.image_pos, image)
        return self.last_norm(tokens + seen), image

    def draw(self, image_bnd: Tensor, mid: Tensor, fine: Tensor, mix_bc: Tensor, grid: int) -> Tensor:
        """Logits [b, 4g, 4g]: the image upscaled twice, each time with the encoder's finer map added."""
        x = spread(self.up1(image_bnd.unflatten(1, (grid, grid)))) + mid.permute(0, 2, 3, 1)
        x = spread(self.up2(F.gelu(self.up_norm(x)))) + fine.permute(0, 2, 3, 1)
        x = F.gelu(x).flatten(1, 2)
        return (x @ mix_bc[:, :, None].to(x.dtype)).unflatten(1, (4 * grid, 4 * grid))[..., 0]


def quartered(up: nn.ConvTranspose2d) -> Linear:
    """A 2x2 transposed convolution of stride 2 as a linear map to the four pixels of each cell, (row, column, c)."""
    weight = up.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [2 * 2 * out, in]
    assert up.bias is not None
    return linear(weight, up.bias.repeat(4))


def spread(x_bhwk: Tensor) -> Tensor:
    """[b, h, w, 2 * 2 * c] to [b, 2h, 2w, c]."""
    b, h, w, k = x_bhwk.shape
    return x_bhwk.view(b, h, w, 2, 2, k // 4).transpose(2, 3).reshape(b, 2 * h, 2 * w, k // 4)


def chain_of(mlp: Any) -> nn.Sequential:
    """SAM's small ReLU heads."""
    layers: list[nn.Module] = []
    for layer in mlp.layers:
        layers += [copied(layer), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Remember(nn.Module):
    """Masks to memories: logits [b, 1, 4g, 4g], scores [b] and which are `certain_b` to tokens [b, n, M]."""

    absent: Tensor

    def __init__(self, net: Sam2) -> None:
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
        memory = self.out(x).flatten(1, 2).float()
        return torch.where((score_b <= 0)[:, None, None], memory + self.absent.float(), memory)


class StaticNetwork(nn.Module):
    """The four verbs of a tracked frame, made once from a network with its weights."""

    def __init__(self, net: Sam2, attention: Attention | None = None) -> None:
        super().__init__()
        attention = attention or Attention()
        self.preset: Preset = net.preset
        self.image_size, self.grid = net.image_size, net.grid
        with torch.no_grad():
            self.encoder, self.attend = Encoder(net, attention), Attend(net, attention)
            self.decode, self.remember = Decode(net, attention), Remember(net)
        self.eval().requires_grad_(False)

    def precise(self, products: torch.dtype, stream: torch.dtype) -> StaticNetwork:
        """Products in one type; norms, tables and what flows between the layers in another."""
        self.to(stream)
        for module in self.modules():
            if isinstance(module, Linear | nn.Conv2d):
                module.to(products)
        return self
