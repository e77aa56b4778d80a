"""Which process of a feed gets how much of the machine: planned before they start, and told to whoever asks.

The network gets whole cores; all that shows the picture is short work, one thread at a time, that fits in beside it.
So every pool of threads but the network's has one thread, and where the pools do not all have a core of their own, no
thread waits busily for work: it would take the processor from those who have some.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..base.hardware.cpu import Cores
from ..base.types import now_ns
from .vitals import seconds_of

_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_IDLE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}


def threads_of(role: str, cores: Cores) -> int:
    """Threads that a process may compute with at once; a limit that the environment sets is kept."""
    if role != "segment":
        return 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores.network_threads, int(asked)) if asked.isdecimal() and int(asked) else cores.network_threads


def environment(role: str, cores: Cores) -> dict[str, str]:
    """What a process finds in its environment beside ours: the sizes of its pools, and how they wait."""
    threads = threads_of(role, cores)
    shared = threads + 1 > cores.physical
    # OpenCV's pool is for pictures: those of a feed take a millisecond, and cost more when they are shared out.
    return {**dict.fromkeys(_POOLS, str(threads)), "OPENCV_FOR_THREADS_NUM": "1", **(_IDLE if shared else {})}


class Shares:
    """What was planned for each process, and how many cores' time it takes: since the last look, and in all."""

    def __init__(self, cores: Cores) -> None:
        self._cores, self._start_ns = cores, now_ns()
        self._seen: dict[str, tuple[int, float, int]] = {}  # of each role: process, its seconds, and when
        self._total_s: dict[str, float] = {}
        self._now: dict[str, float] = {}

    def look(self, pids: Mapping[str, int | None]) -> None:
        """Take note of the processes as they are now, by role; about twice a second."""
        at_ns = now_ns()
        for role, pid in pids.items():
            used_s = None if pid is None else seconds_of(pid)
            if pid is None or used_s is None:
                self._now[role] = 0.0
                continue
            before = self._seen.get(role)
            since_s, since_ns = (before[1], before[2]) if before and before[0] == pid else (0.0, self._start_ns)
            self._total_s[role] = self._total_s.get(role, 0.0) + used_s - since_s
            self._now[role] = (used_s - since_s) / max(1e-3, (at_ns - since_ns) / 1e9)
            self._seen[role] = pid, used_s, at_ns

    def of(self, role: str) -> dict[str, Any]:
        """For the status: planned threads, and the cores in use."""
        return {"threads": threads_of(role, self._cores), "cores": round(self._now.get(role, 0.0), 2)}

    def report(self, seconds: float) -> dict[str, Any]:
        """For the end: the mean of all of the feed."""
        used = {role: f"{total / seconds:.2f}" for role, total in sorted(self._total_s.items())}
        return {"machine": str(self._cores), "network threads": threads_of("segment", self._cores), "used": used}
