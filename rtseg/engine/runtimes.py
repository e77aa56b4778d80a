"""Which runtimes there are, what each can do on this machine, and the module behind its name.

A runtime's module has `open(network, recipe, weights_hash, built)` and, where there is something to build,
`make(network, recipe, folder, note, pictures)`, which writes into a private folder and returns facts about it. It
imports its vendor's package only inside functions, so that naming a runtime costs nothing. To `open` of a runtime that
works without torch `network` is a function that makes it, which such a runtime calls only where it cannot do without.
"""

from __future__ import annotations

import gc
import importlib
import sys
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from ..config import Recipe, cpu_flags
from ..errors import EngineError
from ..sam2 import get_preset

PRECISIONS: dict[str, tuple[str, ...]] = {
    "torch": ("fp32", "bf16", "fp16"),
    "cpu": ("fp32", "bf16", "int16", "int8"),
    "cuda": ("fp32", "bf16", "fp16"),
    "tensorrt": ("fp32", "bf16", "fp16", "int8", "fp8"),
    "onnx": ("fp32",),
}
ON_GPU = ("cuda", "tensorrt")
DRIVERS = tuple(map(Path, ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvmap", "/dev/dxg", "/dev/kfd")))  # of GPUs
WITHOUT_TORCH = ("onnx",)  # runtimes that work with numpy's arrays


def runtime_module(runtime: str) -> ModuleType:
    """The module of a runtime that is not `torch`."""
    return importlib.import_module(f"{__package__}.{family(runtime)}")


def family(runtime: str) -> str:
    """A runtime without the provider that it is to run on: "onnx:openvino" is of "onnx"."""
    return runtime.partition(":")[0]


def has_torch() -> bool:
    """Whether torch is installed; it is not imported."""
    return find_spec("torch") is not None


def torch_for(what: str) -> Any:
    """torch; `EngineError` where it is not installed, or does not load."""
    collects = gc.isenabled()
    gc.disable()  # of all that torch makes while it is imported nothing is garbage; looking costs a tenth of the time
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
    """The recipe with a definite runtime and precision; `EngineError` where this machine cannot have them."""
    runtime = best_runtime(recipe) if recipe.runtime == "auto" else recipe.runtime
    device, possible = device_of(runtime), PRECISIONS[family(runtime)]
    precision = recipe.precision
    if precision == "auto":
        precision = best_precision(runtime, device) if len(possible) > 1 else possible[0]
    if precision not in possible:
        others = " or ".join(f'runtime = "{name}"' for name, has in PRECISIONS.items() if precision in has)
        has = ", ".join(possible)
        raise EngineError(f'{where(recipe)}: precision = "{precision}": {runtime} has {has}; for {precision}: {others}')
    return replace(recipe, runtime=runtime, precision=precision)


def best_runtime(recipe: Recipe) -> str:
    """What `runtime = "auto"` is where `rtseg build` has not measured it: the best that is likely to be."""
    if not has_torch():
        return "onnx"
    if sees_gpu():
        return "tensorrt" if tensorrt_loads() else "cuda"
    kernels = kernel_precisions(recipe.model)
    if recipe.precision in kernels or (recipe.precision == "auto" and kernels):
        return "cpu"
    return "onnx" if recipe.precision in ("auto", "fp32") and find_spec("onnxruntime") else "cpu"


def candidates(recipe: Recipe) -> list[Recipe]:
    """All that a recipe with `runtime = "auto"` could be on this machine, settled; the most exact first."""
    found: list[tuple[str, str]] = []
    if torch_for("rtseg build").cuda.is_available():
        precision = best_precision("cuda", "cuda")
        found = [("cuda", precision)] + ([("tensorrt", precision)] if tensorrt_loads() else [])
    else:
        found = [("cpu", precision) for precision in kernel_precisions(recipe.model) or ("fp32",)]
        found += [("onnx", "fp32")] if find_spec("onnxruntime") else []
    if recipe.precision != "auto":
        found = [pair for pair in found if pair[1] == recipe.precision] or [(best_runtime(recipe), recipe.precision)]
    return [settle(replace(recipe, runtime=runtime, precision=precision)) for runtime, precision in found]


def kernel_precisions(model: str) -> tuple[str, ...]:
    """The precisions that our CPU kernels run a network in here, the most exact first."""
    from .cpu.isa import BYTES, PREFERRED, available_isas, why_not

    if why_not():  # before torch is imported
        return ()
    from .cpu import lacks

    if lacks(get_preset(model)):
        return ()
    here = set(available_isas())
    here_too = {p: isas for p, isas in PREFERRED.items() if here & set(isas)}
    if not here & set(BYTES):
        del here_too["int8"]  # int16 stands in for it, and is there by its own name
    return tuple(here_too)


def sees_gpu() -> bool:
    """Whether torch sees a GPU; where no driver for one is loaded, torch is not imported to say so."""
    if "torch" not in sys.modules and sys.platform == "linux" and not any(path.exists() for path in DRIVERS):
        return False
    return bool(torch_for('runtime = "auto"').cuda.is_available())


@cache
def tensorrt_loads() -> bool:
    """Whether TensorRT can be imported, which its bindings without its libraries, or too old, cannot."""
    from .tensorrt.library import bindings

    try:
        bindings()
    except EngineError:
        return False
    return True


def device_of(runtime: str) -> str:
    """The torch device that a runtime, or the reference beside it, works on. `EngineError`: no GPU for it."""
    if family(runtime) in WITHOUT_TORCH:
        return "cpu"
    torch = torch_for(f'runtime = "{runtime}"')
    gpu = torch.cuda.is_available()
    if runtime in ON_GPU and not gpu:
        raise EngineError(
            f'runtime = "{runtime}": torch {torch.__version__} sees no CUDA device; use "cpu", or see: rtseg doctor'
        )
    return "cuda" if gpu and runtime != "cpu" else "cpu"


def best_precision(runtime: str, device: str) -> str:
    """What `precision = "auto"` is: bf16 where it is multiplied natively, else fp32; for our CPU kernels, else int16.

    int16 is nearer to fp32 than bf16 is, and AVX2 multiplies it faster than fp32.
    """
    if device == "cuda":
        native = torch_for("a GPU").cuda.is_bf16_supported(False)
        return "bf16" if native else "fp32"
    if runtime == "cpu":
        from .cpu.isa import available_isas, why_not

        if why_not() is None:
            return "bf16" if "avx512bf16" in available_isas() else "int16"
    return "bf16" if any("bf16" in flag for flag in cpu_flags()) else "fp32"


def where(recipe: Recipe) -> str:
    """A recipe's name in an error."""
    return str(recipe.path or "recipe")
