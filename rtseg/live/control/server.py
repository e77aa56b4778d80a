"""Receives requests and sends answers, within the supervisor's loop. It never waits, and all its memory is bounded.

A request gets a `Ticket`; its answer may come later, in any order. A malformed request is answered with an error line.
A client that is gone or does not read loses only its own answers. One that asks again with the same key gets the answer
of the first time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import zmq

from ...base.errors import OutputError, RtsegError
from ...base.types import now_ns
from ...publish.keys import listen, release, revoked, user_of
from .messages import MAX_BYTES, asked_by, key_of, number_of, opened, pack_answer, request_of, who_of
from .repeats import Repeats
from .verbs import CHANGES_NOTHING, Request

_AT_ONCE, _AT_ONCE_NS = 64, 20_000_000  # limits of one call of `receive`: requests, and time
_OPEN, _OPEN_EACH = 64, 8  # limits of requests that wait for an answer: of all clients, and of one
_TIME_LIMIT_NS = 60_000_000_000  # after which a request is answered with an error
_HIGH_WATER = 8  # queued requests and queued answers of a client
_TOO_MANY = "too many requests wait for an answer; expected one after the other; try again"
_LINGER_MS = 200  # how long close() waits for the last answers to be sent
_HEARTBEAT_MS = 5000  # a client that does not reply to three of these is disconnected


@dataclass(frozen=True, slots=True)
class Ticket:
    """The sender of a request, and the number that the sender gave it."""

    client: bytes
    envelope: tuple[bytes, ...]  # an empty part if the client is a REQ socket
    number: int | None
    taken_ns: int
    who: str = ""  # the person who asks, as the client says
    key: str = ""  # of an order that may come again


class ControlServer:
    """Listens for requests. Belongs to one thread, which polls `socket` and calls `receive`; a context manager.

    Attributes:
        bad: how many messages were malformed, or came from a key that is not on the allow list.
        lost: how many answers could not be delivered.
    """

    def __init__(self, bind: str = "tcp://127.0.0.1:5556", keys: Path | None = None) -> None:
        """Bind, or raise `OutputError`.

        Arguments:
            bind: the address.
            keys: a folder of `rtseg keys`. Only keys on its allow list may connect, and a key that is removed from the
                list is refused from then on, even in an open connection.
        """
        self._keys = keys
        self.bad = self.lost = 0
        self._open: dict[Ticket, None] = {}
        self._repeats = Repeats()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.SNDHWM, _HIGH_WATER)
        self.socket.setsockopt(zmq.RCVHWM, _HIGH_WATER)
        self.socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an undeliverable answer raises an error, and is counted
        self.socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        self.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * _HEARTBEAT_MS)
        try:
            self.endpoint = listen(self._context, self.socket, bind, keys)
        except OutputError:
            self._context.destroy(linger=0)
            raise

    def receive(self) -> list[tuple[Ticket, Request]]:
        """The requests that have arrived, a few at most; call it again while `socket` is readable. Never raises."""
        found: list[tuple[Ticket, Request]] = []
        start_ns = now_ns()
        self._expire(start_ns)
        for _ in range(_AT_ONCE):
            try:
                client, *parts = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.ZMQError:
                break
            ticket, request = self._read(client.bytes, [part.bytes for part in parts], user_of(client))
            if request is not None:
                found.append((ticket, request))
            if now_ns() - start_ns > _AT_ONCE_NS:
                break
        return found

    def reply(self, ticket: Ticket, result: dict[str, Any]) -> None:
        """Answer a request. A second answer, or one after the time limit, is dropped."""
        if ticket in self._open:
            try:
                pack_answer(ticket.number, ok=True, result=result)
            except OutputError as e:
                self.refuse(ticket, str(e))
            else:
                self._finish(ticket, {"ok": True, "result": result})

    def refuse(self, ticket: Ticket, text: str) -> None:
        """Answer a request with an error line."""
        if ticket in self._open:
            self._finish(ticket, _error(text))

    def close(self) -> None:
        """Wait up to 0.2 s until the last answers are sent, then close. May be called again."""
        if not self.socket.closed:
            release(self.endpoint)
            self.socket.close()
            self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self, client: bytes, parts: list[bytes], user: str | None) -> tuple[Ticket, Request | None]:
        envelope = (b"",) if len(parts) > 1 and not parts[0] else ()
        ticket = Ticket(client, envelope, None, now_ns())
        try:
            if len(parts) != 1 + len(envelope):
                raise OutputError(f"request: {len(parts)} parts; expected one")
            values = opened(parts[-1])
            ticket = Ticket(client, envelope, number_of(values), ticket.taken_ns)
            self._check_key(user)
            request = request_of(values)
            key = "" if isinstance(request, CHANGES_NOTHING) else key_of(values)
            ticket = replace(ticket, who=who_of(values), key=key)
        except RtsegError as e:
            self.bad += 1
            self._send(ticket, _error(str(e)))
            return ticket, None
        except Exception as e:  # no message may end the feed
            self.bad += 1
            self._send(ticket, _error(f"request: cannot be read ({type(e).__name__})"))
            return ticket, None
        if ticket.key and self._came_before(ticket, asked_by(values)):
            return ticket, None
        mine = Counter(other.client for other in self._open)[client]
        if len(self._open) >= _OPEN or mine >= _OPEN_EACH or ticket in self._open:
            self._send(ticket, _error(_TOO_MANY))
            return ticket, None
        if ticket.key:
            self._repeats.begin(ticket.key, asked_by(values))
        self._open[ticket] = None
        return ticket, request

    def _came_before(self, ticket: Ticket, asked: bytes) -> bool:
        """Answer a request that came with this key before, now or as soon as the first one is."""
        known = self._repeats.find(ticket.key)
        if known is None:
            return False
        if known.asked != asked:
            self._send(ticket, _error("key: another request had it; expected a new one for each order"))
        elif known.answer is not None:
            self._send(ticket, _repeated(known.answer))
        elif not self._repeats.wait(known, ticket):
            self._send(ticket, _error(_TOO_MANY))
        return True

    def _check_key(self, user: str | None) -> None:
        if self._keys is not None and (user is None or revoked(self._keys, [user])):
            raise OutputError("this key is no longer on the allow list")

    def _expire(self, at_ns: int) -> None:
        for ticket in [ticket for ticket in self._open if at_ns - ticket.taken_ns > _TIME_LIMIT_NS]:
            self._finish(ticket, _error("was not answered in time; is the feed overloaded?"))

    def _finish(self, ticket: Ticket, answer: dict[str, Any]) -> None:
        """Answer a request that was carried out, or refused, for all who sent it."""
        del self._open[ticket]
        self._send(ticket, answer)
        for other in self._repeats.answered(ticket.key, answer) if ticket.key else ():
            self._send(other, _repeated(answer))

    def _send(self, ticket: Ticket, answer: dict[str, Any]) -> None:
        try:
            packed = pack_answer(ticket.number, **answer)
            self.socket.send_multipart([ticket.client, *ticket.envelope, packed], flags=zmq.NOBLOCK)
        except zmq.ZMQError:  # the client is gone, or does not read
            self.lost += 1


def _error(text: str) -> dict[str, Any]:
    return {"ok": False, "error": " ".join(text.encode(errors="replace").decode().split())[:1000]}


def _repeated(answer: dict[str, Any]) -> dict[str, Any]:
    return {"ok": True, "result": {**answer["result"], "repeated": True}} if answer["ok"] else answer
