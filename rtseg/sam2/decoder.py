"""Mask decoder: SAM's two-way transformer, with SAM 2's object score and high-resolution features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Attention, LayerNorm2d, Mlp
from .presets import Preset
from .values import Candidates, Features

MASKS = 4  # one single-mask answer and three multimask ones
STABILITY_DELTA, STABILITY_THRESHOLD = 0.05, 0.98


class TwoWayBlock(nn.Module):
    """Self-attention of the tokens, cross-attention from tokens to image, and from image to tokens."""

    def __init__(self, preset: Preset, first: bool) -> None:
        super().__init__()
        dim, heads = preset.dim, preset.decoder_heads
        self.first = first
        self.self_attn = Attention(dim, heads)
        self.cross_attn_token_to_image = Attention(dim, heads, inner=dim // 2)
        self.cross_attn_image_to_token = Attention(dim, heads, inner=dim // 2)
        self.mlp = Mlp(dim, preset.decoder_ffn, dim)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(dim) for _ in range(4))

    def forward(self, tokens: Tensor, image: Tensor, token_pos: Tensor, image_pos: Tensor) -> tuple[Tensor, Tensor]:
        if self.first:  # the tokens are still the same as their positions
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            q = tokens + token_pos
            tokens = tokens + self.self_attn(q, q, tokens)
        tokens = self.norm1(tokens)
        keys = image + image_pos
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_pos, keys, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(keys, tokens + token_pos, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Two two-way blocks, and a final cross-attention from tokens to image."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.layers = nn.ModuleList((TwoWayBlock(preset, first=True), TwoWayBlock(preset, first=False)))
        self.final_attn_token_to_image = Attention(preset.dim, preset.decoder_heads, inner=preset.dim // 2)
        self.norm_final_attn = nn.LayerNorm(preset.dim)

    def forward(self, token_pos: Tensor, image: Tensor, image_pos: Tensor) -> tuple[Tensor, Tensor]:
        tokens = token_pos
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pos, image_pos)
        attended = self.final_attn_token_to_image(tokens + token_pos, image + image_pos, image)
        return self.norm_final_attn(tokens + attended), image


class MaskDecoder(nn.Module):
    """Conditioned features and prompt tokens to `Candidates`."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        dim = preset.dim
        self.transformer = TwoWayTransformer(preset)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(MASKS, dim)
        self.obj_score_token = nn.Embedding(1, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2), LayerNorm2d(dim // 4), nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2), nn.GELU(),
        )  # fmt: skip
        if preset.finer_maps:
            self.conv_s0 = nn.Conv2d(dim, dim // 8, kernel_size=1)
            self.conv_s1 = nn.Conv2d(dim, dim // 4, kernel_size=1)
        self.output_hypernetworks_mlps = nn.ModuleList(Mlp(dim, dim, dim, dim // 8) for _ in range(MASKS))
        self.iou_prediction_head = Mlp(dim, dim, dim, MASKS)
        self.pred_obj_score_head = Mlp(dim, dim, dim, 1)

    def forward(
        self, image_bchw: Tensor, features: Features, sparse_bpc: Tensor, dense_bchw: Tensor, grid_1chw: Tensor
    ) -> Candidates:
        b, _, g, _ = image_bchw.shape
        learned = torch.cat((self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight))
        tokens = torch.cat((learned.expand(b, -1, -1), sparse_bpc), dim=1)
        image = (image_bchw + dense_bchw).flatten(2).transpose(1, 2)
        tokens, image = self.transformer(tokens, image, grid_1chw.flatten(2).transpose(1, 2))
        mask_tokens = tokens[:, 2 : 2 + MASKS]
        up1, norm, act, up2, act2 = self.output_upscaling
        x = image.transpose(1, 2).unflatten(2, (g, g))
        x = act(norm(up1(x) + features.mid))
        x = act2(up2(x) + features.fine)
        mixing = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        return Candidates(
            logits_bkhw=torch.einsum("bkc,bchw->bkhw", mixing, x),
            iou_bk=self.iou_prediction_head(tokens[:, 1]).sigmoid(),
            tokens_bkc=mask_tokens,
            score_b=self.pred_obj_score_head(tokens[:, 0])[:, 0],
        )


def choose(candidates: Candidates, multimask: bool) -> tuple[Tensor, Tensor]:
    """Which mask and which token to take, as indices [b] and [b] into the four candidates.

    Multimask: the best of 1 to 3 by predicted IoU, and its token. Single: mask 0 and its token; where mask 0 is
    unstable (its area changes with the threshold), the mask is still the best of the three (SAM 2,
    `dynamic_multimask_via_stability`), but the token stays 0.
    """
    best_b = 1 + candidates.iou_bk[:, 1:].argmax(dim=1)
    if multimask:
        return best_b, best_b
    single = candidates.logits_bkhw[:, 0].flatten(1)
    inner = (single > STABILITY_DELTA).sum(dim=1).float()
    outer = (single > -STABILITY_DELTA).sum(dim=1).float()
    stable_b = torch.where(outer > 0, inner / outer, 1.0) >= STABILITY_THRESHOLD
    return torch.where(stable_b, 0, best_b), 0 * best_b
