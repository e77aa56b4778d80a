"""A feed without a network, and a console in a thread: what tests of the console speak with."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from websockets.sync.client import ClientConnection, connect

from rtseg.base.types import Frame, Masks, now_ns
from rtseg.console.feed_link import Address, FeedLink
from rtseg.console.serve import Place, serve
from rtseg.live.control.messages import verb_of
from rtseg.live.control.server import ControlServer
from rtseg.publish.publisher import Publisher

ANYWHERE = "tcp://127.0.0.1:*"
SIZE = 72, 128  # height, width


class PlainFeed:
    """Publishes pictures, masks of object 1 and a status; answers orders in a thread, and counts them.

    `add` of object 9 is refused. `mute`: orders are read and done, and never answered;
    `busy`: one is under way.
    """

    def __init__(self, stream: str = "room1", fps: float = 50.0, size: tuple[int, int] = SIZE) -> None:
        self.publisher = Publisher(ANYWHERE, stream)
        self.control = ControlServer(ANYWHERE)
        self.done: list[str] = []
        self.mute = self.busy = False
        self.delay_s = 0.0
        self.seq = 0
        self._period_s, self._size = 1 / fps, size
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=run) for run in (self._publish, self._answer)]
        for thread in self._threads:
            thread.start()

    @property
    def address(self) -> Address:
        return Address(self.publisher.endpoint, self.control.endpoint)

    def _publish(self) -> None:
        height, width = self._size
        image_hwc = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        logits_bhw = np.full((1, height // 4, width // 4), -8, np.float32)
        logits_bhw[0, 4:9, 5:20] = 8
        while not self._stop.wait(self._period_s):
            frame = Frame(image_hwc, self.seq, "s1")
            self.publisher.publish_video(frame)
            masks = Masks(
                self.seq, "s1", frame.captured_ns, now_ns(), height, width, (1,), ("hook",), (0.9,), (0.9,), logits_bhw
            )
            self.publisher.publish_masks(masks, frame)
            if self.seq % 10 == 0:
                events = [f"grab source: {self.seq - n}" for n in range(40, -1, -10) if n <= self.seq]
                objects = [{"id": 1, "label": "hook"}]
                presets = [{"label": "grasper", "color": [1, 2, 3]}]
                self.publisher.set_status(
                    {"state": "running", "objects": objects, "events": events, "presets": presets}
                )
            self.seq += 1

    def _answer(self) -> None:
        while not self._stop.is_set():
            self.control.socket.poll(20)
            for ticket, request in self.control.receive():
                self.busy = True
                time.sleep(self.delay_s)
                self.busy = False
                self.done.append(verb_of(request))
                prompt = getattr(request, "prompt", None)
                if prompt is not None and prompt.id == 9:
                    self.control.refuse(ticket, "object 9: no such frame")
                elif not self.mute:
                    self.control.reply(ticket, {"id": 1, "seq": self.seq, "rle": b"abc"})

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.publisher.close()
        self.control.close()


@contextmanager
def plain_feed(**settings: Any) -> Iterator[PlainFeed]:
    feed = PlainFeed(**settings)
    try:
        yield feed
    finally:
        feed.close()


class Console:
    """A console in a thread. `links`: its feeds, for tests to look into."""

    def __init__(self, *feeds: PlainFeed, tokens: Path | None = None, **place: Any) -> None:
        self.links = [FeedLink(f"feed{n}", feed.address) for n, feed in enumerate(feeds, 1)]
        self.report: dict[str, Any] = {}
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(Place(port=0, tokens=tokens, **place),))
        self._thread.start()
        assert self._up.wait(20)

    def _run(self, place: Place) -> None:
        self.report = serve(self.links, place, self._started)

    def _started(self, address: str, end: Any) -> None:
        self.address, self._end = address, end
        self._up.set()

    def open(self, token: str | None = None, hello: bool = True, **settings: Any) -> Page:
        """A page that has said hello."""
        url = self.address.replace("http", "ws", 1) + "/ws"
        # A page that has not read all that waits for it does not read the server's goodbye either.
        page = Page(connect(url, max_size=None, compression=None, close_timeout=0.5, **settings))
        if hello:
            page.say(type="hello", **({} if token is None else {"token": token}))
        return page

    def close(self) -> dict[str, Any]:
        self._end()
        self._thread.join()
        return self.report


@contextmanager
def console(*feeds: PlainFeed, **settings: Any) -> Iterator[Console]:
    running = Console(*feeds, **settings)
    try:
        yield running
    finally:
        running.close()


class Page:
    """One side of a WebSocket, as a page has it."""

    def __init__(self, connection: Any) -> None:
        self.socket: ClientConnection = connection.__enter__()

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def hear(self, kind: str | None = None, /, paint: bool = False, **wanted: Any) -> dict[str, Any]:
        """The next message of a kind with these values, its payload under `payload`. `paint`: pictures are painted."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            message = self.socket.recv(timeout=20)
            payload = b""
            if isinstance(message, bytes):
                (length,) = struct.unpack_from("<I", message)
                message, payload = message[4 : 4 + length].decode(), message[4 + length :]
            found = json.loads(message) | {"payload": payload}
            if paint and found["type"] == "picture":
                self.painted(found)
            if kind in (None, found["type"]) and wanted.items() <= found.items():
                return found
        raise TimeoutError(f"no {kind} {wanted}")

    def painted(self, picture: dict[str, Any]) -> None:
        self.say(type="painted", **{key: picture[key] for key in ("feed", "seq", "session")})

    def order(self, n: int, verb: str, client: str = "page", **args: Any) -> None:
        self.say(type="order", client=client, n=n, feed="feed1", verb=verb, args=args)

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()
