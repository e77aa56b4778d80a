"""How many threads an engine may use, whatever its library. The limit is set while the engine is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from ..base.hardware.cpu import cpu_cores

_MOST: ContextVar[int | None] = ContextVar("most threads of an engine", default=None)


@contextmanager
def at_most(threads: int) -> Iterator[None]:
    """A context in which opened engines use at most this many threads."""
    token = _MOST.set(max(1, threads))
    try:
        yield
    finally:
        _MOST.reset(token)


def spare_core() -> AbstractContextManager[None]:
    """A context in which an opened engine leaves one CPU core to the workers that grab, publish and record.

    The threads of one matrix product wait for the slowest. If something else uses its core, that costs more than the
    thread gains: bench/RESULTS.md, "Threads of a live feed".
    """
    return at_most(cpu_cores() - 1)


def most_threads() -> int | None:
    """The limit, or None; for libraries that choose well by themselves below it."""
    return _MOST.get()


def threads() -> int:
    """How many threads an engine opened now uses: OMP_NUM_THREADS, or else all cores, within the limit."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    wanted = int(text) if text.isdigit() and int(text) else cpu_cores()
    return min(wanted, _MOST.get() or wanted)
