"""How the processors are divided among the workers of a feed: decided before they start, and shown in the status.

The network gets whole cores. Showing the picture is short work of one thread at a time, which fits in between. So every
thread pool except the network's has one thread. If the pools have to share cores, threads that wait for work sleep
instead of spinning, which would take the processor from the others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..base.hardware.cpu import Cores
from ..base.types import now_ns
from .activity import cpu_seconds

_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_NO_SPINNING = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}


def threads_for(role: str, cores: Cores) -> int:
    """Threads with which a worker may compute at once; a limit that the environment sets is respected."""
    if role != "segment":
        return 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores.network_threads, int(asked)) if asked.isdecimal() and int(asked) else cores.network_threads


def environment(role: str, cores: Cores) -> dict[str, str]:
    """Environment variables of a worker: the sizes of its thread pools, and how they wait."""
    threads = threads_for(role, cores)
    shared = threads + 1 > cores.physical
    # OpenCV's work on a feed's pictures takes a millisecond, and costs more when it is split among threads.
    return {**dict.fromkeys(_POOLS, str(threads)), "OPENCV_FOR_THREADS_NUM": "1", **(_NO_SPINNING if shared else {})}


class CoreUse:
    """The threads that each worker may use, and the cores that it uses: since the last measurement, and on average."""

    def __init__(self, cores: Cores) -> None:
        self._cores, self._start_ns = cores, now_ns()
        self._seen: dict[str, tuple[int, float, int]] = {}  # by role: process, its CPU seconds, time of measurement
        self._total_s: dict[str, float] = {}
        self._now: dict[str, float] = {}

    def look(self, pids: Mapping[str, int | None]) -> None:
        """Measure the processes as they are now, by role; about twice a second."""
        at_ns = now_ns()
        for role, pid in pids.items():
            used_s = None if pid is None else cpu_seconds(pid)
            if pid is None or used_s is None:
                self._now[role] = 0.0
                continue
            before = self._seen.get(role)
            since_s, since_ns = (before[1], before[2]) if before and before[0] == pid else (0.0, self._start_ns)
            self._total_s[role] = self._total_s.get(role, 0.0) + used_s - since_s
            self._now[role] = (used_s - since_s) / max(1e-3, (at_ns - since_ns) / 1e9)
            self._seen[role] = pid, used_s, at_ns

    def status(self, role: str) -> dict[str, Any]:
        """For the status: allowed threads, and cores in use."""
        return {"threads": threads_for(role, self._cores), "cores": round(self._now.get(role, 0.0), 2)}

    def report(self, seconds: float) -> dict[str, Any]:
        """For the feed's report: averages over the whole feed."""
        used = {role: f"{total / seconds:.2f}" for role, total in sorted(self._total_s.items())}
        return {"machine": str(self._cores), "network threads": threads_for("segment", self._cores), "used": used}
