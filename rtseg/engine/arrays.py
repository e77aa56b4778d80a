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
    if not isinstance(maps_tchw, np.ndarray) and maps_tchw.device.type != "cpu":
        import torch.nn.functional as F

        return to_host(F.cosine_similarity(maps_tchw.float(), one_chw[None].float(), dim=1).mean(dim=(1, 2)))
    # On the host by NumPy: torch takes seven times as long for maps of this size.
    maps, one = to_host(maps_tchw), to_host(one_chw)
    maps_tcn, one_cn = maps.reshape(*maps.shape[:2], -1), one.reshape(one.shape[0], -1)
    dots_tn = np.einsum("tcn,cn->tn", maps_tcn, one_cn)
    squares_tn = np.einsum("tcn,tcn->tn", maps_tcn, maps_tcn) * np.einsum("cn,cn->n", one_cn, one_cn)
    return np.asarray((dots_tn / np.maximum(np.sqrt(squares_tn), 1e-8)).mean(1), np.float32)
