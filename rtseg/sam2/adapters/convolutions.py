"""A small convolutional path beside the trunk, fused at several scales (SAM-UNet, arXiv 2408.09886; MediViSTA).

A trunk that is left as it is misses the textures of another domain. The path sees the picture itself, and adds what it
finds to the features at strides 4, 8 and 16, which the mask decoder reads.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..layers import LayerNorm2d
from ..presets import Preset
from ..values import Features
from .base import Adapter, zero

WIDTHS = (12, 24, 48)  # at strides 4, 8, 16


class ConvolutionBranch(Adapter):
    """Three stages of strided convolutions, each with a 1x1 convolution into the features of its stride."""

    source = "SAM-UNet, arXiv 2408.09886; MediViSTA, arXiv 2309.13539"
    reads_image = True

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        fine, mid, top = WIDTHS
        self.stem = nn.Sequential(nn.Conv2d(3, fine, 4, stride=4), LayerNorm2d(fine), nn.GELU(), _mixing(fine))
        self.second = nn.Sequential(nn.Conv2d(fine, mid, 3, stride=2, padding=1), LayerNorm2d(mid), _mixing(mid))
        self.third = nn.Sequential(nn.Conv2d(mid, top, 3, stride=2, padding=1), LayerNorm2d(top), _mixing(top))
        channels = (preset.dim // 8, preset.dim // 4, preset.dim)
        self.fuse = nn.ModuleList(zero(nn.Conv2d(a, b, 1)) for a, b in zip(WIDTHS, channels, strict=True))

    def encoded(self, features: Features, image_n3ss: Tensor | None) -> Features:
        assert image_n3ss is not None
        fine = self.stem(image_n3ss)
        mid = self.second(fine)
        top = self.third(mid)
        to_fine, to_mid, to_top = self.fuse
        if not self.preset.finer_maps:
            return Features(features.top + to_top(top), features.mid, features.fine)
        return Features(features.top + to_top(top), features.mid + to_mid(mid), features.fine + to_fine(fine))


def _mixing(width: int) -> nn.Module:
    """A depthwise 3x3 convolution and a 1x1 one."""
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1), nn.GELU())
