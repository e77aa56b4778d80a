"""Operations on an engine's arrays, for torch and numpy alike.

The two share most names (`stack`, `concat`, `clip`, `asarray`, ...), so callers mostly need an array's module alone.
torch is imported only to work on a tensor, whose maker has imported it already.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ..base.types import Float32
from ..sam2 import Array


def namespace(x: Array) -> ModuleType:
    """The library of an array: the module numpy or torch."""
    if isinstance(x, np.ndarray):
        return np
    import torch

    return torch


def on_host(x: Array) -> bool:
    """Whether the host can read an array in place, without a copy and without waiting for a device."""
    return isinstance(x, np.ndarray) or x.device.type == "cpu"


class _Downloads(threading.local):
    """Pinned host memory for copies from GPUs, and an event for each, one pair for each thread and device.

    It is kept, because pinning memory for one copy costs more than the copy, and unpinned memory is copied twice.
    """

    def __init__(self) -> None:
        self._by_device: dict[str, tuple[Any, Any]] = {}

    def on(self, device: Any, numbers: int) -> tuple[Any, Any]:
        """Pinned fp32 memory for this many numbers from a device, and an event."""
        import torch

        buffer, event = self._by_device.get(str(device), (None, None))
        if buffer is None or len(buffer) < numbers:
            with torch.inference_mode(False):  # a tensor made in inference mode cannot be written to outside it
                length = 1 << (numbers - 1).bit_length()  # a power of two, so that more objects rarely need a new one
                buffer = torch.empty(length, dtype=torch.float32, pin_memory=True)
            event = event or torch.cuda.Event()
            self._by_device[str(device)] = buffer, event
        return buffer[:numbers], event


_DOWNLOADS = _Downloads()
_NONE = np.empty(0, np.float32)


def to_host(x: Array) -> Float32:
    """An array as a numpy array in fp32. A tensor on a GPU is copied, and the host waits for the copy."""
    if isinstance(x, np.ndarray):
        return x.astype(np.float32, copy=False)
    plain = x.detach().float()
    host: Float32 = _landed(plain) if plain.is_cuda else plain.cpu().numpy()
    return host


def _landed(x: Array) -> Float32:
    """Copy a GPU's tensor to new memory on the host. It waits for this copy, but not for work queued after it."""
    import torch

    buffer, event = _DOWNLOADS.on(x.device, x.numel())
    buffer.copy_(x.reshape(-1), non_blocking=True)
    event.record(torch.cuda.current_stream(x.device))
    event.synchronize()
    host: Float32 = buffer.numpy().copy().reshape(x.shape)
    return host


def copy_to_host(arrays: Sequence[Array]) -> list[Float32]:
    """Copy arrays to new fp32 numpy arrays. All arrays of a GPU are copied at once, so that the host waits once."""
    here = [on_host(x) for x in arrays]
    host: list[Float32] = [to_host(x).copy() if own else _NONE for x, own in zip(arrays, here, strict=True)]
    if all(here):
        return host
    away = [i for i, own in enumerate(here) if not own]
    for device in {arrays[i].device for i in away}:
        rows = [i for i in away if arrays[i].device == device]
        flat = to_host(namespace(arrays[rows[0]]).concat([arrays[i].reshape(-1).float() for i in rows]))
        ends = np.cumsum([arrays[i].numel() for i in rows])[:-1]
        for i, part in zip(rows, np.split(flat, ends), strict=True):
            host[i] = part.reshape(tuple(arrays[i].shape))
    return host


def sigmoid(x: Array) -> Array:
    """The probabilities of logits."""
    if isinstance(x, np.ndarray):
        return 0.5 + 0.5 * np.tanh(0.5 * x)  # 1 / (1 + exp(-x)) would overflow
    return x.sigmoid()


def cosine_similarity(maps_tchw: Array, one_chw: Array) -> Float32:
    """The similarity of each memory with `one_chw`, [t]: the cosine over the channels of each cell, averaged.

    A perceiver's latents are compared in the same way, each with the same latent of the other memory.
    """
    if not on_host(one_chw):
        return to_host(cosine_similarities(namespace(one_chw).concat([maps_tchw, one_chw[None]])[None]))[0]
    # On the host with numpy: torch takes seven times as long for maps of this size.
    maps, one = to_host(maps_tchw), to_host(one_chw)
    maps_tcn, one_cn = maps.reshape(*maps.shape[:2], -1), one.reshape(one.shape[0], -1)
    dots_tn = np.einsum("tcn,cn->tn", maps_tcn, one_cn)
    squares_tn = np.einsum("tcn,tcn->tn", maps_tcn, maps_tcn) * np.einsum("cn,cn->n", one_cn, one_cn)
    return np.asarray((dots_tn / np.maximum(np.sqrt(squares_tn), 1e-8)).mean(1), np.float32)


def cosine_similarities(maps_btchw: Array) -> Array:
    """The similarity of each map of b objects with the object's last map: a tensor [b, t - 1] on the maps' device."""
    maps_btchw = maps_btchw.float()
    length_bthw = maps_btchw.norm(dim=2)
    dots_bthw = (maps_btchw[:, :-1] * maps_btchw[:, -1:]).sum(2)
    return (dots_bthw / (length_bthw[:, :-1] * length_bthw[:, -1:]).clamp(min=1e-8)).mean((2, 3))
