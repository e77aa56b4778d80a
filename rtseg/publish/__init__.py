"""Frames and masks out: drawn, published, received, watched, recorded. What needs a library loads it when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .atomic import atomic_path, write_palette_png
    from .colors import color_of
    from .overlay import Drawn, draw_overlay
    from .publisher import Publisher
    from .recorder import Recorder
    from .rle import decode_rle, encode_rle
    from .subscriber import Subscriber
    from .viewer import view
    from .wire import Message

_HOMES = {
    "Drawn": "overlay",
    "Message": "wire",
    "Publisher": "publisher",
    "Recorder": "recorder",
    "Subscriber": "subscriber",
    "atomic_path": "atomic",
    "color_of": "colors",
    "decode_rle": "rle",
    "draw_overlay": "overlay",
    "encode_rle": "rle",
    "view": "viewer",
    "write_palette_png": "atomic",
}

__all__ = [
    "Drawn",
    "Message",
    "Publisher",
    "Recorder",
    "Subscriber",
    "atomic_path",
    "color_of",
    "decode_rle",
    "draw_overlay",
    "encode_rle",
    "view",
    "write_palette_png",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
