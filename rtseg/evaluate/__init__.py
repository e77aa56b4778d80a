"""How good masks are: protocols that drive the tracker over annotated data, and figures with their uncertainty."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .corrupt import CORRUPTIONS, corrupted
    from .needs import require
    from .prompting import PROMPTS, make_prompt, next_click
    from .protocols import PROTOCOLS
    from .result import ClassRow, Prediction, Result, Row, Tracked
    from .run import evaluate
    from .settings import EvaluationSettings

# Names are imported on first use, because the figures need neither torch nor an engine.
_HOMES = {
    "CORRUPTIONS": "corrupt",
    "PROMPTS": "prompting",
    "PROTOCOLS": "protocols",
    "ClassRow": "result",
    "Prediction": "result",
    "Result": "result",
    "Row": "result",
    "EvaluationSettings": "settings",
    "Tracked": "result",
    "corrupted": "corrupt",
    "evaluate": "run",
    "make_prompt": "prompting",
    "next_click": "prompting",
    "require": "needs",
}

__all__ = [
    "CORRUPTIONS",
    "PROMPTS",
    "PROTOCOLS",
    "ClassRow",
    "EvaluationSettings",
    "Prediction",
    "Result",
    "Row",
    "Tracked",
    "corrupted",
    "evaluate",
    "make_prompt",
    "next_click",
    "require",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
