"""Frames and masks out: drawn, published over ZeroMQ, received, viewed and recorded.

    overlay.py        draws masks on a frame: mask_state.py (fresh, stale, expired), label.py, carry.py (optical flow)
    wire.py           the message format; publisher.py (with subscriptions.py) sends it, subscriber.py receives it
    viewer.py         shows a feed in a window (window.py)
    recording.py      records what a feed showed: event_log.py, fragmented_mp4.py; verify.py checks such a recording
    mp4_writer.py     writes an MP4 file; coco.py and frame_names.py: files of `rtseg segment`
    keys/             CURVE keys and the allow list: who may connect

A name is imported when it is first used, so that only the libraries it needs are loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .mp4_writer import Mp4Writer
    from .overlay import Drawn, draw_overlay
    from .publisher import Publisher
    from .subscriber import Subscriber
    from .viewer import view
    from .wire import Message

_HOMES = {
    "Drawn": "overlay",
    "Message": "wire",
    "Publisher": "publisher",
    "Mp4Writer": "mp4_writer",
    "Subscriber": "subscriber",
    "draw_overlay": "overlay",
    "view": "viewer",
}

__all__ = [
    "Drawn",
    "Message",
    "Mp4Writer",
    "Publisher",
    "Subscriber",
    "draw_overlay",
    "view",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
