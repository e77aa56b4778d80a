"""Compiling a recipe's plans, and opening an engine on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ...base.errors import EngineError
from ...base.files import file_sha256
from ...base.types import ImageU8
from ...sam2 import Sam2
from ..base import Engine
from ..gpu import Gpu
from ..recipe import Recipe
from .engine import TensorRTEngine
from .gpu import CudaGpu
from .library import bindings
from .onnx import Shapes, export, typed
from .plans import Plan, build, spans
from .quantize import TYPES, calibrate

TIMINGS = "tensorrt-timings"
NEEDS = {"bf16": (8, 0), "int8": (8, 0), "fp8": (8, 9)}  # compute capability; int8's other layers are bf16


def make(
    network: Sam2, recipe: Recipe, folder: Path, note: Callable[[str], None], pictures: Sequence[ImageU8] = ()
) -> dict[str, object]:
    """Compile the plans of a recipe into `folder`, and return the facts about them for the report.

    `pictures` calibrate int8 and fp8. The kernels' timings are kept beside the folder for the next build. Raises
    `EngineError` if the GPU lacks the precision, or TensorRT fails.
    """
    trt, gpu = bindings(), _gpu(recipe)
    _check_precision(recipe.precision, gpu)
    shapes = Shapes.for_recipe(network.preset, recipe)
    peaks = None
    if recipe.precision in TYPES:
        note(f"calibrating {recipe.precision} on {len(pictures)} frames")
        with gpu.work():
            peaks = calibrate(network, shapes.slots[0], shapes.pointers, recipe.precision, pictures, gpu.name)
    graphs = export(typed(network, recipe.precision, peaks), shapes, folder, note)
    hashes = {name: file_sha256(path) for name, path in graphs.items()}
    for name, path in graphs.items():
        note(f"compiling {name}")
        with gpu.work():
            plan = build(path, shapes.max_objects, folder.parent / TIMINGS, gpu)
        path.with_suffix(".plan").write_bytes(plan)
        path.unlink()  # it is as large as the plan, and not needed any more
    flags = {
        "strongly_typed": True, "tf32": False, "slots": list(shapes.slots), "pointers": shapes.pointers,
        "profiles": [list(span) for span in spans(shapes.max_objects)],
    }  # fmt: skip
    return {"tensorrt": trt.__version__, **gpu.facts(), "precision": recipe.precision, "flags": flags, "onnx": hashes}


def open(network: Sam2, recipe: Recipe, weights_hash: str, built: Path | None) -> Engine:
    """Open the engine on the plans in `built`, which the caller has checked to be undamaged and made for this machine.

    Raises `EngineError` if there are none, or they do not load.
    """
    bindings()
    gpu = _gpu(recipe)
    if built is None:
        again = f"run: rtseg build {recipe.path or 'NAME.toml'}"
        raise EngineError(f'runtime = "tensorrt" runs what was built, and nothing is built for this recipe; {again}')
    shapes = Shapes.for_recipe(network.preset, recipe)
    with gpu.work():
        plans = {name: Plan(built / f"{name}.plan", gpu) for name in shapes.graphs}
    return TensorRTEngine(network, recipe, weights_hash, plans, shapes, gpu)


def _gpu(recipe: Recipe) -> Gpu:
    """The GPU of the recipe. "auto", which a settled recipe never has, is the current one."""
    return CudaGpu("cuda" if recipe.device == "auto" else recipe.device)


def _check_precision(precision: str, gpu: Gpu) -> None:
    facts = gpu.facts()
    has = tuple(int(n) for n in facts["compute_capability"].split("."))
    needs = NEEDS.get(precision, (0, 0))
    if has < needs:
        raise EngineError(
            f'precision = "{precision}" needs compute capability {needs[0]}.{needs[1]}, {facts["gpu"]} has'
            f' {facts["compute_capability"]}; use "fp16" or "fp32"'
        )
