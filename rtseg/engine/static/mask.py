"""The mask decoder without prompts: its tokens are constants, and only the chosen mask is computed."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...sam2 import ABSENT_LOGIT, Sam2
from .parts import Attention, Linear, Mlp, chain_of, copied, linear, norm_of, sizes


class TokenAttention(nn.Module):
    """The decoder's attention between tokens and image, with heads."""

    def __init__(self, source: Any, attention: Attention) -> None:
        super().__init__()
        self.heads, self.attention = int(source.heads), attention
        self.q, self.k, self.v = copied(source.q_proj), copied(source.k_proj), copied(source.v_proj)
        self.out = copied(source.out_proj)

    def forward(self, q_bnc: Tensor, k_bnc: Tensor, v_bnc: Tensor) -> Tensor:
        q, k, v = (self.split(t) for t in (self.q(q_bnc), self.k(k_bnc), self.v(v_bnc)))
        answer = self.attention(q, k, v).transpose(1, 2)
        out: Tensor = self.out(answer.reshape(-1, int(answer.shape[1]), self.heads * int(answer.shape[3])))
        return out

    def split(self, x_bnc: Tensor) -> Tensor:
        """[b, heads, n, c / heads]; all sizes but b are plain numbers, which an exporter treats as constants."""
        n, c = int(x_bnc.shape[1]), int(x_bnc.shape[2])
        return x_bnc.reshape(-1, n, self.heads, c // self.heads).transpose(1, 2)


class Decode(nn.Module):
    """The mask of each object without prompts: [b, D, g, g] to logits, IoU, object score and pointer."""

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
        drawn_bhw = self.draw(image, mid, fine, mix_bc, int(conditioned_bdhw.shape[2])).float()
        logits_bhw = torch.where(score_b[:, None, None] > 0, drawn_bhw, ABSENT_LOGIT)
        return logits_bhw[:, None], iou_b, score_b, pointer_bc

    def answers(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From tokens [b, t, D]: the channel weights [b, c] of the mask, its IoU, the object score and the pointer."""
        iou_bk = self.iou(tokens[:, 1]).float().sigmoid()[:, 1:]
        score_b = self.score(tokens[:, 0])[:, 0].float()
        # Without a prompt the best of three masks is chosen; only that one is computed.
        best_b11 = iou_bk.argmax(dim=1)[:, None, None]
        mixes = torch.stack([mix(tokens[:, 3 + i]) for i, mix in enumerate(self.mixing)], dim=1)
        mix_bc = mixes.gather(1, best_b11.expand(-1, 1, mixes.shape[2]))[:, 0]
        token_bc = tokens[:, 3:6].gather(1, best_b11.expand(-1, 1, tokens.shape[2]))[:, 0]
        pointer_bc = torch.where(score_b[:, None] > 0, self.pointer(token_bc).float(), self.no_pointer.float())
        return mix_bc, iou_bk.gather(1, best_b11[:, 0])[:, 0], score_b, pointer_bc

    def transform(self, conditioned_bdhw: Tensor) -> tuple[Tensor, Tensor]:
        d, h, w = sizes(conditioned_bdhw)
        image = conditioned_bdhw.permute(0, 2, 3, 1).reshape(-1, h * w, d) + self.no_mask
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
        x = spread(self.up1(image_bnd.view(-1, grid, grid, int(image_bnd.shape[2])))) + mid.permute(0, 2, 3, 1)
        x = spread(self.up2(F.gelu(self.up_norm(x)))) + fine.permute(0, 2, 3, 1)
        x = F.gelu(x).reshape(-1, 16 * grid * grid, int(x.shape[3]))
        return (x @ mix_bc[:, :, None].to(x.dtype)).view(-1, 4 * grid, 4 * grid)


def quartered(up: nn.ConvTranspose2d) -> Linear:
    """A 2x2 transposed convolution of stride 2 as a linear map to the four pixels of each cell, (row, column, c)."""
    weight = up.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [2 * 2 * out, in]
    assert up.bias is not None
    return linear(weight, up.bias.repeat(4))


def spread(x_bhwk: Tensor) -> Tensor:
    """[b, h, w, 2 * 2 * c] to [b, 2h, 2w, c]."""
    h, w, k = sizes(x_bhwk)
    return x_bhwk.view(-1, h, w, 2, 2, k // 4).transpose(2, 3).reshape(-1, 2 * h, 2 * w, k // 4)
