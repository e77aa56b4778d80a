"""From the host to a device without a wait: by way of pinned memory, which is kept."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALL = 4096  # bytes of a buffer at least: points and labels of prompts


class PinnedBuffer:
    """Pinned memory that goes up in one copy; it may be written again once the copy before is over."""

    def __init__(self, nbytes: int, device: torch.device) -> None:
        self.bytes_u8 = torch.zeros(nbytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._uploaded: torch.cuda.Event | None = None  # None: never, or on a CPU

    def wait(self) -> None:
        """Until the copy before is over, which it is, unless the caller is far ahead of the device."""
        if self._uploaded is not None and not self._uploaded.query():
            self._uploaded.synchronize()

    def up(self, to_u8: Tensor) -> None:
        """Start to copy as much as there is room for."""
        to_u8.copy_(self.bytes_u8[: len(to_u8)], non_blocking=True)
        if to_u8.is_cuda:
            self._uploaded = self._uploaded or torch.cuda.Event()
            self._uploaded.record(torch.cuda.current_stream(to_u8.device))  # that of the copy, whatever GPU is current


class Lift:
    """Arrays from the host to a device without a wait: by way of a few pinned buffers that are used in turn.

    Threads may share it: each has a buffer of its own while it fills it.
    """

    def __init__(self, nbytes: int, device: torch.device, count: int = 4) -> None:
        """`nbytes`: what is pinned now; an array that is larger makes its buffer grow, once."""
        self._device = device
        self._hosts = deque(PinnedBuffer(max(nbytes, SMALL), device) for _ in range(count))

    def __call__(self, array: np.ndarray[Any, Any]) -> Tensor:
        """A tensor on the device with what is in the array now."""
        given = torch.from_numpy(np.ascontiguousarray(array))
        host = self._taken(given.nbytes)
        host.wait()
        host.bytes_u8[: given.nbytes].view(given.dtype).view(given.shape).copy_(given)
        lifted_u8 = torch.empty(given.nbytes, dtype=torch.uint8, device=self._device)
        host.up(lifted_u8)
        self._hosts.append(host)
        return lifted_u8.view(given.dtype).view(given.shape)

    def _taken(self, nbytes: int) -> PinnedBuffer:
        try:
            host = self._hosts.popleft()
        except IndexError:  # as many threads as buffers are at it
            return PinnedBuffer(max(nbytes, SMALL), self._device)
        return host if len(host.bytes_u8) >= nbytes else PinnedBuffer(nbytes, self._device)
