"""Which runtimes there are, what each can do on this machine, and the module behind its name.

A runtime's module has `open(network, recipe, weights_hash, built)` and, where there is something to build,
`make(network, recipe, folder, note, pictures)`, which writes into a private folder and returns facts about it. It
imports its vendor's package only inside functions, so that naming a runtime costs nothing. To `open` of a runtime that
works without torch `network` is a function that makes it, which such a runtime calls only where it cannot do without.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from ..config import Recipe, cpu_flags
from ..errors import EngineError

PRECISIONS: dict[str, tuple[str, ...]] = {
    "torch": ("fp32", "bf16", "fp16"),
    "cpu": ("fp32", "bf16", "int8"),
    "cuda": ("fp32", "bf16", "fp16"),
    "tensorrt": ("fp32", "bf16", "fp16", "int8", "fp8"),
    "onnx": ("fp32",),
}
ON_GPU = ("cuda", "tensorrt")
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
    try:
        import torch
    except (ImportError, OSError) as e:  # a library that it loads may be missing
        why = f"which cannot be loaded ({e})" if has_torch() else "which is not installed"
        instead = 'runtime = "onnx" works without'
        raise EngineError(f"{what} needs torch, {why}: pip install 'rtseg[torch]'; {instead}") from e
    return torch


def settle(recipe: Recipe) -> Recipe:
    """The recipe with a definite runtime and precision; `EngineError` where this machine cannot have them."""
    runtime = best_runtime() if recipe.runtime == "auto" else recipe.runtime
    device, possible = device_of(runtime), PRECISIONS[family(runtime)]
    precision = recipe.precision
    if precision == "auto":
        precision = best_precision(device) if len(possible) > 1 else possible[0]
    if precision not in possible:
        others = " or ".join(f'runtime = "{name}"' for name, has in PRECISIONS.items() if precision in has)
        has = ", ".join(possible)
        raise EngineError(f'{where(recipe)}: precision = "{precision}": {runtime} has {has}; for {precision}: {others}')
    return replace(recipe, runtime=runtime, precision=precision)


def best_runtime() -> str:
    """What `runtime = "auto"` builds here."""
    if not has_torch():
        return "onnx"
    if not torch_for('runtime = "auto"').cuda.is_available():
        return "cpu"
    return "tensorrt" if tensorrt_loads() else "cuda"


@cache
def tensorrt_loads() -> bool:
    """Whether TensorRT can be imported, which its bindings without its libraries, or too old, cannot."""
    from .tensorrt.plans import bindings

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


def best_precision(device: str) -> str:
    """What `precision = "auto"` is on a device: bf16 where it is multiplied natively, else fp32."""
    if device == "cuda":
        native = torch_for("a GPU").cuda.is_bf16_supported(False)
    else:
        native = any("bf16" in flag for flag in cpu_flags())
    return "bf16" if native else "fp32"


def where(recipe: Recipe) -> str:
    """A recipe's name in an error."""
    return str(recipe.path or "recipe")
