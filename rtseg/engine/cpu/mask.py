"""The mask decoder and the memory encoder on the kernels of simd/.

The few tokens of the decoder stay in torch; the work on rows for each cell of the image is here.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...sam2 import ABSENT_LOGIT
from ..static.mask import Decode, TokenAttention
from ..static.memory import Remember
from ..static.parts import Linear
from .convolutions import Depthwise, depthwise
from .isa import LANES
from .kernels import NONE, Kernels, Normed, Packed
from .network import Packer, as_rows


class _Tokens(nn.Module):
    """A linear layer for the few tokens. A kernel is faster: torch would take longer to dispatch than to compute."""

    def __init__(self, pack: Packer, layer: Linear) -> None:
        super().__init__()
        self.kernels, self.layer = pack.kernels, pack(layer, exact=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernels.linear(self.layer, x.contiguous())


def _on_kernels(pack: Packer, module: nn.Module) -> None:
    """Replace the linear layers of a module, except those whose width the kernels do not take."""
    for name, child in module.named_children():
        if not isinstance(child, Linear):
            _on_kernels(pack, child)
        elif child.out_features % LANES == 0:
            setattr(module, name, _Tokens(pack, child))


class _Look:
    """Cross-attention between tokens and image in both directions. The image is projected for both in one product."""

    def __init__(self, pack: Packer, see: TokenAttention, tell: TokenAttention | None, image_pos: Tensor) -> None:
        self.kernels, self.see, self.tell = pack.kernels, see, tell
        self.inner = see.k.out_features
        layers = [see.k, see.v] + ([tell.q] if tell else [])
        self.layer = pack(*layers, exact=True)
        # Positions are added to keys and queries, but not to values. They are projected only once, here.
        tables = [F.linear(image_pos, see.k.weight), image_pos.new_zeros(len(image_pos), see.v.out_features)]
        self.table = torch.cat(tables + ([F.linear(image_pos, tell.q.weight)] if tell else []), dim=1).contiguous()
        self.out = pack(tell.out, exact=True) if tell else None

    def project(self, image: Tensor) -> Tensor:
        """Project rows [b * n, D] to keys and values (and queries), side by side."""
        return self.kernels.linear(self.layer, image, added=self.table, half=True)

    def seen(self, q_btc: Tensor, rows: Tensor) -> Tensor:
        """Attention of the tokens' queries [b, t, c] to the image."""
        b, i = len(q_btc), self.inner
        q = q_btc.to(self.kernels.half).flatten(0, 1).contiguous()
        out = torch.empty_like(q)
        self.kernels.attention(q, rows[:, :i], rows[:, i : 2 * i], self.see.heads, out, windows=b)
        return out.unflatten(0, (b, -1))

    def told(self, image: Tensor, rows: Tensor, k_btc: Tensor, v_btc: Tensor) -> Tensor:
        """The image plus its attention to the tokens, in place."""
        assert self.tell is not None and self.out is not None
        q = rows[:, 2 * self.inner :]
        k, v = (t.to(self.kernels.half).flatten(0, 1).contiguous() for t in (k_btc, v_btc))
        answer = torch.empty(len(rows), self.inner, dtype=self.kernels.half, device="cpu")
        self.kernels.attention(q, k, v, self.tell.heads, answer, windows=len(k_btc))
        return self.kernels.linear(self.out, answer, added=image, out=image)


