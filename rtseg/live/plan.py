"""Which process of a feed gets how much of the machine: planned before they start, and told to whoever asks.

The network gets whole cores; all that shows the picture is short work, one thread at a time, that fits in beside it.
So every pool of threads but the network's has one thread, and where the pools do not all have a core of their own, no
thread waits busily for work: it would take the processor from those who have some.
"""

from __future__ import annotations

import os

from ..cores import Cores

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
