"""Who takes part in `bench.peers`, and the task they are given."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import rtseg
from bench import first_mask
from bench.contenders import Box, Contender, Meta, Ours, Task, Transformers, pixels_of, randomize
from bench.edgetam import EdgeTam
from bench.rates import emulated
from rtseg.base.errors import ConfigError
from rtseg.base.types import BoolMask
from rtseg.build.clips import calibration_images
from rtseg.engine.recipe import MemorySettings, Recipe
from rtseg.engine.runtimes import ON_GPU, PRECISIONS, runtime_module, settle
from rtseg.sam2 import Sam2, get_preset, load_weights, save_weights

SEED = 3  # of the random weights: with this one the object stays small, and moves
OURS = tuple((runtime, precision) for runtime, precisions in PRECISIONS.items() for precision in precisions)
BASELINE, REFERENCE, GRAPHS = "transformers fp32", "rtseg torch fp32", "sam2 exported to ONNX Runtime fp32"
Makers = dict[str, Callable[[], Contender]]


def make_task(preset: str, size: int, weights: Path | None, frames: int) -> Task:
    """The network, with given or random weights, and square pictures of the synthetic endoscope with a tool's box."""
    network = Sam2(get_preset(preset), size).eval()
    if weights is None:
        randomize(network, SEED)
    else:
        load_weights(network, weights)
    uri = f"synthetic:laparoscopy?seed=10000&width={size}&height={size}&seconds={frames / 25}"
    seen = list(rtseg.open_source(uri))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pictures = [frame.image_hwc for frame in seen]
    return Task(network, pictures, pixels_of(pictures, size), box_of(seen[0].truth_hw == 1), device)


def write_task(task: Task, folder: Path) -> None:
    """What another process needs of it for a first mask."""
    save_weights(task.network, folder / first_mask.WEIGHTS, half=False)
    np.save(folder / first_mask.PICTURES, task.pictures[:2])
    np.save(folder / first_mask.PIXELS, task.pixels[:2].numpy())


def read_task(folder: Path, request: dict[str, Any]) -> Task:
    network = Sam2(get_preset(request["preset"]), request["size"]).eval()
    load_weights(network, folder / first_mask.WEIGHTS)
    pixels = torch.from_numpy(np.load(folder / first_mask.PIXELS))
    return Task(network, list(np.load(folder / first_mask.PICTURES)), pixels, request["box"], request["device"])


def box_of(mask_hw: BoolMask) -> Box:
    x, y, width, height = cv2.boundingRect(mask_hw.astype(np.uint8))
    return x, y, x + width, y + height


def our_makers(task: Task, preset: str, folder: Path, policies: Sequence[str]) -> Makers:
    """Each runtime and precision under each policy, whose number of memories an engine may be made for."""

    def maker(runtime: str, precision: str, policy: str) -> Callable[[], Contender]:
        def make() -> Contender:
            recipe = Recipe(
                preset, str(folder / first_mask.WEIGHTS), image_size=task.size, runtime=runtime, precision=precision,
                max_objects=1, memory=MemorySettings(policy),
            )  # fmt: skip
            engine = open_ours(task.network, recipe, folder / f"{runtime}-{precision}-{policy}")
            return Ours(f"rtseg {runtime} {precision}", engine, policy, task)

        return make

    names = [(f"rtseg {runtime} {precision} {policy}", runtime, precision, policy)
             for runtime, precision in OURS for policy in policies]  # fmt: skip
    return {name: maker(*words) for name, *words in names}


def open_ours(network: Sam2, recipe: Recipe, folder: Path) -> rtseg.Engine:
    """The engine of a recipe that is in no file. What `rtseg build` would compile for a GPU is compiled into `folder`.

    It is not proved as a build is: its row shows how its masks agree, whatever that is.
    """
    recipe = settle(recipe)
    if recipe.runtime not in ON_GPU:
        return rtseg.open_engine(recipe)
    module, built = runtime_module(recipe.runtime), None
    if hasattr(module, "make"):
        folder.mkdir()
        pictures = calibration_images(recipe.image_size, None) if recipe.precision in ("int8", "fp8") else []
        module.make(deepcopy(network), recipe, folder, lambda line: print(line, file=sys.stderr), pictures)
        built = folder
    engine: rtseg.Engine = module.open(deepcopy(network), recipe, "", built)
    return engine


def their_makers(task: Task, compiled: bool) -> Makers:
    """transformers' models and Meta's predictor, in fp32 and in bf16 each way it can be had; and Meta's, exported."""

    def exported() -> Contender:
        from bench.exported import Exported  # where ONNX Runtime and ONNX are

        return Exported(GRAPHS, task)

    makers: Makers = {
        BASELINE: lambda: Transformers(BASELINE, task),
        "transformers bf16 autocast": lambda: Transformers("transformers bf16 autocast", task, autocast=True),
        "transformers bf16 cast": lambda: Transformers("transformers bf16 cast", task, cast=True),
        "sam2 fp32": lambda: Meta("sam2 fp32", task),
        "sam2 bf16 autocast": lambda: Meta("sam2 bf16 autocast", task, autocast=True),
        GRAPHS: exported,
        "EdgeTAM, transformers fp32": lambda: EdgeTam("EdgeTAM, transformers fp32", task),
    }
    if compiled:
        name, other = "transformers bf16 cast compiled", "sam2 bf16 autocast compiled"
        makers[name] = lambda: Transformers(name, task, cast=True, compiled=True)
        makers[other] = lambda: Meta(other, task, autocast=True, compiled=True)
    return makers


def worth_while(makers: Makers, device: str, only: str) -> tuple[Makers, dict[str, str]]:
    """Those that are asked for, and why others of them are not: torch in a type that it emulates takes minutes."""
    words = only.split(",")
    chosen = {name: make for name, make in makers.items() if any(word in name for word in words)}
    if not chosen:
        raise ConfigError(f"--only {only!r}: no contender's name holds it; there are: {', '.join(makers)}")
    absent = {}
    for kind in ("bf16", "fp16"):
        in_torch = [name for name in chosen if kind in name and not name.startswith("rtseg ")]
        in_torch += [name for name in chosen if name.startswith(f"rtseg torch {kind}")]
        if in_torch and kind not in only and (why := emulated(kind, device)):
            absent |= dict.fromkeys(in_torch, why)
    return {name: make for name, make in chosen.items() if name not in absent}, absent
