"""The network: SAM 2 in plain torch modules, its presets and its weights. Imports nothing from the layers above it.

Presets and values need no torch. Modules that need torch are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .presets import PRESETS, Preset, get_preset
from .values import (
    ABSENT_LOGIT,
    CLAMP_LOGIT,
    MEAN,
    STD,
    Array,
    Candidates,
    Decoded,
    Features,
    PromptBatch,
    Recall,
    Remembered,
)

if TYPE_CHECKING:
    from .network import Sam2, certain, upsample
    from .prompt import on_device
    from .weights import load_weights, save_weights

__all__ = [
    "ABSENT_LOGIT", "CLAMP_LOGIT", "MEAN", "PRESETS", "STD", "Array", "Candidates", "Decoded", "Features", "Preset",
    "PromptBatch", "Recall", "Remembered", "Sam2", "certain", "get_preset", "load_weights", "on_device",
    "save_weights", "upsample",
]  # fmt: skip

_TORCH = {
    "Sam2": ".network",
    "certain": ".network",
    "load_weights": ".weights",
    "on_device": ".prompt",
    "save_weights": ".weights",
    "upsample": ".network",
}


def __getattr__(name: str) -> Any:
    if name not in _TORCH:
        raise AttributeError(f"module 'rtseg.sam2' has no attribute {name!r}")
    return getattr(importlib.import_module(_TORCH[name], __name__), name)
