"""GPUs and their drivers: what can be told without torch, and what torch says of the card.

torch is used where it is installed, and never loaded to say that there is no GPU.
"""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path
from typing import Any

from .memory import available_bytes

DRIVER = Path("/proc/driver/nvidia/version")
NVIDIA_DEVICES = tuple(map(Path, ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvmap")))  # what NVIDIA's drivers make
GPU_DEVICES = (*NVIDIA_DEVICES, Path("/dev/dxg"), Path("/dev/kfd"))  # and WSL's, and AMD's
TEGRA, KERNEL = Path("/etc/nv_tegra_release"), Path("/proc/version")
JETPACKS = {35: 5, 36: 6, 38: 7, 39: 7}  # by the release of Jetson Linux


def platform_kind() -> str:
    """What kind of machine this is, as far as GPUs are concerned: "jetson", "wsl", or "" for any other."""
    if TEGRA.is_file():
        return "jetson"
    kernel = KERNEL.read_text("utf-8", "replace").lower() if KERNEL.is_file() else ""
    return "wsl" if "microsoft" in kernel else ""


def jetpack() -> int | None:
    """The JetPack of a Jetson; None where it cannot be told."""
    text = TEGRA.read_text("utf-8", "replace") if TEGRA.is_file() else ""
    release = re.search(r"R(\d+) \(release\)", text)
    return JETPACKS.get(int(release[1])) if release else None


def driver_version() -> str:
    """The version of NVIDIA's kernel module; "" where it does not say, as on WSL and in some containers."""
    text = DRIVER.read_text("utf-8", "replace") if DRIVER.is_file() else ""
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found[0] if found else ""


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that the driver runs, by its own word; None where there is no driver. No context is made."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        number = ctypes.c_int()
        if library.cuDriverGetVersion(ctypes.byref(number)):
            return None
    except (OSError, AttributeError):
        return None
    return number.value // 1000, number.value % 1000 // 10


def gpu_identity(device: str | int) -> dict[str, str]:
    """Name, compute capability and driver of a GPU that torch sees.

    The driver is "unknown" where it does not say. Two unknown drivers count as the same: else every start on WSL, and
    in some containers, would refuse a built engine.
    """
    torch = sys.modules["torch"]
    capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
    name = str(torch.cuda.get_device_name(device))
    return {"gpu": name, "capability": capability, "driver": driver_version() or "unknown"}


def gpu_facts(device: str) -> dict[str, Any] | None:
    """What figures that were measured on a GPU say of it; None where torch sees none.

    `device`: which GPU, if it names one; else the first.
    """
    torch = torch_if_installed()
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


def free_gpu_bytes(device: str) -> int | None:
    """Memory of a GPU that this process may still take, with what torch keeps for later; None where CUDA fails.

    On a Jetson it is the host's memory, whose caches yield.
    """
    cuda = sys.modules["torch"].cuda
    try:
        free = int(cuda.mem_get_info(device)[0])
        free += int(cuda.memory_reserved(device)) - int(cuda.memory_allocated(device))
        shared = getattr(cuda.get_device_properties(device), "is_integrated", 0)
    except (RuntimeError, AssertionError, AttributeError):  # opening the engine reports why
        return None
    return max(free, available_bytes()) if shared else free


def torch_if_installed() -> Any:
    """The module torch; None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch
