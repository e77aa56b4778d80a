"""How the network is run: `open_engine` makes a recipe into the four verbs of `Engine`.

The values that the verbs take and give are the network's; who calls the verbs gets them here. torch is imported by the
engines that run in it, and by nothing that is needed before.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.errors import EngineError
from ..base.forks import ADVICE, in_child, refuse, was_forked
from ..sam2 import ABSENT_LOGIT, CLAMP_LOGIT, Array, Decoded, Features, PromptBatch, Recall, Remembered
from .artifact import folder_of, stamp
from .base import Engine, Prepares, Readies, Rivals
from .opening import find_weights, open_best, open_one
from .picture.planes import to_planes
from .recipe import Recipe, load_recipe
from .threads import spare_core

if TYPE_CHECKING:
    from .picture.tensors import to_input

__all__ = [
    "ABSENT_LOGIT", "CLAMP_LOGIT", "Array", "Decoded", "Engine", "Features", "Prepares", "PromptBatch", "Readies",
    "Recall", "Remembered", "Rivals", "find_weights", "open_engine", "spare_core", "to_input", "to_planes",
]  # fmt: skip

VERBS = ("prepare", "encode_image", "attend", "decode", "remember", "track", "rivals")


def __getattr__(name: str) -> Any:
    if name != "to_input":
        raise AttributeError(f"module 'rtseg.engine' has no attribute {name!r}")
    from .picture.tensors import to_input

    return to_input


def open_engine(recipe: str | Path | Recipe | None = None, **overrides: Any) -> Engine:
    """Open the engine of a recipe.

    What `rtseg build` installed is used where it fits. With `runtime = "auto"` the best runtime that opens is taken;
    one that does not open costs a warning. A runtime or a device that the recipe names is never replaced by another.
    An engine belongs to the process that opened it: in a child that is forked later its methods raise `EngineError`.

    Arguments:
        recipe: the recipe file, or a recipe that was read; None is the shipped `nano`.
        overrides: keys of the recipe and their values: `weights=`, `runtime=`, `precision=`, `image_size=`,
            `max_objects=`, `device=`, `policy=` (for `memory.policy`), ...

    Returns:
        The engine. Its `description` says what runs, and why not something better.

    Raises:
        ConfigError: the recipe is malformed.
        WeightsError: the weights do not fit the network.
        EngineError: the engine cannot be opened on this machine.
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
    return open_best(recipe) if recipe.runtime == "auto" else open_one(recipe)
