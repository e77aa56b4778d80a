"""The beginning of a feed: what it waits for, its first picture, and what its profile says of that."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..base.errors import OutputError, PromptError
from ..base.types import now_ns

if TYPE_CHECKING:
    from .supervisor import Feed

GRAB_WAITS_NS = 30_000_000_000  # for the network, so that a recording is tracked from its first frame; then it goes on


def waits_for(feed: Feed) -> str:
    """What a feed that has not begun waits for."""
    grab, publish, segment = (feed.children[role] for role in ("grab", "publish", "segment"))
    if feed.began_ns:
        return ""
    return "the publisher" if not publish.up else "the source" if not grab.up or segment.up else "the network"


def begin_when_ready(feed: Feed) -> None:
    """Begin to grab once there is somebody to publish, and the network is ready or has had its time."""
    grab, segment = feed.children["grab"], feed.children["segment"]
    if feed.began_ns or not grab.up or not feed.children["publish"].up:
        return
    ready = segment.up and not feed.network.sizing
    if ready or segment.starts > 1 or now_ns() - feed.start_ns > GRAB_WAITS_NS:
        feed.state_now()  # who subscribes now is told how it is
        feed.on_ready(feed, feed.endpoint)
        feed.began_ns = now_ns()
        if "record" in feed.children:
            feed.children["record"].begin()
        grab.say("go")


def check_objects(feed: Feed, size: tuple[int, int]) -> None:
    """The profile's objects, by the height and width that a recording has: before a network has been loaded."""
    try:
        _check_number(feed)
        for prompt in feed.profile.objects:
            prompt.check(*size, first=True)
    except PromptError as e:
        feed.ending.refuse("prompts", e)


def _check_number(feed: Feed) -> None:
    number, most = len(feed.profile.objects), feed.profile.engine.max_objects
    if number > most:
        raise PromptError(f"prompts for {number} objects; the recipe says max_objects = {most}; raise it")


def give_first_prompts(feed: Feed) -> None:
    """The profile's objects are those of the feed's first frame."""
    if feed.first_given or not feed.frames.head:
        return
    frame = feed.frame(0) or feed.frame()
    if frame is None:
        return
    feed.first_given = True
    try:
        _check_number(feed)
        for prompt in feed.profile.objects:
            feed.network.keep.check(prompt, frame, new=True)
    except PromptError as e:
        _first_answer(feed, str(e))
    else:
        feed.network.prompt(frame, feed.profile.objects, partial(_first_answer, feed), stay=True)


def _first_answer(feed: Feed, error: str | None) -> None:
    """Of a recording, prompts that do not fit are a mistake in the profile; a live picture goes on without them."""
    if error is None:
        return
    if not feed.input.live:
        feed.ending.refuse("prompts", PromptError(error))
    feed.fault("prompts", error)


def check_folder(folder: Path) -> None:
    """`OutputError` unless recordings can be written there: better now than after the first picture."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise OutputError(f"record folder {folder}: cannot be written ({e.strerror}); choose another folder") from e
