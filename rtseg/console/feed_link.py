"""The link to a live feed: a subscriber, and a client of its control socket, as anybody may be.

While nobody watches, the video is not subscribed to. So the console costs a feed at most what one subscriber costs,
and it may crash, hang or be absent without touching the feed.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.colors import color_of
from ..base.errors import OutputError, RtsegError
from ..base.types import now_ns
from ..live.control.client import Client
from ..live.control.connection import NoAnswerError
from ..live.control.messages import VERSION, request_of
from ..live.control.verbs import CHANGES_NOTHING, Request
from ..publish.subscriber import Subscriber
from ..publish.wire import CLOCK, Message, aspect_of
from . import messages
from .encoder import RawPicture
from .feed import Feed
from .messages import Link

_TIMEOUT_S = 5.0  # of a control request
_TRIES = 3  # of an order, where the feed is there and does not answer
_LAST_ANSWER_S = 0.5  # at the end
_FORBIDDEN = ("shutdown",)  # ends the feed: not an order of a page


@dataclass(frozen=True, slots=True)
class Address:
    """Where a feed is.

    Attributes:
        publish: the address that it publishes on.
        control: that of its control socket; None if it has none.
        keys: our key, for a feed that asks for one, or its folder.
        server_key: the feed's public key, or its file.
    """

    publish: str
    control: str | None = None
    keys: Path | None = None
    server_key: str | Path | None = None


def control_of(publish: str) -> str | None:
    """The control address of a feed where none is given: the port after that of `publish`; None for other sockets."""
    head, _, port = publish.rpartition(":")
    return f"{head}:{int(port) + 1}" if head.startswith("tcp://") and port.isdecimal() and int(port) < 65535 else None


class FeedLink(Feed):
    """A live feed. `OutputError` or `ConfigError` from `start` if an address or a key cannot be used."""

    def __init__(self, name: str, address: Address) -> None:
        """Nothing runs before `start`; the feed need not be there yet."""
        super().__init__(name)
        self.address = address
        self._news: Subscriber | None = None
        self._client: Client | None = None
        self._seen: list[str] = []
        self._own = 0  # our orders whose line in the feed's events is still to come
        self._watched = threading.Event()
        self._closing = threading.Event()
        self._changed = threading.Condition()

    def start(self) -> None:
        """Connect, in the event loop."""
        where = self.address
        if where.control is not None:
            self._client = Client(where.control, _TIMEOUT_S, where.keys, where.server_key)
        self._news = self._subscribe("masks", "status")
        super().start()
        threading.Thread(target=self._listen, args=(self._news,), name=f"news {self.name}", daemon=True).start()
        threading.Thread(target=self._look, name=f"video {self.name}", daemon=True).start()

    def close(self) -> None:
        """Disconnect. May be called again."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if self._news is not None:
            self._news.close()
        if self._client is not None:  # it waits for an answer that is under way; the end of the console does not
            closing = threading.Thread(target=self._client.close, daemon=True)
            closing.start()
            closing.join(_LAST_ANSWER_S)
        super().close()

    @property
    def link(self) -> Link:
        """Whether the feed can be heard, and whether it refuses our key."""
        if self._news is not None and self._news.refused:
            return "refused"
        return super().link if self._news is not None and self._news.connected else "silent"

    def watch(self, on: bool) -> None:
        """Subscribe to the video, or end that."""
        self.forget_pictures()
        with self._changed:
            if on:
                self._watched.set()
            else:
                self._watched.clear()
            self._changed.notify_all()

    def ask(self, verb: str, args: dict[str, Any], who: str, key: str | None = None) -> dict[str, Any]:
        """Send an order as a control request, and wait for the answer."""
        if self._client is None:
            raise OutputError(f"{verb}: {self.name} has no control socket; expected --control with its address")
        if verb in _FORBIDDEN:
            raise OutputError(f"{verb}: not an order of the console; there, run: rtseg ctl {verb}")
        request = request_of({"v": VERSION, "n": 0, "verb": verb, "args": _with_bytes(args)})
        noted = not isinstance(request, CHANGES_NOTHING)
        self._own += noted
        try:
            result = dict(messages.plain(self._until_answered(self._client, request, who, key)))
            self._own = max(0, self._own - bool(result.pop("repeated", False)))  # its line came the first time
            return result
        except RtsegError:
            self._own = max(0, self._own - noted)
            raise

    def _until_answered(self, client: Client, request: Request, who: str, key: str | None) -> dict[str, Any]:
        """Ask a feed that can be heard again if it does not answer: with a key nothing is carried out twice."""
        for _ in range(_TRIES - 1 if key else 0):
            try:
                return client.ask(request, who, key)
            except NoAnswerError:
                if self.link != "up":
                    raise
        return client.ask(request, who, key)

    # In threads of their own.

    def _subscribe(self, *topics: Any) -> Subscriber:
        where = self.address
        return Subscriber(where.publish, topics, self.stream, where.keys, where.server_key)

    def _listen(self, news: Subscriber) -> None:
        """Take every status and the newest masks, until the link is closed."""
        for message in news:
            if message.kind == "status":
                self._take_status(message)
            elif message.kind == "masks":
                self.offer_masks(_masks(self.name, message), message.payload)

    def _take_status(self, message: Message) -> None:
        try:
            status = message.status()
        except OutputError:  # broken; the next one comes within a second
            return
        stated_ns = message.header["captured_ns"] if message.header["clock"] == CLOCK else now_ns()
        self.offer_status(status, message.stream, stated_ns)  # a publisher repeats it, also for a supervisor that hangs
        stated = [str(line) for line in status.get("events", ()) if isinstance(line, str)]
        for line in _new_lines(self._seen, stated):
            if self._own and line.startswith("control order"):
                self._own -= 1  # told already, with who gave it
            else:
                self.tell("feed", line)
        self._seen = stated

    def _look(self) -> None:
        """Subscribe to the video while somebody watches it and the stream's name is known."""
        while not self._closing.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._closing.is_set() or self._watched.is_set())
            if self._closing.wait(0.05 if self.stream is None else 0) or self.stream is None:
                continue
            try:
                with self._subscribe("video") as video:
                    self._pass_on(video)
            except RtsegError:  # the key file is gone, or others may read it now: the status says so
                self._closing.wait(1.0)

    def _pass_on(self, video: Subscriber) -> None:
        while self._watched.is_set() and not self._closing.is_set():
            message = video.get("video", timeout=0.25)
            if message is not None:
                self.offer_picture(_picture(message))


