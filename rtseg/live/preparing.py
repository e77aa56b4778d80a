"""Before the first frame is due: the network is opened, and all is made that pictures of the feed's size will need.

Either may take minutes the first time. What is going on, and how long it may take, is told to the supervisor before it
begins: it watches from outside whether the process gets on (`child`, `vitals`), so that nothing here beats for work
that may have come to a stop.
"""

from __future__ import annotations

import numpy as np

from ..base.types import now_ns
from ..engine import Engine, Readies
from ..engine.recipe import Recipe
from ..engine.runtimes import ONNX_GPU, best_runtime
from ..track import Tracker
from .seat import Seat

Size = tuple[int, int]  # height and width of a picture

# What opening a runtime may take without a beat, a byte written or a compiler that begins or ends, in seconds. A large
# network is read from a slow disk in a minute; torch's inductor thinks for several, and so does TensorRT where it times
# kernels anew.
OPENS_S = {"cuda": 900.0, "tensorrt": 900.0, "onnx:tensorrt": 900.0}
OPENS_ELSE_S = 300.0
PART_S = 300.0  # the same of one part of `Readies.ready`: one that is compiled takes a minute or two on first use
FIRST_USE = {
    "cuda": "compiling the image encoder (on first use, minutes)",
    "tensorrt": "loading its plans (minutes, where kernels are timed anew)",
    "onnx:tensorrt": "building TensorRT's engines (minutes)",
}


def say_opening(seat: Seat, recipe: Recipe) -> None:
    """Tell the supervisor that the network is being opened."""
    runtime = best_runtime(recipe) if recipe.runtime == "auto" else recipe.runtime
    what = FIRST_USE.get(runtime, "loading the network")
    seat.link.send("preparing", what=f"{runtime}: {what}", part_s=OPENS_S.get(runtime, OPENS_ELSE_S))


def on_gpu(engine: Engine) -> bool:
    """Whether this process only launches what a GPU does."""
    return str(getattr(engine, "device", "cpu")).startswith("cuda") or engine.recipe.runtime in ONNX_GPU


def prepare(seat: Seat, engine: Engine, size: Size | None) -> float | None:
    """Make what pictures of this size need; ms of a step. None: not known, as the size, or how such an engine steps.

    An engine that prepares for a size is warmed up with pictures of that size alone: what it would make for others
    takes as long, and as much memory, and is never used.
    """
    if size is None or not isinstance(engine, Readies):
        return None
    height, width = size
    objects = engine.recipe.max_objects
    what = f"making ready for pictures of {width}x{height} and up to {objects} objects (on first use, minutes)"
    seat.link.send("preparing", what=what, part_s=PART_S)
    seat.beat()
    engine.ready(height, width, seat.beat)
    seat.beat()
    return warm_up(engine, size)


def warm_up(engine: Engine, size: Size | None = None) -> float:
    """A few frames of nothing, so that the first real one does not pay for what is made on first use; ms of a step.

    The first is a prompted one, the second may hold a capture: the quickest of those after is a step like any other.
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
