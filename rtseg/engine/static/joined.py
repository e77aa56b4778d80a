"""The same function in fewer and larger kernels, for GPUs, where each launch costs time.

In addition to the rewrites of the package, and as exact:

- Linear maps of the same input are one product: queries and keys of the self-attention over the image; in the decoder
  the image's keys and queries, and all projections of a changed token. `[x + pos | x]` with the weights
  side by side gives maps of either in one product.
- The tokens' queries of their first cross-attention are a constant.
- The heads (IoU, score, mixes, pointers of all three candidates) are one chain of three batched products. Then
  comparisons choose the best candidate; they fuse with the preceding kernel.
- The mask is a sum over channels, not a product with one column: a sum fuses with the preceding kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...sam2 import ABSENT_LOGIT
from .mask import Decode, spread
from .memory import Read, ReadLayer, Rotation
from .parts import Linear, linear, sizes

CANDIDATES = 3
# The token that each head reads: IoU, object score, then the mix and the pointer of each of the three masks.
ROWS = (1, 0, 3, 4, 5, 3, 4, 5)


class JoinedLayer(nn.Module):
    """`ReadLayer` whose queries and keys of the self-attention are one product."""

    def __init__(self, plain: ReadLayer) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = plain.norm1, plain.norm2, plain.norm3
        self.own_qk, self.own_out = beside([plain.own_q, plain.own_k]), plain.own_out
        self.q, self.out, self.mlp, self.attention = plain.q, plain.out, plain.mlp, plain.attention

    def forward(self, x: Tensor, index: int, read: Read, rotate: Rotation) -> Tensor:
        y = self.norm1(x)
        q, k = rotate(self.own_qk(y).unflatten(2, (2, -1)).transpose(1, 2)).unbind(1)
        x = x + self.own_out(self.attention(q[:, None], k[:, None], y[:, None])[:, 0])
        x = x + self.out(read(index, rotate(self.q(self.norm2(x)))))
        out: Tensor = x + self.mlp(self.norm3(x))
        return out


class Stacked(nn.Module):
    """k linear maps of the same width at once: [k, b, D] to [k, b, D]; narrower maps are padded with zeros."""

    def __init__(self, layers: Sequence[Linear], width: int) -> None:
        super().__init__()
        weights = [F.pad(layer.weight.T, (0, width - layer.out_features)) for layer in layers]
        biases = [F.pad(layer.bias, (0, width - layer.out_features)) for layer in layers]
        self.weight = nn.Parameter(torch.stack(weights).detach().clone(), requires_grad=False)  # [k, D, D]
        self.bias = nn.Parameter(torch.stack(biases).detach()[:, None].clone(), requires_grad=False)

    def forward(self, x_kbd: Tensor) -> Tensor:
        return torch.bmm(x_kbd.to(self.weight.dtype), self.weight) + self.bias


class Heads(nn.Module):
    """Tokens [b, t, D] to the outputs [k, b, D] of the heads in `ROWS`."""

    rows: Tensor

    def __init__(self, plain: Decode) -> None:
        super().__init__()
        chains: list[Any] = [plain.iou, plain.score, *plain.mixing, *[plain.pointer] * CANDIDATES]
        width = plain.tokens.shape[2]
        self.layers = nn.ModuleList(Stacked([chain[i] for chain in chains], width) for i in (0, 2, 4))
        self.register_buffer("rows", torch.tensor(ROWS))

    def forward(self, tokens_btd: Tensor) -> Tensor:
        first, second, third = self.layers
        x_kbd = tokens_btd.index_select(1, self.rows).transpose(0, 1)
        out: Tensor = third(F.relu(second(F.relu(first(x_kbd)))))
        return out


class Look(nn.Module):
    """Cross-attention between tokens and image in both directions; `after`: other layers that read the new tokens."""

    def __init__(self, plain: Any, after: Sequence[tuple[Linear, bool]]) -> None:
        super().__init__()
        see, tell = plain["see"], plain["tell"]
        self.inner = see.k.out_features
        self.image_kq, self.image_v = beside([see.k, tell.q]), copy_of(see.v)
        self.see_out, self.tell_out = copy_of(see.out), copy_of(tell.out)
        self.norm2, self.norm3, self.norm4, self.mlp = plain["norm2"], plain["norm3"], plain["norm4"], plain["mlp"]
        reads = [(tell.k, True), (tell.v, False), *after]
        self.widths = [layer.out_features for layer, _ in reads]
        self.token = of_either(reads)


class JoinedDecode(nn.Module):
    """`Decode` in fewer products."""

    token_pos: Tensor
    tokens: Tensor
    image_pos: Tensor
    no_mask: Tensor
    no_pointer: Tensor
    asked: Tensor

    def __init__(self, plain: Decode) -> None:
        super().__init__()
        for name in ("token_pos", "tokens", "image_pos", "no_mask", "no_pointer"):
            self.register_buffer(name, getattr(plain, name))
        looks: Any = plain.looks
        mixing: Any = plain.mixing
        own, second, last = plain.own, looks[1]["see"], plain.last
        self.heads, self.attention, self.mix_width = own.heads, own.attention, mixing[0][-1].out_features
        self.register_buffer("asked", looks[0]["see"].q(plain.tokens + plain.token_pos).detach())
        self.looks = nn.ModuleList(
            [Look(looks[0], [(own.q, True), (own.k, True), (own.v, False)]), Look(looks[1], [(last.q, True)])]
        )
        self.own_out, self.own_norm, self.second_q = copy_of(own.out), plain.own_norm, copy_of(second.q)
        self.last_k, self.last_v, self.last_out = (copy_of(layer) for layer in (last.k, last.v, last.out))
        self.last_norm = plain.last_norm
        self.up1, self.up_norm, self.up2 = plain.up1, plain.up_norm, plain.up2
        self.answering = Heads(plain)

    def forward(self, conditioned_bdhw: Tensor, mid: Tensor, fine: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `Decode`: [b, D, g, g] to logits, IoU, object score and pointer."""
        return self.drawn(conditioned_bdhw, mid, fine)[:4]

    def drawn(
        self, conditioned_bdhw: Tensor, mid: Tensor, fine: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """As `forward`, and last the masks without the blanking of absent objects."""
        tokens, image = self.transform(conditioned_bdhw)
        mix_bc, iou_b, score_b, pointer_bc = self.answers(tokens)
        drawn_bhw = self.draw(image, mid, fine, mix_bc, int(conditioned_bdhw.shape[2]))
        logits_bhw = torch.where(score_b[:, None, None] > 0, drawn_bhw, ABSENT_LOGIT)
        return logits_bhw[:, None], iou_b, score_b, pointer_bc, drawn_bhw

    def transform(self, conditioned_bdhw: Tensor) -> tuple[Tensor, Tensor]:
        d, h, w = sizes(conditioned_bdhw)
        image = conditioned_bdhw.permute(0, 2, 3, 1).reshape(-1, h * w, d) + self.no_mask
        b = image.shape[0]
        tokens, asks = self.tokens.expand(b, -1, -1), self.asked.expand(b, -1, -1)
        looks: Any = self.looks
        for i, look in enumerate(looks):
            k, q = look.image_kq(image + self.image_pos).split(look.inner, dim=2)
            seen = look.see_out(self.attend(asks, k, look.image_v(image)))
            tokens = look.norm2(tokens + seen)
            tokens = look.norm3(tokens + look.mlp(tokens))
            told_k, told_v, *after = self.either(look, tokens)
            image = look.norm4(image + look.tell_out(self.attend(q, told_k, told_v)))
            if i == 0:
                tokens = self.own_norm(tokens + self.own_out(self.attend(*after)))
                asks = self.second_q(tokens + self.token_pos)
            else:
                (asks,) = after
        seen = self.last_out(self.attend(asks, self.last_k(image + self.image_pos), self.last_v(image)))
        return self.last_norm(tokens + seen), image

    def either(self, look: Any, tokens: Tensor) -> tuple[Tensor, ...]:
        """All layers that read the tokens, with or without their positions."""
        found: tuple[Tensor, ...] = look.token(torch.cat((tokens + self.token_pos, tokens), dim=2)).split(
            look.widths, dim=2
        )
        return found

    def attend(self, q_bnc: Tensor, k_bnc: Tensor, v_bnc: Tensor) -> Tensor:
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (q_bnc, k_bnc, v_bnc))
        out: Tensor = self.attention(q, k, v).transpose(1, 2).flatten(2)
        return out

    def answers(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `Decode.answers`. Of equal candidates the first is chosen, as in argmax."""
        found_kbd = self.answering(tokens)
        iou_b3, score_b = found_kbd[0, :, 1 : 1 + CANDIDATES].float().sigmoid(), found_kbd[1, :, 0].float()
        one, two, three = iou_b3.unbind(1)
        first_b, second_b = (one >= two) & (one >= three), two >= three

        def winner(of: Sequence[Tensor]) -> Tensor:
            shape = (-1, *[1] * (of[0].ndim - 1))
            return torch.where(first_b.view(shape), of[0], torch.where(second_b.view(shape), of[1], of[2]))

        mix_bc = winner(found_kbd[2 : 2 + CANDIDATES].unbind(0))[:, : self.mix_width]
        pointer_bc = winner(found_kbd[2 + CANDIDATES :].unbind(0)).float()
        pointer_bc = torch.where(score_b[:, None] > 0, pointer_bc, self.no_pointer.float())
        return mix_bc, winner((one, two, three)), score_b, pointer_bc

    def draw(self, image_bnd: Tensor, mid: Tensor, fine: Tensor, mix_bc: Tensor, grid: int) -> Tensor:
        """As `Decode.draw`, in fp32."""
        x = spread(self.up1(image_bnd.view(-1, grid, grid, int(image_bnd.shape[2])))) + mid.permute(0, 2, 3, 1)
        x = spread(self.up2(F.gelu(self.up_norm(x)))) + fine.permute(0, 2, 3, 1)
        return (F.gelu(x).float() * mix_bc[:, None, None].float()).sum(dim=3)


def copy_of(layer: Linear) -> Linear:
    return linear(layer.weight, layer.bias)


def beside(layers: Sequence[Linear]) -> Linear:
    """Layers with the same input, merged into one."""
    return linear(torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers]))


def of_either(reads: Sequence[tuple[Linear, bool]]) -> Linear:
    """Layers of x + pos (True) or of x (False) as one layer of [x + pos | x]."""
    weights = []
    for layer, positioned in reads:
        nothing = torch.zeros_like(layer.weight)
        weights.append(torch.cat((layer.weight, nothing) if positioned else (nothing, layer.weight), dim=1))
    return linear(torch.cat(weights), torch.cat([layer.bias for layer, _ in reads]))
