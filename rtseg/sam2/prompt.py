"""Prompt encoder: points, boxes (as two points) and earlier masks become decoder tokens and a dense map."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .layers import LayerNorm2d, uploaded
from .presets import Preset
from .values import PromptBatch


def on_device(prompts: PromptBatch, device: torch.device | str) -> PromptBatch:
    """The prompts as tensors on a device."""
    given = (prompts.points_bpc, prompts.labels_bp, prompts.mask_b1hw, prompts.answer_b1hw)
    return PromptBatch(*(None if array is None else uploaded(torch.as_tensor(array), device) for array in given))


class RandomPositions(nn.Module):
    """Positions in the unit square, encoded by random Fourier features; the matrix is part of the weights."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, dim // 2))
        self.positional_encoding_gaussian_matrix: Tensor

    def forward(self, xy: Tensor) -> Tensor:
        """[..., 2] in 0..1 to [..., dim]."""
        angle = 2 * math.pi * ((2 * xy - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat((angle.sin(), angle.cos()), dim=-1)

    def grid(self, side: int) -> Tensor:
        """The encoding of every cell centre of a square map, [1, dim, side, side]."""
        centres = (torch.arange(side, device=self.positional_encoding_gaussian_matrix.device) + 0.5) / side
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        code: Tensor = self(torch.stack((x, y), dim=-1))
        return code.permute(2, 0, 1)[None]


class PromptEncoder(nn.Module):
    """Sparse tokens [b, p + 1, D] and a dense map [b, D, g, g] (or [1, D, 1, 1] without a mask)."""

    def __init__(self, preset: Preset, image_size: int) -> None:
        super().__init__()
        dim = preset.dim
        self.image_size = image_size
        self.pe_layer = RandomPositions(dim)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.no_mask_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, kernel_size=2, stride=2), LayerNorm2d(4), nn.GELU(),
            nn.Conv2d(4, 16, kernel_size=2, stride=2), LayerNorm2d(16), nn.GELU(),
            nn.Conv2d(16, dim, kernel_size=1),
        )  # fmt: skip

    def points(self, points_bpc: Tensor, labels_bp: Tensor) -> Tensor:
        """Tokens of the points, and after them the padding token that SAM was trained with."""
        table = torch.cat([e.weight for e in self.point_embeddings])  # type: ignore[misc]
        tokens_bpc = self.pe_layer((points_bpc + 0.5) / self.image_size) + table[labels_bp]
        return torch.cat((tokens_bpc, self.padding(tokens_bpc.shape[0], 1)), dim=1)

    def padding(self, objects: int, tokens: int) -> Tensor:
        return self.not_a_point_embed.weight.expand(objects, tokens, -1)

    def forward(self, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        if prompts.points_bpc.shape[1]:
            sparse_bpc = self.points(prompts.points_bpc, prompts.labels_bp)
        else:  # no prompt: SAM 2 gives one empty point, and pads it like any other
            sparse_bpc = self.padding(prompts.points_bpc.shape[0], 2)
        if prompts.mask_b1hw is None:
            return sparse_bpc, self.no_mask_embed.weight[:, :, None, None]
        return sparse_bpc, self.mask_downscaling(prompts.mask_b1hw)
