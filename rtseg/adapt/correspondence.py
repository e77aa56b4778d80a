"""A dense correspondence loss, which needs no masks: a surface point should have similar features on any two frames.

Rendered clips know which surface point each cell of a frame shows, so each cell of one frame knows its match among all
cells of another. Tracking by memory depends on such matches, and mask losses alone train them slowly. The loss is
InfoNCE over dense features, as in VADeR (arXiv 2011.05499), with the known motion of the clip instead of augmentations.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CELL = 16  # image pixels per cell of the encoder's top map
# Surface codes without a match: texture that moves by itself, and a pasted object with a copy in the same clip.
UNKNOWN, DUPLICATED = 0.0, -1.0
TEMPERATURE = 0.07
NEAR = 0.5  # cells: the standard deviation of the distance to a match
FAR = 1.0  # cells: the largest distance to a match


def correspondence_loss(top_nchw: Tensor, other_nchw: Tensor, surface_ngg4: Tensor, other_ngg4: Tensor) -> Tensor:
    """The mean InfoNCE loss of the cells of one frame whose match on another frame is known; 0 if none is.

    Features are [n, D, g, g] of either frame, surface points [n, g, g, 4]: the surface's code, x and y in its texture,
    texture pixels per cell. Duplicated surfaces are neither matches nor negatives.
    """
    a, b = (F.normalize(t.float().flatten(2), dim=1) for t in (top_nchw, other_nchw))
    here, there = surface_ngg4.flatten(1, 2), other_ngg4.flatten(1, 2)
    same_npq = (here[:, :, None, 0] == there[:, None, :, 0]) & (here[:, :, None, 0] > 0)
    apart_npq = torch.linalg.vector_norm(here[:, :, None, 1:3] - there[:, None, :, 1:3], dim=-1)
    apart_npq = apart_npq / there[:, None, :, 3].clamp(min=1e-3)  # cells of unknown surfaces have no width
    weight_npq = torch.exp(-((apart_npq / NEAR) ** 2) / 2) * (same_npq & (apart_npq < FAR))
    total_np = weight_npq.sum(-1)
    with torch.autocast(a.device.type, enabled=False):  # in bf16 the logits have errors of 0.06
        logits_npq = torch.bmm(a.transpose(1, 2), b) / TEMPERATURE
    logits_npq = logits_npq.masked_fill(there[:, None, :, 0] == DUPLICATED, -1e4)
    cost_np = -(weight_npq * logits_npq.log_softmax(-1)).sum(-1) / total_np.clamp(min=1e-6)
    known_np = total_np > 0.3
    return (cost_np * known_np).sum() / known_np.sum().clamp(min=1)
