"""A lesson that needs no mask: the same place of the same thing should look alike to the encoder on any two frames.

Clips that are made know where each piece of texture went, so that each cell of one frame knows its place on another,
among all cells. Following objects by memory rests on such matches; masks alone teach them slowly. (InfoNCE of dense
features, as in VADeR, arXiv 2011.05499, with the truth of our own warps in place of augmentations.)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CELL = 16  # pixels of the image that share a cell of the encoder's top map
UNKNOWN, ALIKE = 0.0, -1.0  # texture that moves by itself; a thing that has a twin
TEMPERATURE = 0.07
NEAR = 0.5  # of a cell: the deviation of what counts as the same place
FAR = 1.0


def matching_loss(top_nchw: Tensor, other_nchw: Tensor, place_ngg4: Tensor, other_ngg4: Tensor) -> Tensor:
    """How badly cells [n, D, g, g] of one frame find their places on another; 0 where none is known.

    Places are (which thing, x, y in its texture, texture pixels per cell); a thing that has a twin does not count.
    """
    a, b = (F.normalize(t.float().flatten(2), dim=1) for t in (top_nchw, other_nchw))
    here, there = place_ngg4.flatten(1, 2), other_ngg4.flatten(1, 2)
    same_npq = (here[:, :, None, 0] == there[:, None, :, 0]) & (here[:, :, None, 0] > 0)
    apart_npq = torch.linalg.vector_norm(here[:, :, None, 1:3] - there[:, None, :, 1:3], dim=-1)
    apart_npq = apart_npq / there[:, None, :, 3].clamp(min=1e-3)  # where nothing is known, nothing is wide
    weight_npq = torch.exp(-((apart_npq / NEAR) ** 2) / 2) * (same_npq & (apart_npq < FAR))
    total_np = weight_npq.sum(-1)
    with torch.autocast(a.device.type, enabled=False):  # in bf16 the logits are off by 0.06
        logits_npq = torch.bmm(a.transpose(1, 2), b) / TEMPERATURE
    logits_npq = logits_npq.masked_fill(there[:, None, :, 0] == ALIKE, -1e4)
    cost_np = -(weight_npq * logits_npq.log_softmax(-1)).sum(-1) / total_np.clamp(min=1e-6)
    known_np = total_np > 0.3
    return (cost_np * known_np).sum() / known_np.sum().clamp(min=1)
