"""How the network is run: `open_engine` makes a recipe into the four verbs of `Engine`.

The values that the verbs take and give are the network's; who calls the verbs gets them here. torch is imported by the
engines that run in it, and by nothing that is needed before.
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
