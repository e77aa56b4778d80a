"""Why torch cannot use a GPU, and the command that helps."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

from ...base.hardware.gpu import NVIDIA_DEVICES, driver_cuda, driver_version, jetpack, platform_kind
from .finding import first_line, torch_problem

DOCKER = Path("/.dockerenv")
LEAST_DRIVER = {11: 450, 12: 525, 13: 580}  # CUDA version to driver, from NVIDIA's table of minor version compatibility
INDEX = "https://download.pytorch.org/whl"
# JetPack version to wheel index, the first from NVIDIA's community: PyPI's aarch64 wheels are for CPUs or for servers.
JETSON = {6: "https://pypi.jetson-ai-lab.io/jp6/cu126", 7: f"{INDEX}/cu130"}
# For Maxwell to Volta, which CUDA 13 does not support.
OLD_CARDS = f"pip install --force-reinstall torch --index-url {INDEX}/cu126"


def install_torch() -> str:
    """The command that installs torch for this machine's GPU."""
    if platform_kind() == "jetson":
        if jetpack() not in JETSON:
            return "flash JetPack 7, which has Python 3.12, then: rtseg doctor"
        return f"pip install --force-reinstall torch --index-url {JETSON[jetpack() or 7]}"
    known = driver_cuda()
    if known is not None and known[0] < 12:
        return f"update the driver to {LEAST_DRIVER[12]} or newer, then: rtseg doctor"
    return f"pip install --force-reinstall torch --index-url {INDEX}/cu{'126' if known and known[0] == 12 else '130'}"


def gpu_problem() -> tuple[str, str]:
    """Why torch cannot use a GPU, and what to do; ("", "") if it can use all that it sees. Never raises.

    A GPU is usable if an addition on it succeeds.
    """
    problem = torch_problem()
    if problem[0]:
        return problem
    import torch

    try:
        if not torch.cuda.is_available():
            return _unseen(torch)
        for i in range(torch.cuda.device_count()):
            if found := _unusable(torch, i):
                return found
    except Exception as e:
        return f"torch {torch.__version__} cannot ask for GPUs ({first_line(e)})", "check the driver: nvidia-smi"
    return "", ""


def _unseen(torch: Any) -> tuple[str, str]:
    """Why torch sees no GPU, and what to do."""
    known = driver_cuda()
    is_driver = known is not None or any(path.exists() for path in NVIDIA_DEVICES)
    if torch.version.cuda is None and not torch.version.hip:
        what = f"torch {torch.__version__} is a CPU build"
        if is_driver:
            return what, install_torch()
        return f"{what}, and no NVIDIA driver is loaded", f"for an NVIDIA GPU: its driver, and {install_torch()}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if is_driver and visible is not None and visible.strip() in ("", "-1"):
        return f'CUDA_VISIBLE_DEVICES = "{visible}" hides every GPU', "unset CUDA_VISIBLE_DEVICES"
    built = torch.version.cuda or ""
    major = int(built.split(".")[0]) if built else 0
    if known is not None and known[0] < major:
        driver = f"the driver {driver_version()}".rstrip()
        what = f"{driver} runs CUDA {known[0]}.{known[1]} at most, torch is built for {built}"
        if platform_kind() == "jetson":
            return what, install_torch()
        return what, f"update the driver to {LEAST_DRIVER.get(major, 580)} or newer, or: {install_torch()}"
    if not is_driver:
        return "no NVIDIA driver is loaded", _install_driver()
    try:
        torch.cuda.init()
        why = "no reason given"
    except Exception as e:
        why = first_line(e)
    return f"a driver is there, and torch {torch.__version__} sees no GPU ({why})", "check it: nvidia-smi"


def _install_driver() -> str:
    if platform_kind() == "wsl":
        return "install NVIDIA's driver in Windows (none in WSL), then: wsl --shutdown"
    if DOCKER.exists():
        return "start the container with: docker run --gpus all"
    if platform_kind() == "jetson":
        return "flash JetPack again: its driver is part of it"
    if platform.system() == "Linux":
        return "for an NVIDIA GPU: sudo ubuntu-drivers install, or the driver from nvidia.com/drivers"
    return "for an NVIDIA GPU: the driver from nvidia.com/drivers" * (platform.system() == "Windows")


def _unusable(torch: Any, index: int) -> tuple[str, str] | None:
    """Why a GPU that torch sees cannot be used, and what to do; None if it can be."""
    name = torch.cuda.get_device_name(index)
    capability = torch.cuda.get_device_capability(index)
    if not torch.version.hip and not covered(capability, torch.cuda.get_arch_list()):
        has_code = ", ".join(torch.cuda.get_arch_list()) or "none"
        what = f"{name} is sm_{capability[0]}{capability[1]}, torch {torch.__version__} has code for {has_code}"
        return what, OLD_CARDS if capability < (7, 5) else f"pip install -U torch --index-url {INDEX}/cu130"
    try:
        torch.ones(1, device=f"cuda:{index}").add_(1).item()
    except Exception as e:
        why = first_line(e)
        remedy = "close what else uses it" if "memory" in why.lower() else "check it: nvidia-smi; restart the machine"
        return f"cuda:{index} ({name}) does not add a number ({why})", remedy
    return None


def covered(capability: tuple[int, int], architectures: list[str]) -> bool:
    """Whether code for these architectures runs on a GPU: "sm_90" in its major version, "compute_90" and upwards."""
    for word in architectures:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", word)
        if found is None:
            continue
        kind, code = found[1], (int(found[2]), int(found[3]))
        if found[4]:  # code for one architecture (a) or one family (f) only
            fits = code == capability or (found[4] == "f" and code[0] == capability[0] and code <= capability)
        else:
            fits = code <= capability and (kind == "compute" or code[0] == capability[0])
        if fits:
            return True
    return not architectures  # unknown: assume that it runs