class CpuDecode:
    """Decodes the mask of each object on a frame without prompts."""

    def __init__(self, pack: Packer, decode: Decode) -> None:
        self.kernels, self.plain = pack.kernels, decode
        pos = decode.image_pos[0]
        looks: Any = decode.looks
        self.looks = [_Look(pack, look["see"], look["tell"], pos) for look in looks]
        self.image_norms = [Normed(look["norm4"]) for look in looks]
        self.last = _Look(pack, decode.last, None, pos)
        self.up1, self.up2 = pack(decode.up1, exact=True), pack(decode.up2, exact=True)
        self.up_norm = Normed(decode.up_norm)
        _on_kernels(pack, decode)

    def __call__(self, conditioned_bdhw: Tensor, mid: Tensor, fine: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tokens, image = self.transform(conditioned_bdhw)
        mixes_bc, iou_b, score_b, pointer_bc = self.plain.answers(tokens)
        side = conditioned_bdhw.shape[2]
        fine_rows, mid_rows = as_rows(fine), as_rows(mid)
        rows_bnd = image.unflatten(0, (len(tokens), -1))
        drawn = [self.draw(rows, side, mid_rows, fine_rows, mix) for rows, mix in zip(rows_bnd, mixes_bc, strict=True)]
        logits_bhw = torch.stack(drawn).where(score_b[:, None, None] > 0, ABSENT_LOGIT)
        return logits_bhw[:, None], iou_b, score_b, pointer_bc

    def transform(self, conditioned_bdhw: Tensor) -> tuple[Tensor, Tensor]:
        plain, pos = self.plain, self.plain.token_pos
        image = as_rows(conditioned_bdhw) + plain.no_mask[0]
        tokens = plain.tokens.expand(len(conditioned_bdhw), -1, -1)
        looks: Any = plain.looks
        for i, (look, parts) in enumerate(zip(self.looks, looks, strict=True)):
            if i:
                q = tokens + pos
                tokens = plain.own_norm(tokens + plain.own(q, q, tokens))
            rows = look.project(image)
            seen = look.seen(parts["see"].q(tokens + pos), rows)
            tokens = parts["norm2"](tokens + parts["see"].out(seen))
            tokens = parts["norm3"](tokens + parts["mlp"](tokens))
            image = look.told(image, rows, parts["tell"].k(tokens + pos), parts["tell"].v(tokens))
            image = self.kernels.norm(self.image_norms[i], image, half=False)
        seen = self.last.seen(plain.last.q(tokens + pos), self.last.project(image))
        return plain.last_norm(tokens + plain.last.out(seen)), image

    def draw(self, image_nd: Tensor, side: int, mid: Tensor, fine: Tensor, mix_c: Tensor) -> Tensor:
        """The mask logits [4g, 4g] of one object."""
        k = self.kernels
        x = k.upscale(k.linear(self.up1, image_nd), side, mid, self.up_norm)
        logits = k.upscale(k.linear(self.up2, x), 2 * side, fine, None, mix_c.float().contiguous())
        return logits.view(4 * side, 4 * side)


class CpuRemember:
    """Encodes masks as memories: tokens [b, n, M], float32."""

    def __init__(self, pack: Packer, remember: Remember) -> None:
        k = self.kernels = pack.kernels
        self.absent, self.perceiver = remember.absent, remember.perceiver
        convs: Any = remember.convs
        first, *others = convs
        self.stem = first.weight.flatten(1).contiguous(), first.bias.contiguous()
        self.convs = [by_tap(k, conv) for conv in others]
        norms: Any = remember.norms
        self.norms = [Normed(norm) for norm in norms]
        self.last, self.image = pack(remember.last, exact=True), pack(remember.image, exact=True)
        mixers: Any = remember.mixers
        self.mixers = [Depthwise(m.weight, m.bias) for m in mixers]
        mix_norms: Any = remember.mix_norms
        self.mix_norms = [Normed(norm) for norm in mix_norms]
        mlps: Any = remember.mlps
        self.mlps = [pack.mlp(mlp) for mlp in mlps]
        self.out = pack(remember.out, exact=True)

    def __call__(self, top: Tensor, logits_b1hw: Tensor, score_b: Tensor, certain_b: Tensor) -> Tensor:
        image = self.kernels.linear(self.image, as_rows(top))  # the same for all objects
        masks = zip(logits_b1hw[:, 0].float().contiguous(), certain_b.tolist(), strict=True)
        memory_bnm = torch.stack([self.one(image, logits_hw, certain) for logits_hw, certain in masks])
        memory_bnm = torch.where((score_b <= 0)[:, None, None], memory_bnm + self.absent, memory_bnm)
        return memory_bnm if self.perceiver is None else self.perceiver(memory_bnm)

    def one(self, image_nd: Tensor, logits_hw: Tensor, certain: bool) -> Tensor:
        k = self.kernels
        x = k.mask_stem(k.mask(logits_hw, certain), *self.stem, self.norms[0])
        for conv, norm in zip(self.convs, self.norms[1:], strict=True):
            x = k.convolution(conv, x, norm)
        x = k.linear(self.last, x.flatten(0, 1), added=image_nd)
        for mixer, norm, (one, two, activation) in zip(self.mixers, self.mix_norms, self.mlps, strict=True):
            x = k.mlp(one, two, depthwise(k, mixer, x), norm, activation, added=x)
        return k.linear(self.out, x, activation=NONE)


def by_tap(kernels: Kernels, conv: nn.Conv2d) -> Packed:
    """A 3x3 convolution as a matrix product with rows of 9 pixels."""
    return Packed(kernels, conv.weight.permute(0, 2, 3, 1).flatten(1), conv.bias, exact=True)
