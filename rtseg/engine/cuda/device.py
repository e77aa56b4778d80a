"""The GPU of an engine: checks that torch can use it, and turns for the threads and streams that share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

from ...base.errors import EngineError


def check_device(precision: str, device: str) -> None:
    """Raise `EngineError` if torch sees no GPU or cannot run on this one, or if the GPU lacks the precision."""
    if not torch.cuda.is_available():
        remedy = 'see `rtseg doctor`, or use runtime = "cpu" or "auto"'
        raise EngineError(f'runtime = "cuda": torch {torch.__version__} sees no CUDA device; {remedy}')
    name = torch.cuda.get_device_name(device)
    try:
        torch.ones(1, device=device).add_(1).item()
    except torch.OutOfMemoryError:
        raise  # its memory is full, but the GPU works
    except RuntimeError as e:  # this build of torch has no code for the GPU, or the driver is too old
        problem = str(e).splitlines()[0]
        raise EngineError(f"{name}: torch {torch.__version__} cannot run on it ({problem}); see `rtseg doctor`") from e
    with torch.cuda.device(device):
        native = precision != "bf16" or torch.cuda.is_bf16_supported(False)
    if not native:
        raise EngineError(f'precision = "bf16": {name} does not multiply it; use "fp16" or "fp32"')


def indexed(device: str) -> torch.device:
    """The device with its number: "cuda" alone would mean whichever is current at each use."""
    found = torch.device(device)
    if str(found) == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return found


class Turns:
    """Lets threads and streams use one device in turn, because they share the buffers of an engine."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._lock = device, RLock()
        self._streams: dict[int, torch.cuda.Stream] = {}  # of all callers so far; torch has few streams

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A context in which the device is current, and work runs after everything that other callers have queued.

        This includes work that they queued after their own turns: it may still read memory that they have freed, and
        that is overwritten here.
        """
        with self._lock:
            if self._device.type != "cuda":
                yield
                return
            with torch.cuda.device(self._device):
                self._follow(torch.cuda.current_stream())
                yield

    def _follow(self, stream: torch.cuda.Stream) -> None:
        self._streams[int(stream.cuda_stream)] = stream
        for other in self._streams.values():
            if other != stream:
                stream.wait_stream(other)
