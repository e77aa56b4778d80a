"""Before the first frame: the engine is opened, and made ready for the size of the feed's pictures.

Either may take minutes the first time. The worker reports what it begins, and how long a part may take. Then the
supervisor watches from outside whether the process makes progress (`activity.py`), because heartbeats from a second
thread would also come from a hung process.
"""

from __future__ import annotations

import numpy as np

from ...base.types import now_ns
from ...engine import Engine, Readies
from ...engine.recipe import Recipe
from ...engine.runtimes import ONNX_GPU, best_runtime
from ...track import Tracker
from ..ipc.messages import Size
from ..ipc.reports import Preparing
from .context import WorkerContext

# Seconds that opening a runtime may take without a heartbeat, a byte written, or a compiler that starts or ends. A
# large network is read from a slow disk in a minute; torch's inductor computes for several minutes, and so does
# TensorRT where it times kernels again.
OPENS_S = {"cuda": 900.0, "tensorrt": 900.0, "onnx:tensorrt": 900.0}
OPENS_ELSE_S = 300.0
PART_S = 300.0  # the same for a part of `Readies.ready`: a compiled one takes a minute or two on first use
FIRST_USE = {
    "cuda": "compiling the image encoder (on first use, minutes)",
    "tensorrt": "loading its plans (minutes, where kernels are timed anew)",
    "onnx:tensorrt": "building TensorRT's engines (minutes)",
}


def report_opening(context: WorkerContext, recipe: Recipe) -> None:
    """Report that the engine is being opened."""
    runtime = best_runtime(recipe) if recipe.runtime == "auto" else recipe.runtime
    what = FIRST_USE.get(runtime, "loading the network")
    context.send(Preparing(f"{runtime}: {what}", OPENS_S.get(runtime, OPENS_ELSE_S)))


def on_gpu(engine: Engine) -> bool:
    """Whether a GPU does the work, and this process only launches it."""
    return str(getattr(engine, "device", "cpu")).startswith("cuda") or engine.recipe.runtime in ONNX_GPU


def prepare(context: WorkerContext, engine: Engine, size: Size | None) -> float | None:
    """Prepare the engine for pictures of this size; ms of a step, or None if there is nothing to prepare.

    An engine that prepares for a size is warmed up with that size alone: preparing for another one takes as long and
    as much memory, and is never used.
    """
    if size is None or not isinstance(engine, Readies):
        return None
    height, width = size
    objects = engine.recipe.max_objects
    what = f"making ready for pictures of {width}x{height} and up to {objects} objects (on first use, minutes)"
    context.send(Preparing(what, PART_S))
    context.beat()
    engine.ready(height, width, context.beat)
    context.beat()
    return warm_up(engine, size)


def warm_up(engine: Engine, size: Size | None = None) -> float:
    """Step over a few black frames, so that the first real one is as fast as the others; returns ms of a step.

    The first step is prompted and the second may capture a CUDA graph: the quickest of the others is typical.
    """
    tracker = Tracker(engine)
    black_hwc = np.zeros((*(size or (engine.image_size, engine.image_size)), 3), np.uint8)
    tracker.prompt(1, points=[(1, 1, 1)])
    took_ms = []
    for _ in range(4):
        start_ns = now_ns()
        tracker.step(black_hwc)
        took_ms.append((now_ns() - start_ns) / 1e6)
    return min(took_ms[2:])
