"""An adapter along channels, then along space (SAM-Med2D, arXiv 2308.16184).

The paper trains it with points, boxes and masks in turns, which `rtseg train` does anyway.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..presets import Preset
from ..values import Features
from .base import Adapter, zero

WIDTH = 32


class ChannelSpatial(Adapter):
    """Channels are weighted by their means over the picture; then a convolution at half the resolution is added."""

    source = "SAM-Med2D, arXiv 2308.16184"

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        dim = preset.dim
        self.squeeze, self.excite = nn.Linear(dim, WIDTH), zero(nn.Linear(WIDTH, dim))
        self.down = nn.Conv2d(dim, WIDTH, kernel_size=4, stride=2, padding=1, groups=WIDTH)
        self.up = nn.ConvTranspose2d(WIDTH, WIDTH, kernel_size=4, stride=2, padding=1, groups=WIDTH)
        self.out = zero(nn.Conv2d(WIDTH, dim, kernel_size=1))

    def encoded(self, features: Features, image_n3ss: Tensor | None) -> Features:
        top_ndhw = features.top
        weight_nd = 2 * self.excite(nn.functional.relu(self.squeeze(top_ndhw.mean((2, 3))))).sigmoid()
        top_ndhw = top_ndhw * weight_nd[:, :, None, None]
        # Odd sides come back one cell larger.
        added_nrhw = self.up(nn.functional.gelu(self.down(top_ndhw)))[..., : top_ndhw.shape[2], : top_ndhw.shape[3]]
        short = top_ndhw.shape[2] - added_nrhw.shape[2]
        added_nrhw = nn.functional.pad(added_nrhw, (0, short, 0, short))
        return Features(top_ndhw + self.out(nn.functional.gelu(added_nrhw)), features.mid, features.fine)
