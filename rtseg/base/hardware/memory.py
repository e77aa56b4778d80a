"""Memory of the host and of this process, in bytes."""

from __future__ import annotations

import re
from pathlib import Path

import psutil


def total_bytes() -> int:
    """Memory of this machine."""
    return int(psutil.virtual_memory().total)


def available_bytes() -> int:
    """Memory that can be allocated without swapping."""
    return int(psutil.virtual_memory().available)


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """The peak of `resident_bytes`; 0 on systems other than Linux.

    Not from `getrusage`, where a process begins with the peak of its parent, nor from psutil, which has no peak.
    """
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text("utf-8"), re.MULTILINE) if status.is_file() else None
    return int(found[1]) * 1024 if found else 0
