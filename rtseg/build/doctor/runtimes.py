"""One finding for each runtime: what works here, or what is missing, with the command that installs it.

Nothing raises, and a finding claims only what was executed. For cuda and tensorrt this is an addition on the GPU, and
loading the libraries; `rtseg build` checks the rest.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...base.errors import EngineError, RtsegError
from ...base.hardware.gpu import jetpack, platform_kind
from .finding import Finding, first_line, has, torch_problem, version
from .gpu import gpu_problem

UNCHECKED = "not executed by the doctor; rtseg build RECIPE checks it here"
NVIDIA_INDEX = "--extra-index-url https://pypi.nvidia.com"


def each_runtime() -> list[Finding]:
    """The findings about torch, cpu, onnx, cuda and tensorrt."""
    return [_guarded(name, check) for name, check in CHECKS.items()]


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as e:  # a library may be broken in any way
        return Finding(f"runtime {name}", None, f"cannot be examined: {type(e).__name__}: {first_line(e)}")


def _torch() -> Finding:
    name = "runtime torch"
    why, remedy = torch_problem()
    if why:
        return Finding(name, False if has("torch") else None, why, remedy)
    import torch

    torch.ones(2, 2) @ torch.ones(2, 2)
    why, remedy = gpu_problem()
    if why:
        return Finding(name, True, f"works on the CPU; on no GPU: {why}", remedy)
    seen = ", ".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
    return Finding(name, True, f"works on the CPU and on {seen} (a number was added there)")


def _cpu() -> Finding:
    name = "runtime cpu"
    if not has("torch"):
        return Finding(name, None, "needs torch, which is not installed", "pip install 'rtseg[torch]'")
    from ...engine.cpu.isa import available_isas, why_not

    if why := why_not():
        return Finding(name, None, f"in torch, without our kernels: {why}")
    return Finding(name, True, f"our kernels load: {', '.join(available_isas())}")


def _onnx() -> Finding:
    name = "runtime onnx"
    if not has("onnxruntime"):
        return Finding(name, None, "onnxruntime is not installed", "pip install onnxruntime")
    try:
        from ...engine.onnx.session import installed

        providers = installed()
    except Exception as e:
        return Finding(name, None, f"onnxruntime cannot be loaded ({first_line(e)})", "pip install -U onnxruntime")
    text = f"loads, onnxruntime {version('onnxruntime')} on: {', '.join(providers)}"
    lacks = [package for package in ("torch", "onnx") if not has(package)]
    if lacks:
        return Finding(
            name,
            True,
            f"{text}; with graphs that are there: to make others {' and '.join(lacks)} is missing",
            "pip install 'rtseg[torch]'",
        )
    return Finding(name, True, text)


def _cuda() -> Finding:
    name = "runtime cuda"
    why, remedy = gpu_problem()
    if why:
        return Finding(name, None, why, remedy)
    return _usable(name, "GPU and torch go together", list(_accelerators()))


def _tensorrt() -> Finding:
    name = "runtime tensorrt"
    problems = [(why, remedy) for why, remedy in (gpu_problem(), _bindings(), _exporter()) if why]
    if problems:
        remedies = dict.fromkeys(remedy for _, remedy in problems if remedy)
        return Finding(name, None, "; ".join(why for why, _ in problems), "; ".join(remedies))
    text = f"TensorRT {version('tensorrt')} loads; the GPU and torch go together"
    return _usable(name, text, list(_accelerators(triton=False)))


def _usable(name: str, text: str, lacks: Sequence[tuple[str, str]]) -> Finding:
    """The finding about a runtime that can be used, even if parts that make it faster are missing (`lacks`)."""
    parts = [text, *(f"without {what}" for what, _ in lacks), UNCHECKED]
    return Finding(name, True, "; ".join(parts), "; ".join(remedy for _, remedy in lacks if remedy))


def _bindings() -> tuple[str, str]:
    """Why TensorRT cannot be imported, and the command that installs it; ("", "") if it can be."""
    if not has("tensorrt"):
        return "TensorRT is not installed", _install_tensorrt()
    from ...engine.tensorrt.library import bindings

    try:
        found = bindings()
    except EngineError as e:
        return first_line(e).partition(": ")[0].removesuffix(" or newer is needed"), _install_tensorrt()
    if not hasattr(found, "Builder"):
        return f"TensorRT {version('tensorrt')} is there without its libraries", _install_tensorrt()
    return "", ""


def _install_tensorrt() -> str:
    """The command that installs TensorRT. On a Jetson it is a part of JetPack: TensorRT 11 has no libraries for it."""
    if platform_kind() != "jetson":
        return f"pip install tensorrt-cu{_cuda_major()} {NVIDIA_INDEX}"
    system = "sudo apt install tensorrt python3-libnvinfer, and a venv made with --system-site-packages"
    return "flash JetPack 7: TensorRT of an older one is for Python 3.10" if (jetpack() or 7) < 7 else system


def _cuda_major() -> int:
    try:
        import torch

        return int((torch.version.cuda or "13").split(".")[0])
    except Exception:
        return 13


def _exporter() -> tuple[str, str]:
    lacks = [name for name in ("onnx", "onnxscript") if not has(name)]
    return (f"{' and '.join(lacks)} not installed", f"pip install {' '.join(lacks)}") if lacks else ("", "")


def _accelerators(triton: bool = True) -> Iterator[tuple[str, str]]:
    """Missing parts that would make the GPU runtimes faster, each with the command that installs it."""
    if triton and not has("triton"):
        yield "triton, so the encoder is not fused", "pip install triton"
    if not (_nvrtc() or has("pycuda")):
        yield "NVRTC, so frames are converted by torch", f"pip install nvidia-cuda-nvrtc{_wheel_suffix()}"


def _wheel_suffix() -> str:
    """The suffix of NVIDIA's wheel names: those of CUDA 12 have one, those of 13 do not."""
    return "-cu12" if _cuda_major() == 12 else ""


def _nvrtc() -> bool:
    try:
        importlib.import_module("rtseg.engine.picture.launch").load_nvrtc()
    except (ImportError, OSError, RtsegError):
        return False
    return True


def nvdec() -> Finding:
    """The finding about decoding on a GPU with PyAV and the driver."""
    name = "nvdec"
    try:
        if "cuda" not in importlib.import_module("av.codec.hwaccel").hwdevices_available():
            return Finding(
                name, None, "this PyAV is built without it; video is decoded on the CPU", "pip install -U av"
            )
        ctypes.CDLL("libnvcuvid.so.1")
    except ImportError:
        return Finding(
            name, None, "this PyAV has no hardware decoding; video is decoded on the CPU", "pip install -U av"
        )
    except OSError:
        text = "PyAV is built for it, the driver's libnvcuvid is not here; video is decoded on the CPU"
        remedy = "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all" if platform_kind() != "jetson" else ""
        return Finding(name, None, text, remedy)
    except Exception as e:
        return Finding(name, None, f"cannot be examined: {first_line(e)}")
    return Finding(name, True, "PyAV and the driver have it; not executed by the doctor")


CHECKS: dict[str, Any] = {"torch": _torch, "cpu": _cpu, "onnx": _onnx, "cuda": _cuda, "tensorrt": _tensorrt}
