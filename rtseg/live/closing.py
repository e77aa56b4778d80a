"""The end of a feed: its processes are ended in order, and what is not as it should be goes into the one list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..base.types import now_ns
from .opening import waits_for
from .statement import plain_config

if TYPE_CHECKING:
    from .supervisor import Feed

ORDER = ("grab", "segment", "publish", "record")  # against the stream's direction nothing waits


def close(feed: Feed) -> None:
    """End all processes, each after those that it takes from."""
    if not feed.frames.head and feed.ending.ok:
        _say_why_nothing_came(feed)
    for role in ORDER:
        if role == "publish":
            feed.state_now()
        if role in feed.children:
            _stop(feed, role)
    _settle(feed)
    if "record" in feed.ending.plain():  # it did not come to what was drawn since
        drawn = sum(feed.counts.mask_states().values())
        feed.board.add("missed", max(0, drawn - feed.board["record next"]))
    missed = feed.board["missed"]
    if missed and "record" not in feed.ending.plain():
        why = "its process was killed" if feed.children["record"].restarts else "it could not keep up"
        feed.fault("record", f"{missed} frames that were shown are not in the recording: {why}")


def cut_short(feed: Feed) -> None:
    """Somebody is in a hurry: kill what is left."""
    for role, child in feed.children.items():
        if child.pid is not None:
            child.kill("its end was not waited for")
            feed.fault(role, _of(role, child.leave()))
    _settle(feed)


def _settle(feed: Feed) -> None:
    """What nobody decided on was dropped with the process that should have."""
    feed.board.add("dropped restart", feed.frames.head - feed.board.decided())


def _say_why_nothing_came(feed: Feed) -> None:
    why = str(feed.input.facts.get("why") or "")
    if not feed.began_ns:
        waits = waits_for(feed)
        why = f"ended before the first picture, while it waited for {waits}" + (f" ({why})" if why else "")
    feed.fault("grab", why or f"{feed.source['uri']}: no picture came; is it sent?")


def _stop(feed: Feed, role: str) -> None:
    child = feed.children[role]
    if not child.starts:
        return
    if child.ended:  # just now, and nobody has looked yet
        feed.heard.listen(child)
        child.reap()
    if role == "record" and child.pid is None and child.refused is None:  # it finishes what the one before left open
        child.begin()
        child.tick(lambda: plain_config(role, feed))
    how = child.stop(lambda: feed.board[f"beat {role}"], lambda: feed.heard.listen(child))
    if not how or not feed.began_ns or feed.ending.refusal is not None or child.refused is not None:
        return  # a refusal was said when it came
    if role == "grab" and feed.input.ended_ns and child.pid is None:
        return  # it had given all that it had
    if role == "segment" and not child.restarts and not child.failing and not feed.network.keep.ids:
        return  # there was nothing for it to do
    feed.fault(role, _of(role, how))


def _of(role: str, how: str) -> str:
    return f"{how}; the recording is not closed" if role == "record" else how


def drained(feed: Feed) -> bool:
    """After the last frame: whether every frame's fate is known, or the publisher has had its time."""
    if not feed.input.ended_ns:
        return False
    waited_ms = (now_ns() - feed.input.ended_ns) / 1e6
    return feed.board.decided() >= feed.frames.head or waited_ms > 2000 + 2 * feed.settings["budget_ms"]
