"""How many threads an engine may use: set once, around its opening, for whatever library it runs on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from ..base.hardware.cpu import cpu_cores

_MOST: ContextVar[int | None] = ContextVar("most threads of an engine", default=None)


@contextmanager
def at_most(threads: int) -> Iterator[None]:
    """Engines that are opened inside use so many threads at most."""
    token = _MOST.set(max(1, threads))
    try:
        yield
    finally:
        _MOST.reset(token)


def spare_core() -> AbstractContextManager[None]:
    """An engine that is opened inside leaves one CPU core to the grabber, the display and the publisher.

    Threads that share out one product wait for the last of them. Where something else wants the same core, that
    costs more than the thread gains: bench/RESULTS.md, "Threads of a live feed".
    """
    return at_most(cpu_cores() - 1)


def most_threads() -> int | None:
    """The limit if one was set; for a library that chooses well by itself."""
    return _MOST.get()


def threads() -> int:
    """How many threads an engine that is opened now uses: OMP_NUM_THREADS, or else all cores, within the limit."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    wanted = int(text) if text.isdigit() and int(text) else cpu_cores()
    return min(wanted, _MOST.get() or wanted)
