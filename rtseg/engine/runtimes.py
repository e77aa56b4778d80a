"""The runtimes: their names, their modules, and what each can do on this machine.

A runtime's module has `open(network, recipe, weights_hash, built)` and, if there is something to build,
`make(network, recipe, folder, note, pictures)`, which writes into a private folder and returns facts about it. It
imports its vendor's package only inside functions, so that naming a runtime costs nothing. If a runtime works without
torch, its `open` gets a function that makes the network, and calls it only if it needs the network.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ..base.errors import EngineError
from ..base.hardware.cpu import cpu_flags
from ..base.hardware.gpu import GPU_DEVICES, NVIDIA_DEVICES
from ..sam2 import get_preset
from .recipe import Recipe

PRECISIONS: dict[str, tuple[str, ...]] = {
    "torch": ("fp32", "bf16", "fp16"),
    "cpu": ("fp32", "bf16", "int16", "int8"),
    "cuda": ("fp32", "bf16", "fp16"),
    "tensorrt": ("fp32", "bf16", "fp16", "int8", "fp8"),
    "onnx": ("fp32",),
}
ON_GPU = ("cuda", "tensorrt")
ONNX_GPU = ("onnx:cuda", "onnx:tensorrt")  # ONNX Runtime's providers for NVIDIA GPUs
HAVE_GPU = ("torch", "auto", *ON_GPU, *ONNX_GPU)  # runtimes that can work on a GPU
MODULES = {"torch": "reference"}  # runtimes whose module has another name
WITHOUT_TORCH = ("onnx",)  # runtimes that work on numpy arrays


def runtime_module(runtime: str) -> ModuleType:
    """Import and return the module of a runtime."""
    name = family(runtime)
    return importlib.import_module(f"{__package__}.{MODULES.get(name, name)}")


def family(runtime: str) -> str:
    """A runtime's name without its provider: "onnx" for "onnx:openvino"."""
    return runtime.partition(":")[0]


def has_torch() -> bool:
    """Whether torch is installed, without importing it."""
    return _has("torch")


def _has(name: str) -> bool:
    return sys.modules[name] is not None if name in sys.modules else find_spec(name) is not None


def torch_for(what: str) -> Any:
    """Import and return torch for `what`. Raises `EngineError` if it is not installed, or does not load."""
    collects = gc.isenabled()
    gc.disable()  # torch's import makes no garbage, and collections take a tenth of its time
    try:
        import torch
    except (ImportError, OSError) as e:  # a library that it loads may be missing
        why = f"which cannot be loaded ({e})" if has_torch() else "which is not installed"
        instead = 'runtime = "onnx" works without'
        raise EngineError(f"{what} needs torch, {why}: pip install 'rtseg[torch]'; {instead}") from e
    finally:
        if collects:
            gc.enable()
    return torch


def settle(recipe: Recipe) -> Recipe:
    """The recipe without "auto" as runtime, precision or device. Raises `EngineError` for what cannot work here.

    The device of ONNX Runtime stays as the recipe has it, because its providers number GPUs themselves.
    """
    runtime = best_runtime(recipe) if recipe.runtime == "auto" else recipe.runtime
    try:
        device = device_of(runtime, recipe.device)
    except EngineError as e:
        raise EngineError(f"{where(recipe)}: {e}") from e
    precision, possible = recipe.precision, PRECISIONS[family(runtime)]
    if precision == "auto":
        precision = best_precision(runtime, device) if len(possible) > 1 else possible[0]
    if precision not in possible:
        others = " or ".join(f'runtime = "{name}"' for name, has in PRECISIONS.items() if precision in has)
        has = ", ".join(possible)
        raise EngineError(f'{where(recipe)}: precision = "{precision}": {runtime} has {has}; for {precision}: {others}')
    if family(runtime) in WITHOUT_TORCH:
        device = recipe.device
    return replace(recipe, runtime=runtime, precision=precision, device=device)


def best_runtime(recipe: Recipe) -> str:
    """What `runtime = "auto"` means before `rtseg build` has measured: the runtime that is probably the fastest."""
    return next(name for name in ladder(recipe) if name != "tensorrt" or tensorrt_loads())


def ladder(recipe: Recipe) -> list[str]:
    """The candidates for `runtime = "auto"` on this machine, best first; there is always one.

    TensorRT is one if its bindings are installed, even if they do not load: opening it reports why. A device that the
    recipe names is never replaced. Raises `EngineError` if the recipe names a GPU that does not exist.
    """
    if not has_torch():
        return ["onnx"]
    names = []
    if recipe.device.startswith("cuda"):
        device_of("torch", recipe.device)  # raises at once for a GPU that does not exist
    if recipe.device != "cpu" and sees_gpu():
        names = (["tensorrt"] if _has("tensorrt") else []) + ["cuda", "torch"]
    if not recipe.device.startswith("cuda"):
        names += _on_cpu(recipe)
    return [name for name in names if recipe.precision in ("auto", *PRECISIONS[name])] or names[:1]


def _on_cpu(recipe: Recipe) -> list[str]:
    """The runtimes of a CPU, the faster first."""
    try:
        kernels = kernel_precisions(recipe.model)
    except (ImportError, OSError):  # torch does not load: opening the runtime reports it
        return ["cpu", "onnx"]
    if not _has("onnxruntime"):
        return ["cpu"]
    wanted = recipe.precision in kernels or (recipe.precision == "auto" and kernels)
    return ["cpu", "onnx"] if wanted or recipe.precision not in ("auto", "fp32") else ["onnx", "cpu"]


