"""Receives the newest message of each topic.

A ZeroMQ high-water mark keeps the *oldest* messages, so a thread reads every message as it arrives and keeps the last.
Each topic has its own connection, so that a large picture cannot push a status out of the queue. CONFLATE is not used:
it breaks multipart messages.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import zmq
from msgspec import Meta

from ..base.defaults import TOPICS, Topic
from ..base.errors import ConfigError, OutputError, did_you_mean, short
from ..base.forks import ADVICE, disable_after_fork, disable_methods
from ..base.schema import convert_value
from ..base.types import now_ns
from .keys import HandshakeMonitor, present
from .wakeup import Wakeup
from .wire import CLOCK, Message, check_stream, decode

Seconds = Annotated[float, Meta(ge=0, le=1e6, description="seconds, 0 or more, or None")]
# A message that took longer to arrive is dropped; only if both processes read the same clock.
_MAX_AGE_NS = 1_000_000_000
_MAX_PART_BYTES = 1 << 28
_HIGH_WATER = 2
_RETRY_MS = 1000  # after a refusal, try again: the key may have been allowed since; ZeroMQ itself would give up


class Subscriber:
    """Receives the newest message of each topic of a feed. Thread-safe; a context manager; iterates until closed.

    Attributes:
        received: well-formed messages, counted by topic, as are the next four.
        skipped: messages that a newer one replaced before `get` returned them.
        lost: messages that are missing between two that arrived, by `seq`.
        rejected: messages that were not newer than the one before, in the same session.
        late: messages that took over a second to arrive.
        bad: how many received messages were malformed.
        refused: in one line, why the publisher refuses this subscriber; None if it does not.
        connected: whether there is a connection now. A publisher that dies closes it; one that hangs does not.
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
            stream: the first part of the topics; None takes the first stream that is received.
            keys: the subscriber's own `.key_secret`, or its folder, for a publisher that asks for keys.
            server_key: the publisher's public key, or its file; None takes `server.key` from the folder of `keys`.

        Raises:
            OutputError: the address or a topic is malformed.
            ConfigError: the key cannot be used.
        """
        _check_arguments(endpoint, topics, stream)
        self._endpoint, self._topics, self._seeking = endpoint, tuple(topics), stream is None
        self._stream, self._keys, self._server_key = stream, keys, server_key
        self.received: Counter[Topic] = Counter()
        self.skipped: Counter[Topic] = Counter()
        self.lost: Counter[Topic] = Counter()
        self.rejected: Counter[Topic] = Counter()
        self.late: Counter[Topic] = Counter()
        self.bad = 0
        self.refused: str | None = None
        self.connected = False
        self._news = threading.Condition()
        self._newest: dict[Topic, Message] = {}
        self._last: dict[Topic, tuple[str, int]] = {}
        self._closed = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._sockets: dict[zmq.Socket[bytes], HandshakeMonitor] = {}
        self._start()

    def _start(self) -> None:
        self._connect_first()
        self._wakeup = Wakeup()
        self._poller.register(self._wakeup.fileno(), zmq.POLLIN)
        self._thread = threading.Thread(target=self._run, name=f"subscribe {self._endpoint}", daemon=True)
        self._thread.start()
        disable_after_fork(self, _disable_in_child)

    def _connect_first(self) -> None:
        try:
            self._connect()
        except (ConfigError, zmq.ZMQError) as e:
            self._close_sockets()
            self._context.destroy(linger=0)
            if isinstance(e, ConfigError):
                raise
            why = str(e).lower()
            raise OutputError(f"endpoint {self._endpoint!r}: {why}; expected tcp://HOST:PORT; correct it") from e

    def get(self, kind: Topic | None = None, timeout: float | None = None) -> Message | None:
        """The newest message that was not returned yet.

        Arguments:
            kind: the topic; None means any.
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
        """Stop receiving; a call that waits in `get` returns None. May be called again."""
        with self._news:
            if self._closed:
                return
            self._closed = True
            self._newest.clear()
            self._news.notify_all()
        self._wakeup.wake()
        self._thread.join()
        self._context.term()
        self._wakeup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _waiting(self, kind: Topic | None) -> Topic | None:
        if kind is None:
            return next(iter(self._newest), None)  # in order of arrival
        return kind if kind in self._newest else None

    # Everything below runs in the thread that owns the sockets (and in the constructor, before it starts).

    def _connect(self) -> None:
        """Subscribe to each topic of the stream on its own connection; to everything if the name is not known yet."""
        for topic in [""] if self._stream is None else [f"{self._stream}/{kind}" for kind in self._topics]:
            sub = self._context.socket(zmq.SUB)
            self._sockets[sub] = handshakes = HandshakeMonitor(sub, self._endpoint)
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

    def _close_sockets(self) -> None:
        for sub, handshakes in self._sockets.items():
            self._poller.unregister(handshakes.socket)
            self._poller.unregister(sub)
            handshakes.close()
            sub.close()
        self._sockets.clear()

    def _run(self) -> None:
        while not self._closed:
            ready = dict(self._poller.poll(None if self.refused is None else _RETRY_MS))
            for sub, handshakes in list(self._sockets.items()):
                if handshakes.socket in ready:
                    handshakes.read()
                    self.refused = handshakes.refused
                    self.connected = all(each.connected for each in self._sockets.values())
                if sub in ready and sub in self._sockets:
                    self._receive(sub)
            if not ready and self.refused is not None:
                self._reconnect()
        self._close_sockets()

    def _reconnect(self) -> None:
        self._close_sockets()
        try:
            self._connect()
        except ConfigError as e:  # the key file was deleted, or others may read it now
            self._close_sockets()
            self.refused = str(e)

    def _receive(self, sub: zmq.Socket[bytes]) -> None:
        """Receive one message of a socket that has one: a busy topic cannot starve another."""
        try:
            message = decode([part.buffer for part in sub.recv_multipart(copy=False)])
        except Exception:  # whatever was sent, continue with the next message
            self.bad += 1
            return
        if self._seeking:
            self._seeking, self._stream = False, message.stream
            self._close_sockets()
            self._connect()
        else:
            self._store(message)

    def _store(self, message: Message) -> None:
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


def _check_arguments(endpoint: object, topics: Any, stream: str | None) -> None:
    if not isinstance(endpoint, str):
        raise OutputError(f"endpoint {short(endpoint)}: expected tcp://HOST:PORT; correct it")
    if stream is not None:
        check_stream(stream)
    names = [topics] if isinstance(topics, str) or not isinstance(topics, Iterable) else topics
    for topic in names:
        if topic not in TOPICS or isinstance(topics, str):
            raise OutputError(f"topics {topics!r}: expected a list; {did_you_mean(topic, TOPICS)}")


def _disable_in_child(subscriber: Subscriber) -> None:
    text = f"this subscriber was made before the process was forked, and its thread is the parent's; {ADVICE}"
    disable_methods(subscriber, ("get",), OutputError(text))
    subscriber.close = lambda: None  # type: ignore[method-assign]  # the parent process closes the sockets
