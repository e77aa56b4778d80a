"""Takes requests and gives answers, inside somebody else's loop. It never waits, and nothing in it grows.

A request becomes a `Ticket`; the answer may come later, and in any order. What is no request is answered with what is
wrong with it, if its sender listens. A client that has gone, or does not read, loses its answer, and nobody else's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import zmq

from ...base.errors import OutputError, RtsegError
from ...base.types import now_ns
from ...publish.keys import listen, release, revoked, user_of
from .messages import MAX_BYTES, Request, number_of, opened, pack_answer, request_of

_AT_ONCE, _AT_ONCE_NS = 64, 20_000_000  # what one call of `receive` takes in at most: requests, and time
_OPEN, _OPEN_EACH = 64, 8  # tickets that wait for their answers, and those of one client
_FORGOTTEN_NS = 60_000_000_000  # a ticket that nobody answered by then will not be answered
_HIGH_WATER = 8  # requests, and answers, that wait for each client
_LINGER_MS = 200  # what close() gives the last answers to leave
_HEARTBEAT_MS = 5000  # a client whose cable was pulled is forgotten after three of these


@dataclass(frozen=True, slots=True)
class Ticket:
    """Whom to answer."""

    client: bytes
    envelope: tuple[bytes, ...]  # an empty part from a client that is a REQ socket
    number: int | None
    taken_ns: int


class ControlServer:
    """Listens for requests. Belongs to one thread, which polls `socket` and calls `receive`; a context manager.

    Counted: `bad` (what was no request, or nobody's who may ask) and `lost` (answers that nobody took).
    """

    def __init__(self, bind: str = "tcp://127.0.0.1:5556", keys: Path | None = None) -> None:
        """Bind, or raise `OutputError`. `keys`: a folder of `rtseg keys`; only its allow list is listened to.

        Whoever is taken off the list has no request done any more, connected or not.
        """
        self._keys = keys
        self.bad = self.lost = 0
        self._open: dict[Ticket, None] = {}
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.SNDHWM, _HIGH_WATER)
        self.socket.setsockopt(zmq.RCVHWM, _HIGH_WATER)
        self.socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # an answer that nobody can take is an error here: counted
        self.socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        self.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * _HEARTBEAT_MS)
        try:
            self.endpoint = listen(self._context, self.socket, bind, keys)
        except OutputError:
            self._context.destroy(linger=0)
            raise

    def receive(self) -> list[tuple[Ticket, Request]]:
        """The requests that are there, a few at most; call it again while `socket` is readable. Never raises."""
        found: list[tuple[Ticket, Request]] = []
        start_ns = now_ns()
        self._forget(start_ns)
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
        """Answer a request, once; what comes after that, or far too late, goes nowhere."""
        if ticket in self._open:
            del self._open[ticket]
            try:
                self._send(ticket, pack_answer(ticket.number, ok=True, result=result))
            except OutputError as e:
                self._say_no(ticket, str(e))

    def refuse(self, ticket: Ticket, text: str) -> None:
        """Answer that it will not be done, and why, in one line."""
        if ticket in self._open:
            del self._open[ticket]
            self._say_no(ticket, text)

    def close(self) -> None:
        """Give the last answers a fifth of a second to leave. May be called again."""
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
        except RtsegError as e:
            self.bad += 1
            self._say_no(ticket, str(e))
            return ticket, None
        except Exception as e:  # no stranger ends the feed, whatever he found
            self.bad += 1
            self._say_no(ticket, f"request: cannot be read ({type(e).__name__})")
            return ticket, None
        mine = Counter(other.client for other in self._open)[client]
        if len(self._open) >= _OPEN or mine >= _OPEN_EACH or ticket in self._open:
            self._say_no(ticket, "too many requests wait for an answer; expected one after the other; try again")
            return ticket, None
        self._open[ticket] = None
        return ticket, request

    def _check_key(self, user: str | None) -> None:
        if self._keys is not None and (user is None or revoked(self._keys, [user])):
            raise OutputError("this key is no longer on the allow list")

    def _forget(self, at_ns: int) -> None:
        for ticket in [ticket for ticket in self._open if at_ns - ticket.taken_ns > _FORGOTTEN_NS]:
            del self._open[ticket]
            self._say_no(ticket, "was not answered in time; is the feed overloaded?")

    def _say_no(self, ticket: Ticket, text: str) -> None:
        line = " ".join(text.encode(errors="replace").decode().split())[:1000]
        self._send(ticket, pack_answer(ticket.number, ok=False, error=line))

    def _send(self, ticket: Ticket, answer: bytes) -> None:
        try:
            self.socket.send_multipart([ticket.client, *ticket.envelope, answer], flags=zmq.NOBLOCK)
        except zmq.ZMQError:  # it has gone, or does not read
            self.lost += 1
