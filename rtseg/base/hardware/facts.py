"""The facts that are stored with measured figures: the machine, and the commit."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

from ... import __version__
from .cpu import cpu_cores, cpu_flags, cpu_model
from .gpu import gpu_facts, torch_if_installed
from .memory import total_bytes

PACKAGE = Path(__file__).parents[2]


def facts(device: str = "cuda") -> dict[str, Any]:
    """CPU, memory and GPU, and the number of threads of torch. `device` names the GPU; "cpu" means the first."""
    torch = torch_if_installed()
    return {
        "cpu": cpu_model(),
        "cores": cpu_cores(),
        "flags": cpu_flags(),
        "memory_gib": round(total_bytes() / 2**30, 1),
        "threads": cpu_cores() if torch is None else torch.get_num_threads(),
        "gpu": gpu_facts(device),
        "system": f"{platform.system()} {platform.release()}",
    }


def commit() -> str:
    """The commit of the checkout in use, with `-dirty` if files differ from it; else the package's version."""
    if (PACKAGE.parent / ".git").exists():
        command = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass  # without git, or without the right to read the checkout
    return f"rtseg {__version__}"
