"""How good masks are: data sets and their truth, protocols that drive the tracker, figures with their uncertainty."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .corrupt import CORRUPTIONS, corrupted
    from .dataset import Dataset, Sequence, Target, Truth
    from .needs import require
    from .prompting import PROMPTS, make_prompt, next_click
    from .protocols import PROTOCOLS
    from .readers import open_dataset
    from .result import ClassRow, Prediction, Result, Row, Tracked
    from .run import Settings, evaluate

# The figures need neither torch nor an engine, so a name is imported when it is first used.
_HOMES = {
    "CORRUPTIONS": "corrupt",
    "PROMPTS": "prompting",
    "PROTOCOLS": "protocols",
    "ClassRow": "result",
    "Dataset": "dataset",
    "Prediction": "result",
    "Result": "result",
    "Row": "result",
    "Sequence": "dataset",
    "Settings": "run",
    "Target": "dataset",
    "Tracked": "result",
    "Truth": "dataset",
    "corrupted": "corrupt",
    "evaluate": "run",
    "make_prompt": "prompting",
    "next_click": "prompting",
    "open_dataset": "readers",
    "require": "needs",
}

__all__ = [
    "CORRUPTIONS",
    "PROMPTS",
    "PROTOCOLS",
    "ClassRow",
    "Dataset",
    "Prediction",
    "Result",
    "Row",
    "Sequence",
    "Settings",
    "Target",
    "Tracked",
    "Truth",
    "corrupted",
    "evaluate",
    "make_prompt",
    "next_click",
    "open_dataset",
    "require",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
