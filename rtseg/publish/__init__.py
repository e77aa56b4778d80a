"""Frames and masks out: drawn, published, received, watched, recorded. What needs a library loads it when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .overlay import Drawn, draw_overlay
    from .publisher import Publisher
    from .recorder import Recorder
    from .subscriber import Subscriber
    from .viewer import view
    from .wire import Message

_HOMES = {
    "Drawn": "overlay",
    "Message": "wire",
    "Publisher": "publisher",
    "Recorder": "recorder",
    "Subscriber": "subscriber",
    "draw_overlay": "overlay",
    "view": "viewer",
}

__all__ = [
    "Drawn",
    "Message",
    "Publisher",
    "Recorder",
    "Subscriber",
    "draw_overlay",
    "view",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
