"""Frames, overlays, masks and status, sent to whoever subscribes, without ever making the caller wait.

One thread owns the socket (sockets are not thread-safe) and does all the encoding. Callers leave work in a slot per
topic that holds only the newest; what it replaces is counted. A topic that nobody watches costs nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self
from uuid import uuid4

import zmq

from ..config import MASK_BUDGET_MS, TOPICS, Topic
from ..errors import OutputError
from ..types import Frame, Masks, now_ns
from .overlay import Drawn
from .wire import Parts, check_stream, encode_masks, encode_overlay, encode_status, encode_video

_STATUS_PERIOD_NS = 500_000_000  # promised once a second: half of it leaves room for a busy machine
_ORDER: tuple[Topic, ...] = ("status", "video", "overlay", "masks")  # the original picture never waits for a drawn one
_HIGH_WATER = 4  # messages that wait for a slow subscriber; it bounds memory only, since the mark keeps the *oldest*
_LINGER_MS = 100  # what close() gives the last messages to leave


def _checked(bind: str) -> str:
    """The address as ZeroMQ takes it; `OutputError` unless it is tcp on the loopback interface."""
    match = re.fullmatch(r"tcp://(\[(?P<v6>[^\]]+)\]|(?P<v4>[^:\[\]]+)):(?P<port>\*|\d{1,5})", bind)
    if match is None or (match["port"] != "*" and int(match["port"]) > 65535):
        raise OutputError(f"bind address {bind!r}: expected tcp://127.0.0.1:PORT; correct it")
    host = match["v6"] or match["v4"].replace("localhost", "127.0.0.1")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise OutputError(
            f"bind address {bind}: not loopback, so anyone could watch; expected tcp://127.0.0.1:PORT, because another "
            "address needs CURVE keys and an allow-list, which are not available yet; use an SSH tunnel"
        )
    port = "*" if match["port"] == "0" else match["port"]
    return f"tcp://[{host}]:{port}" if match["v6"] else f"tcp://{host}:{port}"


def _bound(context: zmq.Context[zmq.Socket[bytes]], bind: str) -> zmq.Socket[bytes]:
    xpub = context.socket(zmq.XPUB)
    xpub.setsockopt(zmq.SNDHWM, _HIGH_WATER)
    xpub.setsockopt(zmq.LINGER, _LINGER_MS)
    xpub.setsockopt(zmq.MAXMSGSIZE, 4096)  # all that comes in is subscriptions
    xpub.setsockopt(zmq.XPUB_VERBOSE, 1)  # every subscriber is announced, so that each gets the last status
    xpub.setsockopt(zmq.IPV6, "[" in bind)
    try:
        xpub.bind(bind)
    except zmq.ZMQError as e:
        xpub.close(linger=0)
        why = "the port is in use" if e.errno == zmq.EADDRINUSE else str(e).lower()
        raise OutputError(f"bind address {bind}: {why}; expected a free port; stop its owner or choose another") from e
    return xpub


class Publisher:
    """Publishes one stream. Thread-safe; no call blocks; a context manager.

    A picture that is handed over must not change after, as `Frame` promises: it is sent without a copy. `on_sent` may
    be set to be told, in the publisher's own thread, that a topic's message has left, and when its frame was captured.
    """

    def __init__(
        self,
        bind: str = "tcp://127.0.0.1:5555",
        stream: str = "demo",
        topics: Sequence[Topic] = TOPICS,
        jpeg_quality: int | None = None,
        engine: str = "",
    ) -> None:
        """Bind, or raise `OutputError`. `jpeg_quality` 1..100: pictures go as JPEG; None: raw, bit-identical."""
        check_stream(stream)
        self._stream, self._topics, self._quality, self._engine = stream, frozenset(topics), jpeg_quality, engine
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._xpub = _bound(self._context, _checked(bind))
        except OutputError:
            self._context.term()
            raise
        self.on_sent: Callable[[Topic, int], None] = lambda kind, captured_ns: None
        self.endpoint = self._xpub.getsockopt_string(zmq.LAST_ENDPOINT)
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._lock = threading.Lock()
        self._slots: dict[Topic, tuple[Callable[[], Parts], int]] = {}  # the encoding, and the frame's captured_ns
        self._offered: Counter[Topic] = Counter()
        self._sent: Counter[Topic] = Counter()
        self._dropped: dict[Topic, Counter[str]] = {kind: Counter() for kind in TOPICS}
        self._error: str | None = None
        self._closed = False
        self._status: dict[str, Any] = {"state": "starting"}
        self._stated_ns = now_ns()
        self._session, self._status_seq, self._status_due_ns = uuid4().hex, 0, 0
        self._prefixes: set[str] = set()
        self._thread = threading.Thread(target=self._run, name=f"publish {stream}", daemon=True)
        self._thread.start()

    def publish_video(self, frame: Frame) -> None:
        """Hand over the original picture."""
        stream, engine, quality = self._stream, self._engine, self._quality
        job = lambda: encode_video(frame, stream, engine=engine, jpeg_quality=quality)  # noqa: E731
        self._offer("video", job, frame.captured_ns)

    def publish_overlay(self, frame: Frame, drawn: Drawn) -> None:
        """Hand over what `draw_overlay` made of a frame."""
        stream, engine, quality = self._stream, self._engine, self._quality
        job = lambda: encode_overlay(frame, drawn, stream, engine=engine, jpeg_quality=quality)  # noqa: E731
        self._offer("overlay", job, frame.captured_ns)

    def publish_masks(self, masks: Masks, frame: Frame, budget_ms: float = MASK_BUDGET_MS) -> None:
        """Hand over the masks as they stand on `frame`: their own frame, or a later one."""
        stream, engine = self._stream, self._engine
        job = lambda: encode_masks(masks, frame, stream, engine=engine, budget_ms=budget_ms)  # noqa: E731
        self._offer("masks", job, frame.captured_ns)

    def set_status(self, status: Mapping[str, Any]) -> None:
        """Say how the pipeline is; sent now, twice a second, and to every new subscriber.

        The key `state` goes into the header too. `OutputError` if it holds more than numbers, text, lists and maps.
        """
        copy = dict(status)
        encode_status(copy, self._stream, session=self._session, seq=0, stated_ns=0)  # it fails here, not in the thread
        with self._lock:
            self._status, self._stated_ns = copy, now_ns()
        self._offer("status", self._status_parts, now_ns())

    def counts(self) -> dict[str, dict[str, Any]]:
        """For each topic: offered, sent, and dropped by cause; what waits in a slot is in none of the last two.

        Causes: `slot` (a newer one came), `unwatched` (nobody subscribed), `failed` (see `error` in the status),
        `off` (not among `topics`), `closed`.
        """
        with self._lock:
            return {
                kind: {"offered": self._offered[kind], "sent": self._sent[kind], "dropped": dict(self._dropped[kind])}
                for kind in TOPICS
            }

    def close(self) -> None:
        """Send what waits, within about a tenth of a second, and free the port. May be called again."""
        with self._lock:
            self._closed = True
        self._wake()
        self._thread.join()
        self._context.term()
        self._wake_in.close()
        self._wake_out.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _wake(self) -> None:
        with suppress(OSError):  # full: a wake-up is under way already; or closed: there is nobody to wake
            self._wake_in.send(b"!")

    def _offer(self, kind: Topic, job: Callable[[], Parts], captured_ns: int) -> None:
        with self._lock:
            self._offered[kind] += 1
            if self._closed or kind not in self._topics:
                self._dropped[kind]["closed" if self._closed else "off"] += 1
                return
            self._dropped[kind]["slot"] += kind in self._slots
            self._slots[kind] = job, captured_ns
        self._wake()

    def _status_parts(self) -> Parts:
        with self._lock:
            status, stated_ns, error = self._status, self._stated_ns, self._error
        self._status_seq += 1
        full = {**status, "publisher": {"topics": self.counts(), "error": error}}
        return encode_status(
            full, self._stream, session=self._session, seq=self._status_seq, stated_ns=stated_ns, engine=self._engine
        )

    # From here on: only the thread that owns the socket.

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            self._xpub.close()  # or close() would wait for it for ever

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._xpub, zmq.POLLIN)
        poller.register(self._wake_out.fileno(), zmq.POLLIN)
        open_ = True
        while open_:
            poller.poll(max(0, (self._status_due_ns - now_ns()) // 1_000_000 + 1))
            with self._lock:
                open_ = not self._closed
            self._drain()
            if now_ns() >= self._status_due_ns and open_:
                self._offer("status", self._status_parts, now_ns())
            for kind in _ORDER:
                with self._lock:
                    waiting = self._slots.pop(kind, None)
                if waiting is not None:
                    self._send(kind, *waiting)

    def _drain(self) -> None:
        """Take in wake-ups and subscriptions; a new one for `status` makes the last status due."""
        with suppress(BlockingIOError):
            while self._wake_out.recv(4096):
                pass
        while self._xpub.poll(0):
            event = self._xpub.recv()
            if event[:1] not in (b"\0", b"\1"):
                continue  # some peer's own words
            joined, prefix = event[:1] == b"\1", event[1:].decode(errors="replace")
            # Only what begins one of the topics is kept: whatever subscribers ask for, the set stays small.
            if not any(f"{self._stream}/{kind}".startswith(prefix) for kind in TOPICS):
                continue
            (self._prefixes.add if joined else self._prefixes.discard)(prefix)
            if joined and f"{self._stream}/status".startswith(prefix):
                self._status_due_ns = 0

    def _send(self, kind: Topic, job: Callable[[], Parts], captured_ns: int) -> None:
        if kind == "status":
            self._status_due_ns = now_ns() + _STATUS_PERIOD_NS
        cause = error = None
        if not any(f"{self._stream}/{kind}".startswith(prefix) for prefix in self._prefixes):
            cause = "unwatched"
        else:
            try:
                self._xpub.send_multipart(job(), flags=zmq.NOBLOCK, copy=False)
            except Exception as e:  # one bad picture must not end the thread that proves the stream alive
                cause, error = "failed", f"{kind}: {type(e).__name__}: {e}"
        with self._lock:
            self._error = error or self._error
            if cause is None:
                self._sent[kind] += 1
            else:
                self._dropped[kind][cause] += 1
        if cause is None:
            self.on_sent(kind, captured_ns)
