"""How the network is run: `open_engine` turns a recipe into an `Engine` with its four verbs.

The values that the verbs take and return are defined in `sam2`, and exported here for the callers. Only engines that
run in torch import torch, when they are opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..sam2 import ABSENT_LOGIT, CLAMP_LOGIT, Array, Decoded, Features, PromptBatch, Recall, Remembered
from .base import Engine, Prepares, Readies, Rivals
from .opening import open_engine
from .picture.planes import to_planes
from .threads import spare_core
from .weights import find_weights

if TYPE_CHECKING:
    from .picture.tensors import to_input

__all__ = [
    "ABSENT_LOGIT", "CLAMP_LOGIT", "Array", "Decoded", "Engine", "Features", "Prepares", "PromptBatch", "Readies",
    "Recall", "Remembered", "Rivals", "find_weights", "open_engine", "spare_core", "to_input", "to_planes",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name != "to_input":
        raise AttributeError(f"module 'rtseg.engine' has no attribute {name!r}")
    from .picture.tensors import to_input

    return to_input