def _picture(message: Message) -> RawPicture:
    header = message.header
    captured_ns = header["captured_ns"] if header["clock"] == CLOCK else None
    size = header["width"], header["height"]
    is_jpeg = header["pixfmt"] == "jpeg"
    aspect = float(aspect_of(header))
    return RawPicture(message.seq, header["session"], *size, captured_ns, message.payload[0], is_jpeg, aspect)


def _masks(feed: str, message: Message) -> messages.Masks:
    header = message.header
    return messages.Masks(
        feed=feed,
        seq=message.seq,
        session=header["session"],
        mask_seq=header["mask_seq"],
        mask_age_ms=header["mask_age_ms"],
        state=header["state"],
        width=header["width"],
        height=header["height"],
        objects=tuple(_object(thing, len(rle)) for thing, rle in zip(header["objects"], message.payload, strict=True)),
        lost=tuple(header.get("lost", ())),
        cut=header.get("cut", False),
    )


def _object(thing: dict[str, Any], size: int) -> messages.Object:
    color = thing.get("color") or color_of(thing["id"])
    named = {key: thing[key] for key in ("id", "label", "score", "area")}
    return messages.Object(
        **named, box=tuple(thing["box"]), color=tuple(color), hidden=bool(thing.get("hidden")), size=size
    )


def _new_lines(before: list[str], now: list[str]) -> list[str]:
    """The lines of `now` that are new, where both are the latest of one growing list."""
    for kept in range(min(len(before), len(now)), 0, -1):
        if before[-kept:] == now[:kept]:
            return now[kept:]
    return now


def _with_bytes(args: dict[str, Any]) -> dict[str, Any]:
    """Arguments as a control request has them: the text of an RLE as bytes, and nothing where JSON has null."""
    args = {key: value for key, value in args.items() if value is not None}
    prompt = args.get("prompt")
    if isinstance(prompt, dict):
        prompt = {key: value for key, value in prompt.items() if value is not None}
        mask = prompt.get("mask")
        if isinstance(mask, dict) and isinstance(mask.get("rle"), str):
            prompt["mask"] = {**mask, "rle": mask["rle"].encode("ascii", "replace")}
        args["prompt"] = prompt
    return args


def age_ms(captured_ns: int | None) -> float | None:
    """Milliseconds since a capture; None where the clocks differ."""
    return None if captured_ns is None else (now_ns() - captured_ns) / 1e6
