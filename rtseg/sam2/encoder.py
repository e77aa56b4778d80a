"""The image encoder: a trunk and the feature pyramid (FPN) over its maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .efficientnet_lite import EfficientNetLite
from .hiera import Hiera
from .presets import HIERA, VIT_HEADS, Preset
from .repvit import RepVit
from .vit import Vit, VitNeck


class LateralConv(nn.Module):
    """A 1x1 convolution, under the name that published checkpoints give it."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim_in, dim_out, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class FpnNeck(nn.Module):
    """Brings the maps to one width; only stride 16 receives the stride-32 map from above (as SAM 2 was trained)."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.convs = nn.ModuleList(LateralConv(dim, preset.dim) for dim in reversed(preset.stage_dims))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of the trunk, finest first, to the maps at stride 4, 8 and 16."""
        *coarser, c8, c4 = self.convs
        top: Tensor = coarser[-1](maps[2])
        if len(coarser) == 2:
            top = top + F.interpolate(coarser[0](maps[3]), scale_factor=2.0, mode="nearest")
        return c4(maps[0]), c8(maps[1]), top


class ImageEncoder(nn.Module):
    """Trunk and neck."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.trunk = make_trunk(preset)
        self.neck = FpnNeck(preset) if preset.finer_maps else VitNeck(preset)

    def forward(self, image_nchw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps: tuple[Tensor, Tensor, Tensor] = self.neck(self.trunk(image_nchw))
        return maps


def make_trunk(preset: Preset) -> nn.Module:
    """The trunk of a preset: a module from images [n, 3, S, S] to one map for each level, finest first."""
    if preset.trunk == HIERA:
        return Hiera(preset)
    if preset.trunk == "repvit-m1":
        return RepVit(preset.levels)
    if preset.trunk in VIT_HEADS:
        return Vit(preset.trunk)
    return EfficientNetLite(preset.trunk, preset.levels)
