"""Memory estimates: of the shipped recipes, or of every preset, size and number of objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...base.errors import ConfigError, did_you_mean
from ...base.hardware.gpu import free_gpu_bytes
from ...base.hardware.memory import available_bytes
from ...engine.memory_estimate import MIB, estimate_memory
from ...engine.recipe import MemorySettings, Recipe
from ...sam2 import PRESETS
from .finding import Finding
from .gpu import gpu_problem

# The recipes in engines/*.toml, with their defaults.
SHIPPED = (
    Recipe("micro", image_size=224),
    Recipe("nano", image_size=320, memory=MemorySettings(pointers=4)),
    Recipe("sam2.1-tiny", image_size=1024),
    Recipe("sam2.1-small", image_size=1024),
    Recipe("edgetam", image_size=1024, memory=MemorySettings("fifo")),
    Recipe("sam2.1-tiny", image_size=512, memory=MemorySettings("fifo")),
    Recipe("sam2.1-small", image_size=512, memory=MemorySettings("efp-window")),
)
SIZES, OBJECTS, RUNTIMES = (256, 512, 768, 1024), (1, 2, 4, 8), ("cpu", "cuda", "tensorrt")
NOTE = "MiB for 1920 x 1080; CUDA's own share and TensorRT's scores are estimates that no GPU has confirmed yet"


def shipped() -> list[Finding]:
    """How much memory the shipped recipes take on each runtime, and whether this machine's GPU has enough."""
    free = None if gpu_problem()[0] else free_gpu_bytes("cuda:0")
    found = []
    for recipe in SHIPPED:
        needs = {r: estimate_memory(replace(recipe, runtime=r)) for r in RUNTIMES}
        parts = ", ".join(f"{name} {need.bytes // MIB} MiB" for name, need in needs.items())
        lacks = [name for name, need in needs.items() if not need.host and free is not None and need.sure > free]
        text = f"{recipe.model} at {recipe.image_size} px, {recipe.max_objects} objects: {parts}"
        if lacks:
            text += f"; cuda:0 has too little memory for {', '.join(lacks)}"
        found.append(Finding("memory", None if lacks else True, text))
    return found


def memory_table(presets: Sequence[str]) -> dict[str, object]:
    """MiB on each runtime for every size and number of objects, for these presets, or for all if there are none.

    Raises `ConfigError` for a name that is no preset.
    """
    for name in presets:
        if name not in PRESETS:
            raise ConfigError(f"--memory {name}: no such preset; {did_you_mean(name, PRESETS)}")
    rows = []
    for name in presets or PRESETS:
        for size in SIZES:
            for objects in OBJECTS:
                recipe = Recipe(name, image_size=size, max_objects=objects)
                needs = {r: round(estimate_memory(replace(recipe, runtime=r)).bytes / MIB) for r in RUNTIMES}
                rows.append({"model": name, "image_size": size, "objects": objects, **needs})
    return {"ok": True, "memory_mib": rows, "note": NOTE, "host_available_mib": available_bytes() // MIB}
