"""One feed, live: three processes, joined by rings in shared memory, and a supervisor that starts them again.

    grab ──frame ring──> publish ──> ZeroMQ: video, overlay, masks, status
      └────frame ring──> segment ──mask ring──> publish ──ring──> record (if the profile says so)

`grab` may hang, `segment` may crash, and the picture goes on. Nobody in the line waits for anybody else; every frame
that is not shown is counted, by cause.

Each process imports this room, and so its own file alone; the supervisor is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .profile import StreamProfile
    from .supervisor import Feed

__all__ = ["Feed", "run_live"]


def __getattr__(name: str) -> Any:
    if name != "Feed":
        raise AttributeError(f"module 'rtseg.live' has no attribute {name!r}")
    from .supervisor import Feed

    return Feed


def run_live(
    profile: StreamProfile,
    seconds: float | None = None,
    *,
    ready: Callable[[Feed, str], None] = lambda feed, endpoint: None,
    worker: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Play a stream profile to its end, or for so many seconds. Raises an `RtsegError` if it cannot begin.

    `ready` is called with the feed and the address it is published at, when all is open and nothing has begun.
    """
    from ..grab.address import live_address
    from .child import WORKER
    from .supervisor import Feed

    live_address(profile.source)  # what can never work is told to whoever starts the feed, not to who watches it
    feed = Feed(profile, worker or WORKER)
    feed.on_ready = ready
    return feed.run(seconds)
