"""Dense matching with the newest conditioning frame, as a prior for the decoder. SAM 2 has no such part.

Memory attention sees a grid of stride 16, and learns slowly where an object went. Features alone know much of it: the
mask of the prompted frame, copied to the cells of stride 8 that look alike, follows an object without any training
(space-time correspondences: arXiv 1904.07846; as a prior for a decoder: STM, arXiv 1904.00607). So a small embedding of
each cell is compared with those of the newest conditioning frame. The mask that is copied and the largest similarity
are added to the conditioned features.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .presets import Preset
from .values import Features

HIDDEN = 32  # channels between the copied mask and the features
SCALE = 30.0  # of cosine similarities before the softmax, where training starts


class Match(nn.Module):
    """The embedding of cells, the comparison, and the embedding of its result. G = 2g is the side at stride 8."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        dim = preset.dim
        self.mid = nn.Conv2d(dim // 4, preset.match_dim, kernel_size=1)
        self.top = nn.Conv2d(dim, preset.match_dim, kernel_size=1, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE)))
        self.prior = nn.Sequential(
            nn.Conv2d(2, HIDDEN, kernel_size=4, stride=2, padding=1), nn.GELU(), nn.Conv2d(HIDDEN, dim, kernel_size=1)
        )

    def embed(self, features: Features) -> Tensor:
        """Unit vectors of the cells of each image, [n, C, G, G]."""
        return self.embedded(features.top, features.mid)

    def embedded(self, top_ndhw: Tensor, mid_nchw: Tensor) -> Tensor:
        """The same of two of the maps."""
        top = F.interpolate(self.top(top_ndhw), scale_factor=2.0, mode="bilinear", align_corners=False)
        return F.normalize(self.mid(mid_nchw) + top, dim=1)

    def remember(self, features: Features, logits_b1hw: Tensor) -> Tensor:
        """What is compared with later: embeddings and the mask (0 to 1) of each cell, [b, C + 1, G, G].

        `logits_b1hw` [b, 1, 2G, 2G] are the mask's, as the decoder gives them; `features` are of one image or of each
        object's.
        """
        cells_ncgg = self.embed(features)
        mask_b1gg = F.avg_pool2d(logits_b1hw.sigmoid(), 2)
        return torch.cat((cells_ncgg.expand(mask_b1gg.shape[0], -1, -1, -1), mask_b1gg.to(cells_ncgg)), dim=1)

    def copy(self, cells_ncgg: Tensor, remembered_bcgg: Tensor) -> Tensor:
        """The copied mask and the largest similarity of each cell, [b, 2, G, G]; n is 1 or b."""
        with exact(cells_ncgg.device.type):
            return self.compared(cells_ncgg.float(), remembered_bcgg.float())

    def compared(self, cells_ncgg: Tensor, remembered_bcgg: Tensor) -> Tensor:
        """The same, in the type of the arguments."""
        scale, side = self.log_scale.exp(), int(cells_ncgg.shape[3])
        keys_bcm, mask_bm1 = remembered_bcgg[:, :-1].flatten(2), remembered_bcgg[:, -1:].flatten(2).transpose(1, 2)
        logits_bnm = (cells_ncgg * scale).flatten(2).transpose(1, 2) @ keys_bcm
        similar_bn1 = logits_bnm.amax(dim=2, keepdim=True) / scale
        both_bn2 = torch.cat((logits_bnm.softmax(dim=2) @ mask_bm1, similar_bn1), dim=2)
        return both_bn2.transpose(1, 2).unflatten(2, (side, side))

    def added(self, top_ndhw: Tensor, mid_nchw: Tensor, remembered_bcgg: Tensor) -> Tensor:
        """What is added to the conditioned features, [b, D, g, g]; the maps are of one image or of each object's."""
        out: Tensor = self.prior(self.compared(self.embedded(top_ndhw, mid_nchw), remembered_bcgg))
        return out

    def forward(self, features: Features, remembered_bcgg: Tensor) -> Tensor:
        """The same in fp32, whatever the precision of the rest."""
        with exact(remembered_bcgg.device.type):
            return self.added(features.top.float(), features.mid.float(), remembered_bcgg.float())


def exact(kind: str) -> AbstractContextManager[object]:
    """A context without autocast on this kind of device: in bf16 the logits of the softmax would be off by 0.1."""
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
