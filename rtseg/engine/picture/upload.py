"""Asynchronous copies from the host to a device, through pinned memory, which is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..gpu import Gpu

SMALL = 4096  # bytes of a buffer at least: enough for the points and labels of prompts


class PinnedBuffer:
    """Pinned memory that is uploaded in one copy, and may be written again when that copy is done."""

    def __init__(self, nbytes: int, device: torch.device) -> None:
        self.bytes_u8 = torch.zeros(nbytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._uploaded: torch.cuda.Event | None = None  # None: not uploaded yet, or on a CPU

    def wait(self) -> None:
        """Wait until the last copy is done. It usually is, unless the caller is far ahead of the device."""
        if self._uploaded is not None and not self._uploaded.query():
            self._uploaded.synchronize()

    def up(self, to_u8: Tensor) -> None:
        """Start a copy of the first bytes to `to_u8`, as many as it holds."""
        to_u8.copy_(self.bytes_u8[: len(to_u8)], non_blocking=True)
        if to_u8.is_cuda:
            self._uploaded = self._uploaded or torch.cuda.Event()
            self._uploaded.record(torch.cuda.current_stream(to_u8.device))  # the copy's device may not be current


class Uploader:
    """Uploads arrays without waiting, through a few pinned buffers that are used in turn.

    Threads may share it: each takes a buffer of its own to fill.
    """

    def __init__(self, nbytes: int, device: torch.device, count: int = 4) -> None:
        """`nbytes`: the size of each buffer. A larger array replaces its buffer by a larger one, once."""
        self._device = device
        self._hosts = deque(PinnedBuffer(max(nbytes, SMALL), device) for _ in range(count))

    def __call__(self, array: np.ndarray[Any, Any]) -> Tensor:
        """A tensor on the device with the present content of the array."""
        given = torch.from_numpy(np.ascontiguousarray(array))
        host = self._taken(given.nbytes)
        host.wait()
        host.bytes_u8[: given.nbytes].view(given.dtype).view(given.shape).copy_(given)
        device_u8 = torch.empty(given.nbytes, dtype=torch.uint8, device=self._device)
        host.up(device_u8)
        self._hosts.append(host)
        return device_u8.view(given.dtype).view(given.shape)

    def _taken(self, nbytes: int) -> PinnedBuffer:
        try:
            host = self._hosts.popleft()
        except IndexError:  # every buffer is in use by another thread
            return PinnedBuffer(max(nbytes, SMALL), self._device)
        return host if len(host.bytes_u8) >= nbytes else PinnedBuffer(nbytes, self._device)


class DoubleUpload:
    """Bytes on the device, and two pinned copies of them on the host: one is filled while the other is uploaded."""

    def __init__(self, device_u8: Tensor, gpu: Gpu) -> None:
        self.device_u8 = device_u8
        self._hosts = [(gpu.pinned((device_u8.numel(),), torch.uint8), gpu.event()) for _ in range(2)]

    @contextmanager
    def filling(self, count: int | None = None) -> Iterator[Tensor]:
        """A context in which the host's bytes are written. At its end all, or the first `count`, are uploaded.

        Call it only inside the GPU's `work`.
        """
        host_u8, sent = self._hosts[0]
        self._hosts.reverse()
        if not sent.query():  # the upload before the last is done, unless the caller is two frames ahead of the device
            sent.synchronize()
        yield host_u8
        self.device_u8[:count].copy_(host_u8[:count], non_blocking=True)
        sent.record()
