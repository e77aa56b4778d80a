"""What a figure was measured on, and whether the machine had anything else to do meanwhile."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from .. import __version__
from .cores import cpu_cores, cpu_flags

MUCH = 0.05  # of the machine's time: more than this for others, or stolen by the host, is worth a warning
PACKAGE = Path(__file__).parents[1]


def facts(device: str = "cuda") -> dict[str, Any]:
    """Processor, memory and GPU, and the threads that torch uses, or would. `device`: which GPU, if it names one."""
    torch = _torch()
    return {
        "cpu": _cpu_model(),
        "cores": cpu_cores(),
        "flags": cpu_flags(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "threads": cpu_cores() if torch is None else torch.get_num_threads(),
        "gpu": _gpu(device),
        "system": f"{platform.system()} {platform.release()}",
    }


def commit() -> str:
    """The commit of the checkout that runs, with `-dirty` where files differ from it; else the package's version."""
    if (PACKAGE.parent / ".git").exists():
        command = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass  # no git, or not ours to read: the version has to do
    return f"rtseg {__version__}"


class Load:
    """How busy others keep the machine, from its making to `report`."""

    def __init__(self) -> None:
        self._start = (_load_average(), _ticks(), _own_ticks())

    def report(self) -> tuple[dict[str, Any], list[str]]:
        """Load averages, the shares of all cores' time that others used or the host stole, and what to warn of."""
        load, (busy, stolen, total), own = self._start
        busy_now, stolen_now, total_now = _ticks()
        found: dict[str, Any] = {"average_at_start": load, "average_at_end": _load_average()}
        if total_now > total:
            passed = total_now - total
            found["others"] = round(max(0.0, (busy_now - busy - (_own_ticks() - own)) / passed), 4)
            found["stolen"] = round((stolen_now - stolen) / passed, 4)
        return found, list(_warnings(found))


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
    return round(os.getloadavg()[0], 2)


def _ticks() -> tuple[int, int, int]:
    """Ticks of all cores since the start of the machine: busy, stolen, and all; zeros where Linux does not say."""
    path = Path("/proc/stat")
    words = path.read_text("utf-8").split("\n", 1)[0].split()[1:9] if path.is_file() else []
    if len(words) < 8:
        return 0, 0, 0
    user, nice, system, idle, waiting, irq, soft, stolen = map(int, words)
    busy = user + nice + system + irq + soft
    return busy, stolen, busy + idle + waiting + stolen


def _own_ticks() -> float:
    """Ticks of this process and of the children that have ended."""
    return sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", path.read_text("utf-8", "replace"), re.M) if path.is_file() else None
    return found[1] if found else platform.machine()


def _gpu(device: str) -> dict[str, Any] | None:
    torch = _torch()
    if torch is None or not torch.cuda.is_available():
        return None
    card = torch.cuda.get_device_properties(device if device.startswith("cuda") else "cuda")
    return {
        "name": card.name,
        "capability": f"{card.major}.{card.minor}",
        "memory_gib": round(card.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def _torch() -> Any:
    """None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch
