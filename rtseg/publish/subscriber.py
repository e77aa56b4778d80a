"""The newest of each topic, from a publisher that does not wait.

A ZeroMQ high-water mark keeps the *oldest* messages, so a thread drains every message as it comes and keeps the last.
Each topic has a connection of its own: a large picture cannot push a status out of its queue. CONFLATE is not used:
it tears multipart messages apart.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Self

import zmq
from msgspec import Meta

from ..base.defaults import TOPICS, Topic
from ..base.errors import ConfigError, OutputError, did_you_mean, short
from ..base.forks import ADVICE, in_child, refuse
from ..base.schema import convert_value
from ..base.types import now_ns
from .keys import Handshakes, present
from .wake import Wake
from .wire import CLOCK, Message, check_stream, decode

Seconds = Annotated[float, Meta(ge=0, le=1e6, description="seconds, 0 or more, or None")]
_MAX_AGE_NS = 1_000_000_000  # a message that took longer to arrive is not news; judged where the clock is ours
_MAX_PART_BYTES = 1 << 28
_HIGH_WATER = 2
_KNOCK_AGAIN_MS = 1000  # whoever was refused asks again: his key may have been allowed since; ZeroMQ would give up


class Subscriber:
    """Receives the newest message of each topic of a feed. Thread-safe; a context manager; iterates until closed.

    Attributes:
        received: well-formed messages, counted by topic, as are the next four.
        skipped: messages that a newer one replaced before they were asked for.
        lost: gaps in `seq`, whoever made them.
        rejected: messages that were not newer than the one before, in the same session.
        late: messages that took over a second to arrive.
        bad: how many things came that were not messages.
        refused: in one line, why the publisher does not let us in; None while it does not refuse.
    """

    def __init__(
        self,
        endpoint: str,
        topics: Sequence[Topic] = TOPICS,
        stream: str | None = None,
        keys: Path | None = None,
        server_key: str | Path | None = None,
    ) -> None:
        """Begin to listen; the publisher need not be there yet.

        Arguments:
            endpoint: the address, `tcp://HOST:PORT` or `ipc://PATH`.
            topics: any of "video", "overlay", "masks", "status".
            stream: the name that opens the topics; None takes the first stream that is heard there.
            keys: our own `.key_secret`, or the folder that holds it, for a publisher that asks for keys.
            server_key: the publisher's public key, or its file; None takes `server.key` beside ours.

        Raises:
            OutputError: the address or a topic is malformed.
            ConfigError: the key cannot be used.
        """
        if not isinstance(endpoint, str):
            raise OutputError(f"endpoint {short(endpoint)}: expected tcp://HOST:PORT; correct it")
        if stream is not None:
            check_stream(stream)
        for topic in [topics] if isinstance(topics, str) else topics:
            if topic not in TOPICS or isinstance(topics, str):
                raise OutputError(f"topics {topics!r}: expected a list; {did_you_mean(topic, TOPICS)}")
        self._endpoint, self._topics, self._seeking = endpoint, tuple(topics), stream is None
        self._stream, self._keys, self._server_key = stream, keys, server_key
        self.received: Counter[Topic] = Counter()
        self.skipped: Counter[Topic] = Counter()
        self.lost: Counter[Topic] = Counter()
        self.rejected: Counter[Topic] = Counter()
        self.late: Counter[Topic] = Counter()
        self.bad = 0
        self.refused: str | None = None
        self._news = threading.Condition()
        self._newest: dict[Topic, Message] = {}
        self._last: dict[Topic, tuple[str, int]] = {}
        self._closed = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._sockets: dict[zmq.Socket[bytes], Handshakes] = {}
        try:
            self._listen()
        except (ConfigError, zmq.ZMQError) as e:
            self._forget_sockets()
            self._context.destroy(linger=0)
            if isinstance(e, ConfigError):
                raise
            raise OutputError(f"endpoint {endpoint!r}: {str(e).lower()}; expected tcp://HOST:PORT; correct it") from e
        self._wake = Wake()
        self._poller.register(self._wake.fileno(), zmq.POLLIN)
        self._thread = threading.Thread(target=self._run, name=f"subscribe {endpoint}", daemon=True)
        self._thread.start()
        in_child(self, _put_out)

    def get(self, kind: Topic | None = None, timeout: float | None = None) -> Message | None:
        """The newest message that was not given out yet.

        Arguments:
            kind: of this topic; None is any.
            timeout: seconds to wait for one; None waits for ever.

        Returns:
            The message, or None: there was none, or the subscriber was closed.

        Raises:
            OutputError: `kind` is not subscribed to, or the timeout is malformed.
        """
        if kind is not None and kind not in self._topics:
            raise OutputError(f"{kind!r} is not subscribed to; expected one of: {', '.join(self._topics)}")
        seconds = None if timeout is None else convert_value(timeout, Seconds, "timeout", OutputError)
        with self._news:
            self._news.wait_for(lambda: self._closed or self._waiting(kind), seconds)
            found = self._waiting(kind)
            return self._newest.pop(found) if found else None

    def __iter__(self) -> Iterator[Message]:
        while (message := self.get()) is not None:
            yield message

    def close(self) -> None:
        """Stop listening; whoever waits in `get` gets None. May be called again."""
        with self._news:
            if self._closed:
                return
            self._closed = True
            self._newest.clear()
            self._news.notify_all()
        self._wake.ring()
        self._thread.join()
        self._context.term()
        self._wake.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _waiting(self, kind: Topic | None) -> Topic | None:
        if kind is None:
            return next(iter(self._newest), None)  # in order of arrival
        return kind if kind in self._newest else None

    # From here on: only the thread that owns the sockets (the constructor runs before it starts).

    def _listen(self) -> None:
        """Subscribe to the topics of a stream, each on its own connection, or, to learn its name, to everything."""
        for topic in [""] if self._stream is None else [f"{self._stream}/{kind}" for kind in self._topics]:
            sub = self._context.socket(zmq.SUB)
            self._sockets[sub] = handshakes = Handshakes(sub, self._endpoint)
            sub.setsockopt(zmq.RCVHWM, _HIGH_WATER)
            sub.setsockopt(zmq.LINGER, 0)
            sub.setsockopt(zmq.MAXMSGSIZE, _MAX_PART_BYTES)
            sub.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
            sub.setsockopt(zmq.IPV6, "[" in self._endpoint)
            sub.setsockopt_string(zmq.SUBSCRIBE, topic)
            self._poller.register(handshakes.socket, zmq.POLLIN)
            self._poller.register(sub, zmq.POLLIN)
            if self._keys is not None:
                present(sub, self._keys, self._server_key)
            sub.connect(self._endpoint)

    def _forget_sockets(self) -> None:
        for sub, handshakes in self._sockets.items():
            self._poller.unregister(handshakes.socket)
            self._poller.unregister(sub)
            handshakes.close()
            sub.close()
        self._sockets.clear()

    def _run(self) -> None:
        while not self._closed:
            ready = dict(self._poller.poll(None if self.refused is None else _KNOCK_AGAIN_MS))
            for sub, handshakes in list(self._sockets.items()):
                if handshakes.socket in ready:
                    handshakes.read()
                    self.refused = handshakes.refused
                if sub in ready and sub in self._sockets:
                    self._take(sub)
            if not ready and self.refused is not None:
                self._knock_again()
        self._forget_sockets()

    def _knock_again(self) -> None:
        self._forget_sockets()
        try:
            self._listen()
        except ConfigError as e:  # our own key has gone, or others may read it by now
            self._forget_sockets()
            self.refused = str(e)

    def _take(self, sub: zmq.Socket[bytes]) -> None:
        """One message of a socket that has one: so no topic, however busy, starves another."""
        try:
            message = decode([part.buffer for part in sub.recv_multipart(copy=False)])
        except Exception:  # whatever a stranger sends, the next message is waited for
            self.bad += 1
            return
        if self._seeking:
            self._seeking, self._stream = False, message.stream
            self._forget_sockets()
            self._listen()
        else:
            self._keep(message)

    def _keep(self, message: Message) -> None:
        kind, session, seq = message.kind, message.header["session"], message.seq
        with self._news:
            self.received[kind] += 1
            if message.header["clock"] == CLOCK and now_ns() - message.header["published_ns"] > _MAX_AGE_NS:
                self.late[kind] += 1
                return
            last_session, last_seq = self._last.get(kind, (session, seq - 1))
            if session == last_session and seq <= last_seq:
                self.rejected[kind] += 1
                return
            if session == last_session:
                self.lost[kind] += seq - last_seq - 1
            self._last[kind] = session, seq
            self.skipped[kind] += kind in self._newest
            self._newest.pop(kind, None)
            self._newest[kind] = message
            self._news.notify_all()


def _put_out(subscriber: Subscriber) -> None:
    text = f"this subscriber was made before the process was forked, and its thread is the parent's; {ADVICE}"
    refuse(subscriber, ("get",), OutputError(text))
    subscriber.close = lambda: None  # type: ignore[method-assign]  # sockets are the parent's to close
