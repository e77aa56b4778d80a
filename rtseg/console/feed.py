"""What viewers see of a feed, or of a recording: its newest picture, masks and status, and its events.

A source, such as `FeedLink`, offers what is new from its own threads. Everything else happens in the event loop.
Only the newest of everything is kept, so memory is bounded however slow anybody is.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from msgspec import UNSET

from ..base.types import now_ns
from . import messages
from .encoder import CodedPicture, Encoder, RawPicture
from .messages import Link

Kind = Literal["picture", "masks", "status", "event"]
_EVENTS = 64  # kept for a page that is opened later
_SILENT_MS = 1500.0  # a feed states its status once a second


class Watcher(Protocol):
    """Somebody who is told in the event loop that a feed has something new."""

    def notice(self, feed: Feed, kind: Kind, event: messages.Event | None = None) -> None:
        """Something of this kind is new."""


class Feed(ABC):
    """One feed or recording.

    Attributes:
        name: what messages and addresses call it.
        stream: what its publisher calls it; None until that is known.
        recording: whether it is a recording.
        pictures: the newest coded picture by divisor.
        masks: the newest masks, as a binary message.
        status: the newest status.
        events: the latest events, the oldest first.
    """

    recording = False

    def __init__(self, name: str) -> None:
        """Nothing runs before `start`."""
        self.name, self.stream = name, None if not self.recording else name
        self.pictures: dict[int, CodedPicture] = {}
        self.masks: bytes | None = None
        self.status: dict[str, Any] = {}
        self.events: deque[messages.Event] = deque(maxlen=_EVENTS)
        self.source_width = 0
        self._status_ns: int | None = None
        self._watchers: set[Watcher] = set()
        self._lock = threading.Lock()
        self._inbox: dict[str, Any] = {}
        self._new_events: deque[messages.Event] = deque(maxlen=_EVENTS)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._encoder: Encoder | None = None

    # For a source.

    def start(self) -> None:
        """Begin, in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._take)  # what came before
        self._encoder = Encoder(self.name, lambda coded: self._post(f"picture {coded.divisor}", coded))

    def close(self) -> None:
        """End. May be called again."""
        self._loop = None
        if self._encoder is not None:
            self._encoder.close()

    @abstractmethod
    def ask(self, verb: str, args: dict[str, Any], who: str, key: str | None = None) -> dict[str, Any]:
        """Do an order, and wait until it is done, in a thread for this alone. Raises `RtsegError` if it is not done.

        Arguments:
            verb: the order's name.
            args: its arguments, as JSON has them, unchecked.
            who: who gives the order, for the log.
            key: of an order that may come again, through another console, too: it is done once.
        """

    @property
    def link(self) -> Link:
        """Whether the feed can be heard."""
        age_ms = self.status_age_ms
        return "up" if age_ms is not None and age_ms <= _SILENT_MS else "silent"

    def watch(self, on: bool) -> None:  # noqa: B027 - a source without need for it leaves it as it is
        """Somebody wants pictures now, or nobody does any longer. In the event loop; must not block."""

    def offer_picture(self, raw: RawPicture) -> None:
        """A new picture; from any thread."""
        if self._encoder is not None:
            self._encoder.offer(raw)

    def offer_masks(self, header: messages.Masks, rles: Sequence[bytes | memoryview]) -> None:
        """New masks; from any thread."""
        self._post("masks", messages.binary(header, *rles))

    def offer_status(self, status: dict[str, Any], stream: str | None = None, stated_ns: int | None = None) -> None:
        """A new status; from any thread. `stated_ns`: when it was made; None: now."""
        self._post("status", (messages.plain(status), stream, now_ns() if stated_ns is None else stated_ns))

    def tell(self, kind: str, text: str, who: str | None = None) -> None:
        """Something happened; from any thread."""
        event = messages.Event(feed=self.name, at=time.time(), kind=kind, text=text, who=who or UNSET)
        with self._lock:
            self._new_events.append(event)
        self._post("event", None)

    # For viewers, in the event loop.

    @property
    def coded(self) -> int:
        """How many pictures were coded, all sizes together."""
        return 0 if self._encoder is None else self._encoder.coded

    @property
    def status_age_ms(self) -> float | None:
        """How long ago the newest status came; None if none did."""
        return None if self._status_ns is None else (now_ns() - self._status_ns) / 1e6

    @property
    def status_message(self) -> messages.Status:
        """The newest status and its age."""
        return messages.Status(
            feed=self.name, stream=self.stream, link=self.link, age_ms=self.status_age_ms, status=self.status
        )

    @property
    def title(self) -> messages.FeedName:
        """The feed, as a welcome lists it."""
        return messages.FeedName(feed=self.name, stream=self.stream, recording=self.recording)

    def add(self, watcher: Watcher) -> None:
        """Somebody watches."""
        self._watchers.add(watcher)
        if len(self._watchers) == 1:
            self.watch(True)

    def discard(self, watcher: Watcher) -> None:
        """Somebody stops watching."""
        before = len(self._watchers)
        self._watchers.discard(watcher)
        if before and not self._watchers:
            self.watch(False)

    def want(self, divisor: int) -> None:
        """A viewer can take a picture of this size that is newer than the last one coded."""
        if self._encoder is not None:
            self._encoder.want(divisor)

    def forget_pictures(self) -> None:
        """Nobody shall be shown the pictures that there are: they have become old."""
        self.pictures.clear()
        if self._encoder is not None:
            self._encoder.forget()

    def state_again(self) -> None:
        """Tell all viewers the status again, with its age."""
        self._tell_watchers("status")

    def _tell_watchers(self, kind: Kind, event: messages.Event | None = None) -> None:
        for watcher in tuple(self._watchers):
            watcher.notice(self, kind, event)

    def _post(self, kind: str, value: Any) -> None:
        """Hand something to the event loop; what it did not take yet is replaced."""
        with self._lock:
            idle = not self._inbox
            self._inbox[kind] = value
            loop = self._loop
        if idle and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        with self._lock:
            inbox, self._inbox = self._inbox, {}
            events = tuple(self._new_events)
            self._new_events.clear()
        for event in events:
            self.events.append(event)
            self._tell_watchers("event", event)
        for kind, value in inbox.items():
            if kind == "masks":
                self.masks = value
                self._tell_watchers("masks")
            elif kind == "status":
                self.status, stream, self._status_ns = value
                self.stream = stream or self.stream
                self._tell_watchers("status")
            elif isinstance(value, CodedPicture):
                self.pictures[value.divisor] = value
                self.source_width = value.raw.width
                self._tell_watchers("picture")
