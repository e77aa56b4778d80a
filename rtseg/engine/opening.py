"""Opening the engine of a recipe: the runtime that it names, or with "auto" the best that opens on this machine."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..base.errors import ConfigError, EngineError, RtsegError, WeightsError
from ..base.forks import ADVICE, disable_after_fork, disable_methods, was_forked
from ..sam2 import Preset, get_preset
from .adapted import read_adapted, with_adapters
from .artifact import fastest, locate, stamp
from .base import Engine
from .memory_estimate import check as check_room
from .recipe import Recipe, load_recipe
from .refusal import folder_of
from .runtimes import ON_GPU, WITHOUT_TORCH, driver_alone, family, ladder, runtime_module, settle, where
from .weights import fetch_weights, find_weights, hash_weights, load_network

VERBS = ("prepare", "encode_image", "attend", "decode", "remember", "track", "rivals")  # of an engine
WITH_GPU = (*ON_GPU, "torch")  # candidates for `runtime = "auto"` that use a GPU
OUT_OF_MEMORY = ("out of memory", "outofmemory", "cannot allocate memory", "alloc_failed")

log = logging.getLogger("rtseg.engine")
_warned: set[str] = set()  # lines that this process has logged: each once


def open_engine(recipe: str | Path | Recipe | None = None, *, fetch: bool = False, **overrides: Any) -> Engine:
    """Open the engine of a recipe.

    It uses what `rtseg build` installed, if that fits. With `runtime = "auto"` it opens the best runtime that it can,
    and warns of each better one that does not open. A runtime or device that the recipe names is never replaced.
    An engine belongs to the process that opened it: in a child forked later its methods raise `EngineError`.

    Arguments:
        recipe: the recipe file, a recipe that was read, or the name of published weights, such as "edgetam"; None is
            the shipped `nano`.
        fetch: fetch published weights that are not on this machine yet, as `rtseg weights get` does.
        overrides: keys of the recipe and their values: `weights=`, `runtime=`, `precision=`, `image_size=`,
            `max_objects=`, `device=`, `policy=` (for `memory.policy`), ...

    Returns:
        The engine. Its `description` says what runs, and why not something better.

    Raises:
        ConfigError: the recipe is malformed.
        WeightsError: the weights do not fit the network, or are not on this machine.
        EngineError: the engine cannot be opened on this machine.
    """
    recipe = load_recipe(recipe, **overrides)
    if fetch:
        fetch_weights(recipe.weights, log.warning)
    if was_forked() and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # else OpenMP waits for the parent's threads, which do not exist here
    engine = _open_whole(recipe)
    disable_after_fork(engine, _refuse_verbs)
    return engine


def _refuse_verbs(engine: Engine) -> None:
    text = f"this engine was opened before the process was forked, and its threads are the parent's; {ADVICE}"
    disable_methods(engine, VERBS, EngineError(text))


def _open_whole(recipe: Recipe) -> Engine:
    """Open the engine, and again if a build has replaced its folder meanwhile: checked and loaded files may differ."""
    folder = folder_of(recipe)
    before = stamp(folder)
    try:
        engine = _open_recipe(recipe)
        if stamp(folder) == before:
            return engine
        del engine  # before the next one needs its memory
    except (EngineError, OSError):
        if stamp(folder) == before:
            raise
    return _open_recipe(recipe)


def _open_recipe(recipe: Recipe) -> Engine:
    return open_best(recipe) if recipe.runtime == "auto" else open_one(recipe)


def open_one(recipe: Recipe) -> Engine:
    """The engine of a recipe that names its runtime. Raises `ConfigError`, `WeightsError` or `EngineError`."""
    preset, path = get_preset(recipe.model), find_weights(recipe.weights)
    try:
        return _open(recipe, preset, path, hash_weights(recipe.weights, path))
    except RtsegError:
        raise
    except (RuntimeError, MemoryError) as e:  # torch's errors for a GPU that is full or broken
        raise EngineError(f'{where(recipe)}: runtime = "{recipe.runtime}" does not open: {in_one_line(e)}') from e


def open_best(recipe: Recipe) -> Engine:
    """The best engine that opens. Its description names the better ones that did not.

    If one does not open, for whatever reason (a library of another version, a full GPU), the next one is tried. After a
    GPU fault that makes CUDA unusable in this process, only the CPU's runtimes are tried. Raises `EngineError` if none
    opens.
    """
    preset, path = get_preset(recipe.model), find_weights(recipe.weights)
    weights_hash = hash_weights(recipe.weights, path)
    failed: dict[str, str] = {}
    lost = ""
    for candidate, note in _candidates(recipe, preset, weights_hash, failed):
        name = candidate.runtime
        if lost and name in WITH_GPU:
            failed[name] = lost
            continue
        try:
            engine = _open(candidate, preset, path, weights_hash, note)
        except (ConfigError, WeightsError):
            raise  # no other runtime would help
        except Exception as e:
            failed[name] = in_one_line(e)
        else:
            _explain(engine, failed)
            return engine
        lost = _lost_gpu()
        _warn(f"{where(recipe)}: {name} does not open: {failed[name]}")
    tried = "; ".join(f"{name}: {why}" for name, why in failed.items())
    raise EngineError(f'{where(recipe)}: runtime = "auto": nothing opens on this machine: {tried}')


def _candidates(
    recipe: Recipe, preset: Preset, weights_hash: str, failed: Mapping[str, str]
) -> Iterator[tuple[Recipe, str]]:
    """The candidate that `rtseg build` measured as the fastest, if it may be run; then all others, best first.

    Each comes with a note for the engine's description, or "". `failed` holds the runtimes that did not open so far.
    """
    for measured in fastest(recipe):
        with suppress(EngineError):  # the same runtime is tried again below, and reports why
            if present(measured, preset, weights_hash)[1] is not None:
                yield measured, "the fastest that rtseg build measured here"
    for runtime in ladder(recipe):
        if runtime not in failed:
            # torch is a candidate only with a GPU: on a CPU its own runtimes are better.
            on_gpu = runtime == "torch" and recipe.device == "auto"
            yield replace(recipe, runtime=runtime, device="cuda" if on_gpu else recipe.device), ""


def in_one_line(e: Exception) -> str:
    """Why an engine does not open, and what to do, in one line."""
    text = " ".join((str(e).strip().splitlines() or [type(e).__name__])[0].split())
    if isinstance(e, EngineError):
        return text
    if isinstance(e, MemoryError) or any(word in text.lower() for word in OUT_OF_MEMORY):
        return f"{text}; lower image_size or max_objects, or close what else uses the memory"
    return f"{type(e).__name__}: {text}; see: rtseg doctor"


def _lost_gpu() -> str:
    """Why this process can no longer use its GPU, or "". Frees the memory of a failed engine first.

    After some faults (an illegal address, an assertion in a kernel) every later call of CUDA fails.
    """
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return ""
    try:
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
    except Exception as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        return f"the GPU is lost to this process ({reason}); end it, and start it again"
    return ""


def _explain(engine: Engine, failed: Mapping[str, str]) -> None:
    """Add the better runtimes that did not open, and why, to the description."""
    notes = [f"instead of {name}, which does not open: {why}" for name, why in failed.items()]
    notes += filter(None, [driver_alone()])
    if notes:
        engine.description += f" ({'; '.join(notes)})"


def _warn(line: str) -> None:
    if line not in _warned:
        _warned.add(line)
        log.warning("rtseg: %s; trying the next best", line)


def _open(recipe: Recipe, preset: Preset, path: Path, weights_hash: str, note: str = "") -> Engine:
    """Open the engine of a recipe that names its runtime. `path`: its weights; `note`: for the description."""
    recipe, built, why = present(recipe, preset, weights_hash)
    check_room(recipe, recipe.device)
    adapted = read_adapted(recipe, preset, weights_hash)
    network = partial(load_network, preset, recipe.image_size, path, adapted.adapters if adapted else None)
    given = network if family(recipe.runtime) in WITHOUT_TORCH else network()
    graphs_hash = adapted.graphs_hash if adapted else weights_hash
    engine: Engine = runtime_module(recipe.runtime).open(given, recipe, graphs_hash, built)
    if why or note:
        engine.description += f" ({why or note})"
    return engine if adapted is None else with_adapters(engine, adapted)


def present(recipe: Recipe, preset: Preset, weights_hash: str) -> tuple[Recipe, Path | None, str]:
    """The recipe settled, the folder of its built engine or None, and a note on what was not checked, or "".

    `recipe` has to name a runtime.
    """
    recipe = settle(recipe)
    if recipe.runtime == "tensorrt":
        from .tensorrt.library import bindings

        bindings()  # raises if TensorRT is missing: a better error than "not built", for nothing can be built either
    merged = read_adapted(recipe, preset, weights_hash)
    built, why = locate(recipe, preset, merged.graphs_hash if merged else weights_hash)
    return recipe, built, "" if recipe.runtime == "torch" else why
