"""The CPU: its model and instruction sets, and the cores and hyperthreads that this process may use.

Two hyperthreads share the arithmetic units of one core. If a network keeps a core busy, a second network thread on it
gains next to nothing, while short work of other processes fits in well.
"""

from __future__ import annotations

import math
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16")

# psutil does not state which processors share a core, the limits of control groups, or the CPU's model and flags.
_CPU_INFO = Path("/proc/cpuinfo")
_TOPOLOGY, _GROUPS, _OWN_GROUPS = Path("/sys/devices/system/cpu"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class Cores:
    """`logical` processors that this process may run on, on `physical` cores.

    `quota` is the share of their time that a container allows, in processors.
    """

    logical: int
    physical: int
    quota: float

    @property
    def usable(self) -> int:
        """How many threads can run at once."""
        return max(1, min(self.logical, math.floor(self.quota + 0.25)))

    @property
    def network_threads(self) -> int:
        """Threads for a network in a live feed: one a core, with one processor left for the other workers.

        The threads of one matrix product wait for the slowest of them. If another process shares its processor, that
        wait costs more than the thread gains (bench/RESULTS.md, "Threads of a live feed").
        """
        return max(1, min(self.physical, self.usable - 1))

    def __str__(self) -> str:
        threads = f" with {self.logical} hyperthreads" if self.logical > self.physical else ""
        limit = f", limited to the time of {self.quota:g}" if self.quota < self.logical else ""
        return f"{self.physical} core{'s' * (self.physical > 1)}{threads}{limit}"


def cores() -> Cores:
    """The cores that this process may use now: affinity and quotas may change while it runs."""
    ours = _processors()
    return Cores(len(ours), len({_core_of(cpu) for cpu in ours}), min(_quota(), float(len(ours))))


def cpu_cores() -> int:
    """How many logical processors this process may use."""
    return len(_processors())


def cpu_flags() -> list[str]:
    """The instruction sets of this CPU from `CPU_FLAGS`, by Linux's names; empty on other systems."""
    words = set(_cpu_info().split())
    return [flag for flag in CPU_FLAGS if flag in words]


def cpu_model() -> str:
    """The CPU's name; its architecture if the name is unknown."""
    found = re.search(r"^model name\s*: (.+)$", _cpu_info(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _cpu_info() -> str:
    return _CPU_INFO.read_text("utf-8", "replace") if _CPU_INFO.is_file() else ""


def _processors() -> list[int]:
    """The numbers of the logical processors that this process may run on."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _core_of(cpu: int) -> str:
    """The processors on the same core as this one; this one alone if unknown."""
    try:
        return (_TOPOLOGY / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _quota() -> float:
    """The CPU time that this process's control groups allow, in processors; infinite without a limit."""
    try:
        lines = [line.split(":", 2) for line in _OWN_GROUPS.read_text().splitlines()]
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
    """The limit of one control group, of version 2 or 1, in processors."""
    try:
        if (folder / "cpu.max").exists():
            allowed, period = (folder / "cpu.max").read_text().split()
        else:
            allowed = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return int(allowed) / int(period) if allowed not in ("max", "-1") else math.inf
    except (OSError, ValueError):
        return math.inf
