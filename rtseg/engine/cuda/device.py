"""The GPU of an engine: whether torch can use it, and turns for threads and streams that share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

import torch

from ...base.errors import EngineError


def check_device(precision: str, device: str) -> None:
    """`EngineError` if torch sees no GPU, cannot run on this one, or it does not multiply in this precision."""
    if not torch.cuda.is_available():
        remedy = 'see `rtseg doctor`, or use runtime = "cpu" or "auto"'
        raise EngineError(f'runtime = "cuda": torch {torch.__version__} sees no CUDA device; {remedy}')
    name = torch.cuda.get_device_name(device)
    try:
        torch.ones(1, device=device).add_(1).item()
    except torch.OutOfMemoryError:
        raise  # memory is full; the GPU itself works
    except RuntimeError as e:  # a GPU that this build of torch has no code for, or a driver that is too old
        problem = str(e).splitlines()[0]
        raise EngineError(f"{name}: torch {torch.__version__} cannot run on it ({problem}); see `rtseg doctor`") from e
    with torch.cuda.device(device):
        native = precision != "bf16" or torch.cuda.is_bf16_supported(False)
    if not native:
        raise EngineError(f'precision = "bf16": {name} does not multiply it; use "fp16" or "fp32"')


def indexed(device: str) -> torch.device:
    """A device by number: "cuda" alone would be whichever is current when it is asked."""
    found = torch.device(device)
    if str(found) == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return found


class Turns:
    """One thread at a time on one device, and one stream after the other: the buffers of an engine are shared."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._lock = device, RLock()
        self._streams: dict[int, torch.cuda.Stream] = {}  # of all callers so far; torch has few streams

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Inside, the device is the current one, and its work comes after all that other callers have queued so far.

        Also after what they queued since their own turns: what one has let go of, and still reads, is written over
        here.
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
