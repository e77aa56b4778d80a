"""How the network is run: `open_engine` makes a recipe into the four verbs of `Engine`.

The values that the verbs take and give are the network's; who calls the verbs gets them here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..config import SHIPPED, Recipe, cpu_cores, cpu_flags, file_sha256, load_recipe
from ..errors import EngineError, WeightsError
from ..sam2 import CLAMP_LOGIT, Decoded, Features, Prompts, Recall, Remembered, Sam2, get_preset, load_weights
from .base import Engine, to_input
from .reference import TorchEngine

__all__ = [
    "CLAMP_LOGIT", "Decoded", "Engine", "Features", "Prompts", "Recall", "Remembered", "choose_runtime", "open_engine",
    "spare_core", "to_input",
]  # fmt: skip


def open_engine(recipe: str | Path | Recipe | None = None, **overrides: Any) -> Engine:
    """Open the engine of a recipe file (None: the shipped default). Keywords override the recipe's keys.

    Raises `ConfigError`, `WeightsError` or `EngineError`.
    """
    recipe = load_recipe(recipe, **overrides)
    device, _ = choose_runtime(recipe.runtime)
    if recipe.precision == "auto":
        recipe = replace(recipe, precision=choose_precision(device))
    network = Sam2(get_preset(recipe.model), recipe.image_size)
    path = find_weights(recipe.weights)
    load_weights(network, path)
    return TorchEngine(network, recipe, file_sha256(path), device)


def choose_runtime(runtime: str) -> tuple[str, str]:
    """The torch device for a runtime, and why; `EngineError` where this machine or this version has none."""
    cuda = torch.cuda.is_available()
    if runtime == "cpu":
        return "cpu", "asked for; torch on the CPU"
    if runtime in ("torch", "auto"):
        if cuda:
            return "cuda", f"torch sees {torch.cuda.get_device_name()}"
        return "cpu", "torch sees no CUDA device"
    raise EngineError(f'runtime = "{runtime}": this version of rtseg has no such engine; use "torch", "cpu" or "auto"')


def choose_precision(device: str) -> str:
    """What precision "auto" is on a device: bf16 where it is multiplied natively, else fp32."""
    native = torch.cuda.is_bf16_supported(False) if device == "cuda" else any("bf16" in flag for flag in cpu_flags())
    return "bf16" if native else "fp32"


@contextmanager
def spare_core() -> Iterator[None]:
    """Inside, the network leaves one CPU core to the grabber, the display and the publisher.

    Threads that share out one product wait for the last of them. Where something else wants the same core, that
    costs more than the thread gains: bench/RESULTS.md, "Threads of a live feed".
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, cpu_cores() - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def find_weights(weights: str) -> Path:
    """The file behind the `weights` of a recipe."""
    if weights.startswith("package:"):
        path = SHIPPED / (weights.removeprefix("package:") + ".safetensors")
        if not path.is_file():
            shipped = ", ".join(sorted(f"package:{p.stem}" for p in SHIPPED.glob("*.safetensors"))) or "none"
            raise WeightsError(f"weights = {weights!r}: not shipped in this package; there are: {shipped}")
        return path
    return Path(weights)
