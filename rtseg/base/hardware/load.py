"""The CPU time that other processes and the host took from a measurement."""

from __future__ import annotations

import os
from typing import Any

import psutil

from .cpu import cpu_cores

MUCH = 0.05  # share of CPU time for others, or stolen by the host, above which to warn


class Load:
    """The load by other processes, from the creation of this object to `report`."""

    def __init__(self) -> None:
        self._start = (_load_average(), _cpu_seconds(), _own_seconds())

    def report(self) -> tuple[dict[str, Any], list[str]]:
        """Load averages, and the shares of CPU time that other processes used and the host stole; and warnings."""
        load, (busy, stolen, total), own = self._start
        busy_now, stolen_now, total_now = _cpu_seconds()
        found: dict[str, Any] = {"average_at_start": load, "average_at_end": _load_average()}
        if total_now > total:
            passed = total_now - total
            found["others"] = round(max(0.0, (busy_now - busy - (_own_seconds() - own)) / passed), 4)
            found["stolen"] = round((stolen_now - stolen) / passed, 4)
        return found, _warnings(found)


def _warnings(found: dict[str, Any]) -> list[str]:
    warnings = []
    if found["average_at_start"] > 0.25 * cpu_cores():
        average, cores = found["average_at_start"], cpu_cores()
        warnings.append(f"the machine was busy before the benchmark began: load average {average:.2f} on {cores} cores")
    if found.get("others", 0) > MUCH:
        warnings.append(f"other processes used {found['others']:.0%} of the machine meanwhile; trust ratios, not times")
    if found.get("stolen", 0) > MUCH:
        warnings.append(f"the host took away {found['stolen']:.0%} of this machine's time; trust ratios, not times")
    return warnings


def _load_average() -> float:
    return float(round(psutil.getloadavg()[0], 2))


def _cpu_seconds() -> tuple[float, float, float]:
    """CPU seconds since boot: busy, stolen by the host, and in all."""
    times = psutil.cpu_times()
    busy = times.user + times.nice + times.system + getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0)
    stolen = getattr(times, "steal", 0.0)
    return busy, stolen, busy + stolen + times.idle + getattr(times, "iowait", 0.0)


def _own_seconds() -> float:
    """CPU seconds of this process and of its ended child processes."""
    return sum(os.times()[:4])
