"""GPUs and their drivers, from the system and from torch.

Functions that need torch say so; the others do not import it.
"""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path
from typing import Any

from .memory import available_bytes

DRIVER = Path("/proc/driver/nvidia/version")
NVIDIA_DEVICES = tuple(map(Path, ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvmap")))  # made by NVIDIA's drivers
GPU_DEVICES = (*NVIDIA_DEVICES, Path("/dev/dxg"), Path("/dev/kfd"))  # and WSL's, and AMD's
TEGRA, KERNEL = Path("/etc/nv_tegra_release"), Path("/proc/version")
JETPACKS = {35: 5, 36: 6, 38: 7, 39: 7}  # by the release of Jetson Linux


def platform_kind() -> str:
    """Kind of machine, which decides how drivers are installed: "jetson", "wsl", or "" for any other."""
    if TEGRA.is_file():
        return "jetson"
    kernel = KERNEL.read_text("utf-8", "replace").lower() if KERNEL.is_file() else ""
    return "wsl" if "microsoft" in kernel else ""


def jetpack() -> int | None:
    """The JetPack version of a Jetson; None if unknown."""
    text = TEGRA.read_text("utf-8", "replace") if TEGRA.is_file() else ""
    release = re.search(r"R(\d+) \(release\)", text)
    return JETPACKS.get(int(release[1])) if release else None


def driver_version() -> str:
    """The version of NVIDIA's kernel module; "" if unknown, as on WSL and in some containers."""
    text = DRIVER.read_text("utf-8", "replace") if DRIVER.is_file() else ""
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found[0] if found else ""


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA version that the driver reports; None without a driver. No CUDA context is created."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        number = ctypes.c_int()
        if library.cuDriverGetVersion(ctypes.byref(number)):
            return None
    except (OSError, AttributeError):
        return None
    return number.value // 1000, number.value % 1000 // 10


def gpu_identity(device: str | int) -> dict[str, str]:
    """Name, compute capability and driver version of a GPU, from torch, which must be imported.

    An unknown driver version is "unknown". Two unknown versions count as equal; otherwise every start on WSL, and in
    some containers, would refuse a built engine.
    """
    torch = sys.modules["torch"]
    capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
    name = str(torch.cuda.get_device_name(device))
    return {"gpu": name, "capability": capability, "driver": driver_version() or "unknown"}


def gpu_facts(device: str) -> dict[str, Any] | None:
    """The facts about a GPU that are stored with figures measured on it; None if torch is missing or finds no GPU.

    `device` names the GPU; "cpu" means the first GPU.
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
    """Memory of a GPU that this process can still allocate, including torch's unused cache; None if CUDA fails.

    A Jetson's GPU shares the host's memory, so caches of the host count as free. torch must be imported.
    """
    cuda = sys.modules["torch"].cuda
    try:
        free = int(cuda.mem_get_info(device)[0])
        free += int(cuda.memory_reserved(device)) - int(cuda.memory_allocated(device))
        shared = getattr(cuda.get_device_properties(device), "is_integrated", 0)
    except (RuntimeError, AssertionError, AttributeError):  # opening the engine reports the reason
        return None
    return max(free, available_bytes()) if shared else free


def torch_if_installed() -> Any:
    """The module torch; None if it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch
