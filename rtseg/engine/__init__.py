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

from ..config import SHIPPED, Recipe, cpu_cores, file_sha256, load_recipe
from ..errors import EngineError, WeightsError
from ..sam2 import CLAMP_LOGIT, Decoded, Features, Preset, Prompts, Recall, Remembered, Sam2, get_preset, load_weights
from .artifact import folder_of, locate, stamp
from .base import Engine, Prepares, Rivals, to_input
from .reference import TorchEngine
from .runtimes import best_runtime, device_of, runtime_module, settle

__all__ = [
    "CLAMP_LOGIT", "Decoded", "Engine", "Features", "Prepares", "Prompts", "Recall", "Remembered",
    "Rivals", "open_engine", "spare_core",
    "to_input",
]  # fmt: skip


def open_engine(recipe: str | Path | Recipe | None = None, **overrides: Any) -> Engine:
    """Open the engine of a recipe file (None: the shipped default). Keywords override the recipe's keys.

    What `rtseg build` installed is used where it fits; the engine's `description` says what runs, and why not better.
    Raises `ConfigError`, `WeightsError` or `EngineError`.
    """
    recipe = load_recipe(recipe, **overrides)
    folder = folder_of(recipe)
    before = stamp(folder)
    try:
        engine = _open(recipe)
        if stamp(folder) == before:
            return engine
        del engine  # before the next one needs its room
    except (EngineError, OSError):
        if stamp(folder) == before:
            raise
    # A build has replaced the folder meanwhile: what was loaded may not be what was checked.
    return _open(recipe)


def _open(recipe: Recipe) -> Engine:
    network = Sam2(get_preset(recipe.model), recipe.image_size)
    path = find_weights(recipe.weights)
    load_weights(network, path)
    weights_hash = file_sha256(path)
    recipe, built, why = present(recipe, network.preset, weights_hash)
    if recipe.runtime == "torch":
        return TorchEngine(network, recipe, weights_hash, device_of("torch"))
    engine: Engine = runtime_module(recipe.runtime).open(network, recipe, weights_hash, built)
    if why:
        engine.description += f" ({why})"
    return engine


def present(recipe: Recipe, preset: Preset, weights_hash: str) -> tuple[Recipe, Path | None, str]:
    """The recipe with a definite runtime and precision, its built engine or None, and what was not proved of it, or "".

    "auto" is TensorRT where its engine is built, else CUDA where there is a GPU, else the CPU.
    """
    if recipe.runtime != "auto":
        recipe = settle(recipe)
        built, why = locate(recipe, preset, weights_hash)
        # In fp32 the CPU's engine is the reference's arithmetic, and does not get better by a build.
        plain = recipe.runtime == "torch" or (recipe.runtime == "cpu" and recipe.precision == "fp32")
        return recipe, built, "" if plain else why
    best = replace(recipe, runtime=best_runtime())
    try:
        return present(best, preset, weights_hash)
    except EngineError as e:
        if best.runtime != "tensorrt":
            raise
        recipe, built, _ = present(replace(recipe, runtime="cuda"), preset, weights_hash)
        return recipe, built, f"not proved here: {e}"


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
