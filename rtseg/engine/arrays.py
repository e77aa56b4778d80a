"""What the callers of an engine do with its arrays, be they torch's or numpy's.

The two share most names (`stack`, `concat`, `clip`, `asarray`, ...), so that the module behind an array is nearly all
that it takes. torch is imported only where somebody has made a tensor, and so has imported it.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np

from ..sam2 import Array
from ..types import Float32


def namespace(x: Array) -> ModuleType:
    """The library that an array is of: numpy or torch."""
    if isinstance(x, np.ndarray):
        return np
    import torch

    return torch


def to_host(x: Array) -> Float32:
    """An array as numpy's, in fp32: of a tensor on a GPU a copy, for which the host waits."""
    if isinstance(x, np.ndarray):
        return x.astype(np.float32, copy=False)
    host: Float32 = x.detach().float().cpu().numpy()
    return host


def sigmoid(x: Array) -> Array:
    """Probabilities of logits."""
    if isinstance(x, np.ndarray):
        return 0.5 + 0.5 * np.tanh(0.5 * x)  # 1 / (1 + exp(-x)) would overflow
    return x.sigmoid()


def likeness(maps_tchw: Array, one_chw: Array) -> Float32:
    """How much each map is like that one, [t]: cosine over the channels of each cell, then the mean over cells."""
    if isinstance(maps_tchw, np.ndarray):
        one_1chw = one_chw[None]
        dots_thw = (maps_tchw * one_1chw).sum(1)
        lengths_thw = np.sqrt((maps_tchw**2).sum(1) * (one_1chw**2).sum(1))
        return np.asarray((dots_thw / np.maximum(lengths_thw, 1e-8)).mean((1, 2)), np.float32)
    import torch.nn.functional as F

    return to_host(F.cosine_similarity(maps_tchw.float(), one_chw[None].float(), dim=1).mean(dim=(1, 2)))