def candidates(recipe: Recipe) -> list[Recipe]:
    """The settled recipes that a recipe with `runtime = "auto"` could be built as here, the most exact first."""
    torch_for("rtseg build")
    found: list[tuple[str, str]] = []
    if recipe.device != "cpu" and sees_gpu():
        device = device_of("cuda", recipe.device)
        precision = best_precision("cuda", device) if recipe.precision == "auto" else recipe.precision
        names = ("cuda", "tensorrt") if tensorrt_loads() else ("cuda",)
        found = [(name, precision) for name in names if precision in PRECISIONS[name]]
    elif not recipe.device.startswith("cuda"):
        found = [("cpu", precision) for precision in kernel_precisions(recipe.model) or ("fp32",)]
        found += [("onnx", "fp32")] if _has("onnxruntime") else []
    if recipe.precision != "auto":
        found = [pair for pair in found if pair[1] == recipe.precision]
    found = found or [(best_runtime(recipe), recipe.precision)]
    return [settle(replace(recipe, runtime=runtime, precision=precision)) for runtime, precision in found]


def kernel_precisions(model: str) -> tuple[str, ...]:
    """The precisions in which our CPU kernels can run a network on this machine, the most exact first."""
    from .cpu.isa import BYTES, PREFERRED, available_isas, lacks

    if lacks(get_preset(model)):
        return ()
    here = set(available_isas())
    here_too = {p: isas for p, isas in PREFERRED.items() if here & set(isas)}
    if not here & set(BYTES):
        del here_too["int8"]  # it would run as int16, which is listed under its own name
    return tuple(here_too)


def sees_gpu() -> bool:
    """Whether torch sees a GPU. Without a loaded driver the answer is no, and torch is not imported."""
    if "torch" not in sys.modules and sys.platform == "linux" and not any(path.exists() for path in GPU_DEVICES):
        return False
    return bool(torch_for('runtime = "auto"').cuda.is_available())


def driver_alone() -> str:
    """One line if there is an NVIDIA driver but torch sees no GPU, else "". Imports nothing."""
    torch = sys.modules.get("torch")
    if not any(path.exists() for path in NVIDIA_DEVICES) or torch is None or torch.cuda.is_available():
        return ""
    return f"there is a driver for an NVIDIA GPU, and torch {torch.__version__} sees none; see: rtseg doctor"


@cache
def tensorrt_loads() -> bool:
    """Whether TensorRT can be imported: its bindings are new enough and find their libraries."""
    from .tensorrt.library import bindings

    try:
        bindings()
    except EngineError:
        return False
    return True


def device_of(runtime: str, device: str = "auto") -> str:
    """The torch device that a runtime, or the reference beside it, works on: "cpu" or "cuda:N".

    `device` is the recipe's. "auto" and "cuda" mean torch's current GPU: unless the program has chosen another, the
    first that the process sees (CUDA_VISIBLE_DEVICES decides which it sees, and in which order). Raises `EngineError`
    for a runtime that does not work on the device, and for a GPU that does not exist.
    """
    wants_gpu = device.startswith("cuda")
    if wants_gpu and runtime not in HAVE_GPU:
        has = '"torch", "cuda" or "tensorrt"'
        raise EngineError(
            f'device = "{device}": runtime = "{runtime}" runs on no CUDA device; for one: runtime = {has}'
        )
    if device == "cpu" and runtime in (*ON_GPU, *ONNX_GPU):
        raise EngineError(f'device = "cpu": runtime = "{runtime}" runs on a GPU only; use runtime = "cpu" or "torch"')
    if family(runtime) in WITHOUT_TORCH:
        return "cpu"
    torch = torch_for(f'runtime = "{runtime}"')
    if runtime == "cpu" or device == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        if runtime not in ON_GPU and not wants_gpu:
            return "cpu"
        setting = f'device = "{device}"' if wants_gpu else f'runtime = "{runtime}"'
        raise EngineError(f'{setting}: torch {torch.__version__} sees no CUDA device; use "cpu", or see: rtseg doctor')
    if ":" not in device:
        return f"cuda:{torch.cuda.current_device() if torch.cuda.is_initialized() else 0}"
    if int(device.partition(":")[2]) >= torch.cuda.device_count():
        raise EngineError(f'device = "{device}": there is no such GPU; torch sees {", ".join(gpus())}{_hidden()}')
    return device


def gpus() -> list[str]:
    """The GPUs that torch sees, as "cuda:0 (NVIDIA H200)"."""
    cuda = torch_for("a GPU").cuda
    return [f"cuda:{i} ({cuda.get_device_name(i)})" for i in range(cuda.device_count() if cuda.is_available() else 0)]


def _hidden() -> str:
    """A hint that CUDA_VISIBLE_DEVICES hides GPUs, or ""."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f' (CUDA_VISIBLE_DEVICES = "{visible}" hides all others)'


def best_precision(runtime: str, device: str) -> str:
    """What `precision = "auto"` means: bf16 if the device multiplies it natively, else fp32, or int16 in our CPU
    kernels: it is nearer to fp32 than bf16 is, and AVX2 multiplies it faster than fp32.
    """
    if device.startswith("cuda"):
        torch = torch_for("a GPU")
        native = torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0)
        return "bf16" if native else "fp32"
    if runtime == "cpu":
        from .cpu.isa import available_isas, why_not

        if why_not() is None:
            return "bf16" if "avx512bf16" in available_isas() else "int16"
    return "bf16" if any("bf16" in flag for flag in cpu_flags()) else "fp32"


def where(recipe: Recipe) -> str:
    """The name of a recipe in error texts."""
    return str(recipe.path or "recipe")
