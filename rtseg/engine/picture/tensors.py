"""`to_planes` as a torch tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from ...base.types import ImageU8
from .planes import to_planes


def to_input(image_hwc: ImageU8, size: int) -> Tensor:
    """Convert a picture uint8 [H, W, 3] RGB to the network's input: float32 [1, 3, S, S] on the CPU."""
    return torch.from_numpy(to_planes(image_hwc, size))
