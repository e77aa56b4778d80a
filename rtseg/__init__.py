"""rtseg: real-time surgical video segmentation. Frames in, SAM 2 masks of tools and tissue out.

    engine = rtseg.open_engine("engines/nano-cpu.toml")
    tracker = rtseg.Tracker(engine)
    for frame in rtseg.open_source("clip.mp4"):
        if frame.seq == 0:
            tracker.prompt(1, points=[(412, 260, 1)], label="grasper")
        masks = tracker.step(frame)
        masks.mask(1)  # bool [H, W]

Research use only: this is not a medical device.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .base.errors import RtsegError as RtsegError
    from .base.types import Frame as Frame
    from .base.types import Masks as Masks
    from .base.types import Prompt as Prompt
    from .engine import Engine as Engine
    from .engine import open_engine as open_engine
    from .engine.policy import register_policy as register_policy
    from .grab import open_source as open_source
    from .live.control.client import Client as Client
    from .publish.subscriber import Subscriber as Subscriber
    from .publish.wire import Message as Message
    from .track import Tracker as Tracker

__version__ = "0.1.0"

# A name is imported when it is first used: `import rtseg` is quick, and needs neither torch, av nor zmq.
_HOMES = {
    "Client": ".live.control.client",
    "Engine": ".engine",
    "Frame": ".base.types",
    "Message": ".publish.wire",
    "Masks": ".base.types",
    "Prompt": ".base.types",
    "RtsegError": ".base.errors",
    "Subscriber": ".publish.subscriber",
    "Tracker": ".track",
    "open_engine": ".engine",
    "open_source": ".grab",
    "register_policy": ".engine.policy",
}
__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rtseg' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return __all__
