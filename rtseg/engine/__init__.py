"""How the network is run: `open_engine` makes a recipe into the four verbs of `Engine`.

The values that the verbs take and give are the network's; who calls the verbs gets them here. torch is imported by the
engines that run in it, and by nothing that is needed before.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import SHIPPED, Recipe, file_sha256, load_recipe
from ..documents import is_file
from ..errors import EngineError, WeightsError
from ..forks import ADVICE, in_child, refuse, was_forked
from ..sam2 import ABSENT_LOGIT, CLAMP_LOGIT, Array, Decoded, Features, Preset, Prompts, Recall, Remembered, get_preset
from .artifact import fastest, folder_of, locate, stamp
from .base import Engine, Prepares, Readies, Rivals, to_planes
from .runtimes import WITHOUT_TORCH, best_runtime, device_of, family, runtime_module, settle
from .threads import spare_core

if TYPE_CHECKING:
    from ..sam2 import Sam2
    from .reference import to_input

__all__ = [
    "ABSENT_LOGIT", "CLAMP_LOGIT", "Array", "Decoded", "Engine", "Features", "Prepares", "Prompts", "Readies",
    "Recall", "Remembered", "Rivals", "open_engine", "spare_core", "to_input", "to_planes",
]  # fmt: skip

VERBS = ("prepare", "encode_image", "attend", "decode", "remember", "track", "rivals")


def __getattr__(name: str) -> Any:
    if name != "to_input":
        raise AttributeError(f"module 'rtseg.engine' has no attribute {name!r}")
    from .reference import to_input

    return to_input


def open_engine(recipe: str | Path | Recipe | None = None, **overrides: Any) -> Engine:
    """Open the engine of a recipe file (None: the shipped default). Keywords override the recipe's keys.

    What `rtseg build` installed is used where it fits; the engine's `description` says what runs, and why not better.
    An engine belongs to the process that opened it: in a child that is forked later its verbs raise `EngineError`.
    Raises `ConfigError`, `WeightsError` or `EngineError`.
    """
    recipe = load_recipe(recipe, **overrides)
    if was_forked() and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # the parent's OpenMP threads are not here, and would be waited for
    engine = _opened(recipe)
    in_child(engine, _put_out)
    return engine


def _put_out(engine: Engine) -> None:
    text = f"this engine was opened before the process was forked, and its threads are the parent's; {ADVICE}"
    refuse(engine, VERBS, EngineError(text))


def _opened(recipe: Recipe) -> Engine:
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
    preset, path = get_preset(recipe.model), find_weights(recipe.weights)
    weights_hash = file_sha256(path)
    recipe, built, why = present(recipe, preset, weights_hash)
    network = partial(load_network, preset, recipe.image_size, path)
    if recipe.runtime == "torch":
        from .reference import TorchEngine

        return TorchEngine(network(), recipe, weights_hash, device_of("torch"))
    module = runtime_module(recipe.runtime)
    given = network if family(recipe.runtime) in WITHOUT_TORCH else network()
    engine: Engine = module.open(given, recipe, weights_hash, built)
    if why:
        engine.description += f" ({why})"
    return engine


def present(recipe: Recipe, preset: Preset, weights_hash: str) -> tuple[Recipe, Path | None, str]:
    """The recipe with a definite runtime and precision, its built engine or None, and what was not proved of it, or "".

    "auto" is what `rtseg build` has measured to be the fastest here; without a build TensorRT or CUDA where there is a
    GPU, else our CPU kernels, else ONNX Runtime.
    """
    if recipe.runtime != "auto":
        recipe = settle(recipe)
        built, why = locate(recipe, preset, weights_hash)
        return recipe, built, "" if recipe.runtime == "torch" else why
    for measured in fastest(recipe):
        found, built, why = present(measured, preset, weights_hash)
        if built is not None:
            return found, built, why or "the fastest that rtseg build measured here"
    best = replace(recipe, runtime=best_runtime(recipe))
    try:
        return present(best, preset, weights_hash)
    except EngineError as e:
        if best.runtime != "tensorrt":
            raise
        recipe, built, _ = present(replace(recipe, runtime="cuda"), preset, weights_hash)
        return recipe, built, f"not proved here: {e}"


def load_network(preset: Preset, image_size: int, weights: Path) -> Sam2:
    """The network in torch, with its weights."""
    from ..sam2 import Sam2, load_weights
    from .reference import one_thread

    with one_thread():
        network = Sam2(preset, image_size)
        load_weights(network, weights)
    return network


def find_weights(weights: str) -> Path:
    """The file behind the `weights` of a recipe; `WeightsError` if there is none."""
    if weights.startswith("package:"):
        path = SHIPPED / (weights.removeprefix("package:") + ".safetensors")
        if not is_file(path):
            shipped = ", ".join(sorted(f"package:{p.stem}" for p in SHIPPED.glob("*.safetensors"))) or "none"
            raise WeightsError(f"weights = {weights!r}: not shipped in this package; there are: {shipped}")
        return path
    path = Path(weights)
    if not is_file(path):
        raise WeightsError(f"{path}: no such file; expected weights as .pt or .safetensors")
    return path
