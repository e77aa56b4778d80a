"""One connection to a feed's control socket: requests go out, and each answer is waited for."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Any, Self

import msgpack
import zmq
from msgspec import Meta

from ...base.errors import ConfigError, OutputError, PromptError, short
from ...base.forks import ADVICE, disable_after_fork, disable_methods
from ...base.schema import convert_value
from ...base.types import now_ns
from ...publish.keys import HandshakeMonitor, present
from .messages import check_who, pack_request
from .verbs import CHANGES_NOTHING, PROMPTED, Request, verb_of

Seconds = Annotated[float, Meta(gt=0, le=1e6, description="seconds, above 0")]
_MAX_ANSWER_BYTES = 1 << 28  # a PNG of a large noisy picture


class NoAnswerError(OutputError):
    """No answer came in time: whether the request was carried out is not known."""


class Connection:
    """Sends requests and waits for the answers. Thread-safe, one request after the other; a context manager."""

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5556",
        timeout: float = 5.0,
        keys: Path | None = None,
        server_key: str | Path | None = None,
        who: str | None = None,
    ) -> None:
        """Connect; the feed need not be there yet.

        Arguments:
            endpoint: the profile's `control.bind`.
            timeout: seconds to wait for each answer.
            keys: the client's own `.key_secret`, or the folder that holds it, for a feed that asks for keys.
            server_key: the feed's public key, or its file; None takes `server.key` from the folder of `keys`.
            who: the person who asks, at most 64 characters, for the feed's log and its recording.

        Raises:
            OutputError: the address or the name is malformed.
            ConfigError: the key cannot be used.
        """
        seconds = convert_value(timeout, Seconds, "timeout", OutputError)
        if not isinstance(endpoint, str):
            raise OutputError(f"endpoint = {short(endpoint)}; expected tcp://HOST:PORT")
        if who is not None:
            check_who(who)
        self._endpoint, self._timeout, self._number, self._who = endpoint, seconds, 0, who
        self._keys, self._server_key = keys, server_key
        self._one_at_a_time = threading.Lock()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._open()
        except (ConfigError, zmq.ZMQError) as e:
            self._context.destroy(linger=0)
            if isinstance(e, ConfigError):
                raise
            raise OutputError(f"endpoint {endpoint!r}: {str(e).lower()}; expected tcp://HOST:PORT; correct it") from e
        disable_after_fork(self, _disable)

    def ask(self, request: Request, who: str | None = None, key: str | None = None) -> dict[str, Any]:
        """Send a request as a value of `control.verbs`, and wait for the answer.

        Arguments:
            request: what is asked.
            who: the person who asks this; None takes the `who` of the connection.
            key: a text of your own, at most 64 characters. A request that changes something and comes again with the
                same key, through whatever connection, is carried out once: the feed remembers the latest 256.

        Returns:
            The feed's answer; with `repeated`: True if it is that of an earlier request with this key.

        Raises:
            PromptError: a prompt was refused.
            OutputError: anything else was refused, or there was no answer in time.
        """
        with self._one_at_a_time:
            if self._context.closed:
                raise OutputError(f"{verb_of(request)}: the client is closed; open another")
            self._number += 1
            packed = pack_request(self._number, request, self._who if who is None else who, key)
            try:
                self._socket.send(packed, zmq.NOBLOCK)
                answer = self._wait(request)
            except (OutputError, zmq.ZMQError) as e:
                self._shut()  # an undelivered request must not be executed later, when a feed is there
                self._open()
                if isinstance(e, OutputError):
                    raise
                raise OutputError(f"{self._endpoint}: {str(e).lower()}; expected a running rtseg live") from e
        if answer.get("ok") is True and isinstance(answer.get("result"), dict):
            return dict(answer["result"])
        raise (PromptError if isinstance(request, PROMPTED) else OutputError)(str(answer.get("error", "refused")))

    def close(self) -> None:
        """Disconnect. May be called again."""
        with self._one_at_a_time:
            if not self._context.closed:
                self._shut()
                self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self) -> None:
        self._socket = self._context.socket(zmq.DEALER)
        self._handshakes = HandshakeMonitor(self._socket, self._endpoint)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_ANSWER_BYTES)
        self._socket.setsockopt(zmq.IPV6, "[" in self._endpoint)
        if self._keys is not None:
            present(self._socket, self._keys, self._server_key)
        self._socket.connect(self._endpoint)

    def _shut(self) -> None:
        self._handshakes.close()
        self._socket.close()

    def _wait(self, request: Request) -> dict[str, Any]:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._handshakes.socket, zmq.POLLIN)
        until_ns = now_ns() + int(self._timeout * 1e9)
        while (left_ms := (until_ns - now_ns()) // 1_000_000) > 0:
            ready = dict(poller.poll(left_ms))
            self._handshakes.read()
            if self._handshakes.refused:
                raise OutputError(self._handshakes.refused)
            if self._socket in ready and (answer := self._answer()) is not None:
                return answer
        late = "if a feed is there, it may still do it: rtseg ctl status tells; else "
        raise NoAnswerError(
            f"{verb_of(request)}: no answer from {self._endpoint} within {self._timeout:g} s; expected a running rtseg "
            f"live with [control]; {'' if isinstance(request, CHANGES_NOTHING) else late}check the address"
        )

    def _answer(self) -> dict[str, Any] | None:
        """The answer to the present request; None if a late answer to an earlier one came."""
        try:
            answer = msgpack.unpackb(self._socket.recv_multipart()[-1])
        except Exception as e:
            raise OutputError(f"{self._endpoint}: an answer that is not msgpack; is this rtseg live?") from e
        if not isinstance(answer, dict):
            raise OutputError(f"{self._endpoint}: an answer that is not a map; is this rtseg live?")
        return answer if answer.get("n") in (self._number, None) else None


def _disable(connection: Connection) -> None:
    text = f"this client was made before the process was forked, and its sockets are the parent's; {ADVICE}"
    disable_methods(connection, ("ask",), OutputError(text))
    connection.close = lambda: None  # type: ignore[method-assign]
