"""What processors there are for us: cores, the hyperthreads on them, and what a container allows of both.

Two hyperthreads share the arithmetic of one core: beside a network that keeps it busy, a second network thread on the
same core gains next to nothing, while the short work of other processes fits in well.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

_SYSTEM, _GROUPS, _OWN = Path("/sys/devices/system/cpu"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16")


@dataclass(frozen=True, slots=True)
class Cores:
    """`logical` processors that this process may run on, on `physical` cores; `quota`: of how many it gets the time."""

    logical: int
    physical: int
    quota: float

    @property
    def usable(self) -> int:
        """How many threads can run at once."""
        return max(1, min(self.logical, math.floor(self.quota + 0.25)))

    @property
    def network_threads(self) -> int:
        """Threads for a network beside a feed: one a core, and one processor is left for all the others.

        Threads that share out one product wait for the last of them: where something else wants the same processor,
        that costs more than a thread gains (bench/RESULTS.md, "Threads of a live feed").
        """
        return max(1, min(self.physical, self.usable - 1))

    def __str__(self) -> str:
        threads = f" with {self.logical} hyperthreads" if self.logical > self.physical else ""
        limit = f", limited to the time of {self.quota:g}" if self.quota < self.logical else ""
        return f"{self.physical} core{'s' * (self.physical > 1)}{threads}{limit}"


def cores() -> Cores:
    """As it is now: affinity and quotas may change while we run."""
    ours = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return Cores(len(ours), len({_core_of(cpu) for cpu in ours}), min(_quota(), float(len(ours))))


def _core_of(cpu: int) -> str:
    """The processors that share a core with this one; itself, where the system does not say."""
    try:
        return (_SYSTEM / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> float:
    """Of how many processors our control groups allow the time; infinite where there is no limit."""
    try:
        lines = [line.split(":", 2) for line in _OWN.read_text().splitlines()]
    except OSError:
        return math.inf
    found = [math.inf]
    for _, kinds, path in lines:
        if kinds and "cpu" not in kinds.split(","):
            continue
        root = _GROUPS / "cpu" if kinds else _GROUPS
        for folder in (root / path.lstrip("/"), *(root / path.lstrip("/")).parents):
            found.append(_limit_of(folder))
            if folder == root:
                break
    return min(found)


def _limit_of(folder: Path) -> float:
    """The limit of one control group, of version 2 or 1."""
    try:
        if (folder / "cpu.max").exists():
            allowed, period = (folder / "cpu.max").read_text().split()
        else:
            allowed = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return int(allowed) / int(period) if allowed not in ("max", "-1") else math.inf
    except (OSError, ValueError):
        return math.inf


def cpu_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_flags() -> list[str]:
    """The instruction sets of this CPU that matter here, as Linux names them; empty where it does not say."""
    info = Path("/proc/cpuinfo")
    words = set(info.read_text("utf-8", "replace").split()) if info.is_file() else set()
    return [flag for flag in CPU_FLAGS if flag in words]
