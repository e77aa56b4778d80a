"""A live feed: three or four worker processes, joined by rings in shared memory, and a supervisor that restarts them.

    grab ──frame ring──> publish ──> ZeroMQ: video, overlay, masks, status
      └────frame ring──> segment ──mask ring──> publish ──ring──> record (if the profile asks for it)

`grab` may hang and `segment` may crash, and the picture continues. No worker waits for another; every frame that is not
shown is counted, by cause.

Workers import this package too, so it loads few modules by itself: the supervisor is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .feed import Feed
    from .profile import StreamProfile

__all__ = ["Feed", "run_live"]


def __getattr__(name: str) -> Any:
    if name != "Feed":
        raise AttributeError(f"module 'rtseg.live' has no attribute {name!r}")
    from .feed import Feed

    return Feed


def run_live(
    profile: StreamProfile,
    seconds: float | None = None,
    *,
    ready: Callable[[Feed, str], None] = lambda feed, endpoint: None,
    worker: Sequence[str] | None = None,
    console: int | None = None,
) -> dict[str, Any]:
    """Play a stream profile to its end, or for some seconds.

    Args:
        profile: what to play.
        seconds: when to stop, counted from the first frame; None: when the source ends.
        ready: called with the feed and its publishing address when everything is open, before the first frame is read.
        worker: the command that starts a worker; None: this Python's `-m rtseg.live`.
        console: the port of the loopback address on which a console is started beside the feed; None starts none. A
            profile without a control socket then gets one on the loopback address.

    Returns:
        The report: what happened to every frame, and how long each stage took.

    Raises:
        RtsegError: the feed cannot be played; its class says which part is the cause.
    """
    from ..grab.address import live_address
    from .feed import Feed
    from .worker_process import WORKER

    live_address(profile.source)  # raises for a malformed source before anything is started
    if console is not None and profile.control is None:
        profile = replace(profile, control="tcp://127.0.0.1:*")
    feed = Feed(profile, worker or WORKER)
    feed.on_ready = ready
    if console is None:
        return feed.run(seconds)
    from .console_process import ConsoleProcess

    with ConsoleProcess(feed.state, console):
        return feed.run(seconds)
