"""The identity of a built engine, which decides whether it may run here: recipe, network, weights, libraries, device;
and the digests of our own sources.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Iterator
from typing import Any

from ..base.hardware.cpu import cpu_flags, cpu_model
from ..base.hardware.gpu import gpu_identity
from ..sam2 import Preset, get_preset
from .recipe import Recipe
from .runtimes import ON_GPU, device_of, family
from .sources import sources_hash, sources_of

FIXED_SHAPES = ("tensorrt", "cuda")  # runtimes whose plans or graphs fit one bank size and number of objects
# The libraries that make a runtime's artifacts; for other runtimes only torch.
LIBRARIES = {"tensorrt": ("torch", "tensorrt"), "onnx": ("onnxruntime",)}

Identity = dict[str, Any]


def identity(recipe: Recipe, preset: Preset, weights_hash: str) -> Identity:
    """Everything that decides whether an artifact may be run, as JSON values. `recipe` is settled."""
    plan = recipe.memory
    keys: Identity = {"runtime": recipe.runtime, "precision": recipe.precision}
    # The CPU kernels take any image size and any bank size.
    if recipe.runtime in FIXED_SHAPES:
        memory = {"memory.policy": plan.policy, "memory.spatial": plan.spatial, "memory.pointers": plan.pointers}
        keys |= {"image_size": recipe.image_size, "max_objects": recipe.max_objects, **memory}
    elif family(recipe.runtime) == "onnx":
        keys |= {"image_size": recipe.image_size}
    return {
        "recipe": keys,
        "network": preset.fingerprint,
        "weights": weights_hash,
        "versions": _versions(recipe.runtime),
        "device": _gpu(recipe.device) if recipe.runtime in ON_GPU else _cpu() | _isa(recipe),
    }


def source_digests(runtime: str) -> Identity:
    """The digests of our own sources that decide what a runtime computes, and one hash of all sources."""
    return {"all": sources_hash(), "of": sources_of(family(runtime))}


def changed_source(built_with: Identity, runtime: str) -> str:
    """The first of these sources that has changed since the build, as a part of a line; "" if none has."""
    if built_with.get("all") == sources_hash():
        return ""
    was, now = dict(built_with.get("of", {})), sources_of(family(runtime))
    name = next((name for name in sorted({*was, *now}) if was.get(name) != now.get(name)), None)
    if name is None:
        return ""
    found, expected = (short(files.get(name, "none")) for files in (was, now))
    return f"rtseg/{name} = {found}; expected {expected}"


def _versions(runtime: str) -> dict[str, str]:
    libraries = ("rtseg", *LIBRARIES.get(family(runtime), ("torch",)))
    return {name: library_version(name) or "not installed" for name in libraries}


def library_version(name: str) -> str | None:
    """The version of an importable package; None if it is not installed.

    The module is asked before the metadata: TensorRT may be installed only as `tensorrt_cu12` or `tensorrt_cu13`.
    """
    try:
        return str(importlib.import_module(name).__version__)
    except (ImportError, OSError, AttributeError):  # a library that it loads may be missing
        pass
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, str]:
    return {"cpu": cpu_model(), "flags": " ".join(cpu_flags())}


def _isa(recipe: Recipe) -> dict[str, str]:
    """The instruction set that our CPU kernels use for a recipe; nothing for other runtimes."""
    if recipe.runtime != "cpu":
        return {}
    from .cpu.isa import isa_for, lacks

    return {"isa": "none" if lacks(get_preset(recipe.model)) else isa_for(recipe.precision)}


def _gpu(device: str) -> dict[str, str]:
    """The model of the recipe's GPU; which one of several equal GPUs does not matter."""
    import torch

    if not torch.cuda.is_available():
        return {"gpu": "none"}
    return gpu_identity(device_of("torch", device))


def flat(values: Identity, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def short(value: object) -> str:
    """A value for an error line: the first twelve digits of a hash, anything else as it is."""
    return value[:12] if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else str(value)
