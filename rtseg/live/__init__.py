"""One feed, live: three processes, joined by rings in shared memory, and a supervisor that starts them again.

    grab ──frame ring──> publish ──> ZeroMQ: video, overlay, masks, status
      └────frame ring──> segment ──mask ring──> publish ──ring──> record (if the profile says so)

`grab` may hang, `segment` may crash, and the picture goes on. Nobody in the line waits for anybody else; every frame
that is not shown is counted, by cause.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..config import StreamProfile
from .child import WORKER
from .supervisor import Feed

__all__ = ["Feed", "run_live"]


def run_live(
    profile: StreamProfile,
    seconds: float | None = None,
    *,
    ready: Callable[[Feed, str], None] = lambda feed, endpoint: None,
    worker: Sequence[str] = WORKER,
) -> dict[str, Any]:
    """Play a stream profile to its end, or for so many seconds. Raises an `RtsegError` if it cannot begin.

    `ready` is called with the feed and the address it is published at, when all is open and nothing has begun.
    """
    feed = Feed(profile, worker)
    feed.on_ready = ready
    return feed.run(seconds)
