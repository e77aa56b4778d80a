"""A bottleneck with a depthwise 3D convolution (3DSAM-adapter, arXiv 2306.13465). Depth is time, or the slices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..presets import Preset
from .base import PAST, Adapter, Past, zero

WIDTH = 32


class Depthwise3d(Adapter):
    """This frame and the memories of the latest ones, WIDTH channels each, convolved along time and space."""

    source = "3DSAM-adapter, arXiv 2306.13465"

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.down = nn.Conv2d(preset.dim, WIDTH, kernel_size=1)
        self.past = nn.Conv2d(preset.memory_dim, WIDTH, kernel_size=1)
        # It spans all frames, so a 3D convolution is a 2D one with the frames of each channel as its inputs.
        self.mix = nn.Conv2d(WIDTH * (1 + PAST), WIDTH, kernel_size=3, padding=1, groups=WIDTH)
        self.up = zero(nn.Conv2d(WIDTH, preset.dim, kernel_size=1))

    def attended(self, conditioned_bdhw: Tensor, past: Past) -> Tensor:
        now_brhw = self.down(conditioned_bdhw)
        before_brthw = self.past(past.maps_btmhw.flatten(0, 1)).unflatten(0, past.maps_btmhw.shape[:2]).transpose(1, 2)
        mixed_brhw = self.mix(torch.cat((now_brhw[:, :, None], before_brthw), 2).flatten(1, 2))
        out: Tensor = conditioned_bdhw + self.up(nn.functional.gelu(now_brhw + mixed_brhw))
        return out
