"""The connection of each browser: the newest of everything, at the browser's own pace.

A sender of its own waits for each connection, so a slow viewer delays nobody else. Nothing is queued but answers: what
a viewer did not take yet is replaced by what is newer. At most two pictures are under way to a viewer; it says when one
is painted. So a viewer that does not read costs its two pictures, and what the system's socket buffers hold.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

from msgspec import Struct
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ..base.errors import OutputError
from . import messages
from .access import Bucket, Identity
from .encoder import divisor_for
from .feed import Feed, Kind
from .feed_link import age_ms
from .hub import Hub
from .orders import OPEN_TO_VIEWERS

UNDER_WAY: Final = 2  # pictures of one feed
_HELLO_S = 5.0
_ANSWERS = 64  # that wait to be sent; more: the viewer does not read
_EVENTS = 64
_ORDERS_A_SECOND, _ORDERS_AT_ONCE = 20.0, 40.0
_MESSAGES_A_SECOND = 70.0  # for each feed: a picture at 60 fps, and some pings
TOKEN, FORBIDDEN, TOO_MUCH, MALFORMED = 4401, 4403, 4429, 4400  # why a connection is closed


class RefusedError(Exception):
    """The connection is refused: `cause` in a word, `why` in a line."""

    def __init__(self, code: int, cause: str, why: str) -> None:
        super().__init__(why)
        self.code, self.cause, self.why = code, cause, why


class _Sight:
    """One feed as one viewer sees it."""

    def __init__(self, feed: Feed, width: int | None) -> None:
        self.feed, self.width = feed, width
        self.under_way: deque[tuple[str, int]] = deque()
        self.sent = 0  # the number of the last picture sent
        self.new: dict[Kind, bool] = {}

    @property
    def divisor(self) -> int:
        return divisor_for(self.feed.source_width, self.width) if self.feed.source_width else 1

    def next_picture(self) -> bytes | None:
        """The next picture to send; None if there is none, or two are under way."""
        if len(self.under_way) >= UNDER_WAY:
            return None
        coded = self.feed.pictures.get(self.divisor)
        if coded is None or coded.number <= self.sent:
            self.feed.want(self.divisor)
            return None
        raw = coded.raw
        self.sent = coded.number
        self.under_way.append((raw.session, raw.seq))
        if len(self.under_way) < UNDER_WAY:
            self.feed.want(self.divisor)
        header = messages.Picture(
            feed=self.feed.name,
            seq=raw.seq,
            session=raw.session,
            width=coded.width,
            height=coded.height,
            source_width=raw.width,
            source_height=raw.height,
            captured_age_ms=age_ms(raw.captured_ns),
            sample_aspect=raw.sample_aspect,
        )
        return messages.binary(header, coded.jpeg)

    def painted(self, session: str, seq: int) -> None:
        """The viewer has painted a picture, and so is done with those before it."""
        if (session, seq) in self.under_way:
            while self.under_way.popleft() != (session, seq):
                pass


class Viewer:
    """One browser's connection, until it ends."""

    def __init__(self, socket: WebSocket, hub: Hub) -> None:
        self._socket, self._hub = socket, hub
        self.address = socket.client.host if socket.client else "?"
        self.identity: Identity | None = None
        self._sights: dict[str, _Sight] = {}
        self._answers: deque[Struct] = deque()
        self._events: deque[Struct] = deque(maxlen=_EVENTS)
        self._wake = asyncio.Event()
        self._stop: RefusedError | None = None
        self._orders = Bucket(_ORDERS_A_SECOND, _ORDERS_AT_ONCE)
        self._messages = Bucket(_MESSAGES_A_SECOND, 4 * _MESSAGES_A_SECOND)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Speak with the browser until either side ends it."""
        await self._socket.accept()
        try:
            self._begin(await self._hello())
            await self._speak()
        except RefusedError as e:
            await self._refuse(e)
        except (WebSocketDisconnect, RuntimeError):
            pass  # the browser is gone: nobody is left to tell
        finally:
            self._hub.leave(self)
            for sight in self._sights.values():
                sight.feed.discard(self)

    def stop(self, code: int, cause: str, why: str) -> None:
        """End the connection soon, with a reason."""
        self._stop = self._stop or RefusedError(code, cause, why)
        self._wake.set()

    # What feeds say.

    def notice(self, feed: Feed, kind: Kind, event: messages.Event | None = None) -> None:
        """Note that a feed has something new; it is sent when the connection can take it."""
        if event is not None:
            self._events.append(event)
        else:
            self._sights[feed.name].new[kind] = True
        self._wake.set()

    # What the browser says.

    async def _receive(self) -> messages.Received:
        found = await self._socket.receive()
        if found["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(found.get("code", 1006))
        text = found.get("text")
        if text is None:
            raise RefusedError(MALFORMED, "malformed", "message: binary; expected JSON text")
        try:
            return messages.parse(text)
        except OutputError as e:
            raise RefusedError(MALFORMED, "malformed", str(e)) from e

    async def _hello(self) -> messages.Hello:
        if not self._hub.has_room:
            raise RefusedError(TOO_MUCH, "too many", "too many pages are open; close one")
        self._hub.enter(self)
        try:
            async with asyncio.timeout(_HELLO_S):
                first = await self._receive()
        except TimeoutError:
            raise RefusedError(
                TOKEN, "no hello", f"no hello within {_HELLO_S:g} s; expected it as the first message"
            ) from None
        if not isinstance(first, messages.Hello):
            raise RefusedError(TOKEN, "no hello", "expected hello as the first message")
        return first

    def _begin(self, hello: messages.Hello) -> None:
        self.identity = self._hub.tokens.identity(hello.token)
        if self.identity is None:
            raise RefusedError(TOKEN, "token", "this token is not known here; expected one of the console's token file")
        unknown = [name for name in hello.feeds or () if name not in self._hub.feeds]
        if unknown:
            raise RefusedError(
                FORBIDDEN, "feed", f"no feed {unknown[0]!r:.60}; expected one of: {', '.join(self._hub.feeds)}"
            )
        names = self._hub.feeds if hello.feeds is None else dict.fromkeys(hello.feeds)
        self._messages = Bucket(_MESSAGES_A_SECOND * (1 + len(names)), 4 * _MESSAGES_A_SECOND * (1 + len(names)))
        self._answers.append(self._hub.welcome(self.identity, tuple(names)))
        for name in names:
            feed = self._hub.feeds[name]
            self._sights[name] = sight = _Sight(feed, hello.width)
            sight.new = {"status": True, "masks": True, "picture": True}
            self._events.extend(feed.events)
            feed.add(self)
        self._wake.set()

    async def _speak(self) -> None:
        sender = asyncio.create_task(self._send_all())
        try:
            while True:
                reading = asyncio.ensure_future(self._receive())
                await asyncio.wait((reading, sender), return_when=asyncio.FIRST_COMPLETED)
                if sender.done():
                    reading.cancel()
                    sender.result()
                    return
                self._take(reading.result())
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def _take(self, message: messages.Received) -> None:
        if not self._messages.take():
            raise RefusedError(TOO_MUCH, "rate", "too many messages; expected one for each picture, and few more")
        if isinstance(message, messages.Painted):
            if (sight := self._sights.get(message.feed)) is not None:
                sight.painted(message.session, message.seq)
                sight.new["picture"] = True
                self._wake.set()
        elif isinstance(message, messages.Ping):
            self._answer(messages.Pong(t=message.t))
        elif isinstance(message, messages.Order):
            self._order(message)
        else:
            raise RefusedError(MALFORMED, "malformed", "hello: a second one; expected it once")

    def _order(self, order: messages.Order) -> None:
        assert self.identity is not None
        if not self._orders.take():
            raise RefusedError(TOO_MUCH, "rate", f"too many orders; expected at most {_ORDERS_A_SECOND:g} a second")
        sight = self._sights.get(order.feed)
        if sight is None:
            known = ", ".join(self._sights)
            self._answer(_refusal(order, f"no feed {order.feed!r:.60} here; expected one of: {known}"))
        elif self.identity.right != "pointer" and order.verb not in OPEN_TO_VIEWERS:
            self._hub.refusals.note("right", self.address, f"{self.identity.name or 'a viewer'} ordered {order.verb}")
            self._answer(_refusal(order, f"{order.verb}: this token may watch, not point"))
        else:
            task = asyncio.create_task(self._do(sight.feed, order, self.identity))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _do(self, feed: Feed, order: messages.Order, identity: Identity) -> None:
        self._answer(await self._hub.orders.do(feed, order, identity, self.address))

    def _answer(self, message: Struct) -> None:
        self._answers.append(message)
        if len(self._answers) > _ANSWERS:
            self.stop(TOO_MUCH, "not read", "answers are not read; expected a page that reads")
        self._wake.set()

    # What is sent.

    async def _send_all(self) -> None:
        """Send what is new: words first, then masks and pictures. Each send waits for this connection alone."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._send_words()
            for sight in self._sights.values():
                if sight.new.pop("status", False):
                    await self._send(messages.text(sight.feed.status_message))
                if sight.new.pop("masks", False) and sight.feed.masks is not None:
                    await self._socket.send_bytes(sight.feed.masks)
                if sight.new.pop("picture", False) and (picture := sight.next_picture()) is not None:
                    await self._socket.send_bytes(picture)
                await self._send_words()

    async def _send_words(self) -> None:
        if self._stop is not None:
            raise self._stop
        for waiting in (self._answers, self._events):
            while waiting:
                await self._send(messages.text(waiting.popleft()))

    async def _send(self, json: bytes) -> None:
        await self._socket.send_text(json.decode())

    async def _refuse(self, stop: RefusedError) -> None:
        self._hub.refusals.note(stop.cause, self.address, stop.why)
        if self._socket.application_state != WebSocketState.CONNECTED:
            return
        with suppress(WebSocketDisconnect, RuntimeError):  # the browser is gone
            await self._send(messages.text(messages.Refused(why=stop.why)))
            await self._socket.close(stop.code, stop.cause)


def _refusal(order: messages.Order, why: str) -> messages.Answer:
    return messages.Answer(n=order.n, ok=False, error=why)
