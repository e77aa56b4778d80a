"""The module `tensorrt`, and the process's one logger for it.

TensorRT uses the logger of the first live builder or runtime for all later ones, too. So there is only one, and it
forwards messages to their listeners.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from ...base.errors import EngineError
from ..gpu import Gpu, out_of_memory

if TYPE_CHECKING:
    import tensorrt as trt

OLDEST = (10, 1)  # the first version with strong typing, BF16, INT64, and scratch memory of a known size
FULL = ("out of memory", "outofmemory", "failed_allocation", "mem_alloc", "insufficient memory")


def bindings() -> Any:
    """The module `tensorrt`. Raises `EngineError` if it is missing, has no libraries, or is too old."""
    try:
        import tensorrt
    except (ImportError, OSError) as e:
        if isinstance(e, ModuleNotFoundError) and e.name == "tensorrt":
            raise EngineError(
                "TensorRT is not installed: pip install 'rtseg[tensorrt]', or use runtime = \"cuda\""
            ) from e
        raise EngineError(
            f"TensorRT's Python bindings are installed, its libraries are not ({line(str(e))}): install the package"
            " tensorrt_cu12_libs or tensorrt_cu13_libs of the same version from NVIDIA's index, or put the folder of"
            " libnvinfer.so on LD_LIBRARY_PATH"
        ) from e
    version = tuple(int(part) for part in tensorrt.__version__.split(".")[:2])
    if version < OLDEST:
        raise EngineError(
            f"TensorRT {tensorrt.__version__} is too old: 10.1 or newer is needed; pip install -U tensorrt"
        )
    return tensorrt


class Complaints:
    """Collects the last errors that TensorRT logs, because its calls return only whether they failed."""

    def __init__(self, logger: trt.ILogger) -> None:
        self.trt_logger = logger
        self.lines: deque[str] = deque(maxlen=8)
        self.thread = threading.get_ident()

    def error(self, what: str, remedy: str, gpu: Gpu) -> EngineError:
        """The error for a failed call, with the logged reasons in one line."""
        reasons = "; ".join(self.lines) or "TensorRT gave no reason"
        if any(word in reasons.lower() for word in FULL):
            return out_of_memory(f"{what} ({reasons})", gpu.free_bytes())
        return EngineError(f"{what}: {reasons}; {remedy}")


class Router:
    """Forwards logged lines to their listeners. Any thread may log."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: inside it Python may free objects of TensorRT, which then log
        self._open: list[Complaints] = []

    def open(self, complaints: Complaints) -> None:
        with self._lock:
            self._open.append(complaints)

    def close(self, complaints: Complaints) -> None:
        with self._lock:
            self._open.remove(complaints)

    def hear(self, text: str) -> None:
        """Forward a line to this thread's latest listener, or from a thread without one (TensorRT's own) to all."""
        here = threading.get_ident()
        with self._lock:
            own = [c for c in self._open if c.thread == here]
            for complaints in own[-1:] or self._open:
                complaints.lines.append(line(text))


@contextmanager
def complaints() -> Iterator[Complaints]:
    """A context that collects TensorRT's errors. Make its objects with `trt_logger`."""
    logger, router = _logger(bindings())
    listening = Complaints(logger)
    router.open(listening)
    try:
        yield listening
    finally:
        router.close(listening)


@cache  # so that it outlives all objects that TensorRT makes with it
def _logger(trt: Any) -> tuple[trt.ILogger, Router]:
    router, bad = Router(), (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in bad:
                router.hear(msg)

    return Log(), router


def line(text: str) -> str:
    """The text in one line."""
    return " ".join(text.split())
