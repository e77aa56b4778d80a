"""Sends frames, overlays, masks and status to subscribers, without ever making the caller wait.

One thread owns the socket (ZeroMQ sockets are not thread-safe) and does all the encoding. Callers leave work in one
slot for each topic. A slot holds only the newest message; the slot of the original video holds a few, so that a delay
of the thread loses none. Replaced messages are counted. A topic without subscribers costs nothing.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import zmq

from ..base.defaults import MASK_BUDGET_MS, TOPICS, Topic
from ..base.errors import OutputError
from ..base.types import Frame, FrameId, Masks, now_ns
from .keys import listen, release
from .looks import PLAIN, Looks
from .overlay import Drawn
from .subscriptions import Subscriptions
from .wakeup import Wakeup
from .wire import Parts, check_stream, encode_masks, encode_overlay, encode_status, encode_video

_STATUS_PERIOD_NS = 500_000_000  # the promise is one a second; half of that leaves a margin on a busy machine
_ORDER: tuple[Topic, ...] = ("status", "video", "overlay", "masks")  # the original picture never waits for the overlay
_DEPTH: dict[Topic, int] = {"video": 8, "overlay": 1, "masks": 1, "status": 1}  # how many messages a slot holds
_HIGH_WATER = 12  # messages that queue for a slow subscriber: one round of all slots; ZeroMQ keeps the *oldest*
# Subscriptions of one peer that ZeroMQ reads at a time. It continues while more arrive: with the default, 1000, a peer
# that never stops would block the thread.
_MAX_SUBSCRIPTIONS = 4
_LINGER_MS = 100  # how long close() waits for the last messages to be sent


def _socket(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    xpub = context.socket(zmq.XPUB)
    xpub.setsockopt(zmq.SNDHWM, _HIGH_WATER)
    xpub.setsockopt(zmq.RCVHWM, _MAX_SUBSCRIPTIONS)
    xpub.setsockopt(zmq.LINGER, _LINGER_MS)
    xpub.setsockopt(zmq.MAXMSGSIZE, 512)  # bytes: peers only send subscriptions, and a CURVE handshake before
    xpub.setsockopt(zmq.XPUB_VERBOSE, 1)  # report every subscriber, so that each gets the last status
    return xpub


def _done(job: Callable[[], Parts]) -> Callable[[], Parts]:
    """Run a job now; the returned function gives its result or raises its error."""
    try:
        parts = job()
    except Exception as error:
        failure = error

        def fail() -> Parts:
            raise failure

        return fail
    return lambda: parts


class Publisher:
    """Publishes one stream. Thread-safe; no call blocks; a context manager.

    A picture must not change after it was handed over, as `Frame` promises: it is sent without a copy. `on_sent` can be
    set; the publisher's thread calls it with the topic and `captured_ns` of each message that was sent. `engine`, which
    the headers name, can be set when it changes.
    """

    def __init__(
        self,
        bind: str = "tcp://127.0.0.1:5555",
        stream: str = "demo",
        topics: Sequence[Topic] = TOPICS,
        jpeg_quality: int | None = None,
        engine: str = "",
        keys: Path | None = None,
    ) -> None:
        """Bind, or raise `OutputError`. `jpeg_quality` 1..100: pictures are sent as JPEG; None: raw, bit-identical.

        `keys`: a folder of `rtseg keys`; only clients on its allow list get anything, also on loopback. A client that
        is removed from the list is disconnected within about a second.
        """
        check_stream(stream)
        self._stream, self._topics, self._quality, self.engine = stream, frozenset(topics), jpeg_quality, engine
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._xpub = _socket(self._context)
        try:
            self.endpoint = listen(self._context, self._xpub, bind, keys)
        except OutputError:
            self._context.destroy(linger=0)
            raise
        self.on_sent: Callable[[Topic, int], None] = lambda kind, captured_ns: None
        self._subscriptions = Subscriptions(self._xpub, stream, keys)
        self._wakeup = Wakeup()
        self.turned_ns = now_ns()  # when the thread last ran its loop: at least with every status
        self._lock = threading.Lock()
        # For each topic: functions that encode a message, with the captured_ns of its frame.
        self._slots: dict[Topic, deque[tuple[Callable[[], Parts], int]]] = {kind: deque() for kind in TOPICS}
        self._offered: Counter[Topic] = Counter()
        self._sent: Counter[Topic] = Counter()
        self._dropped: dict[Topic, Counter[str]] = {kind: Counter() for kind in TOPICS}
        self._error: str | None = None
        self._closed = False
        self._status: dict[str, Any] = {"state": "starting"}
        self._stated_ns = now_ns()
        self._session, self._status_seq, self._status_due_ns = uuid4().hex, 0, 0
        self._thread = threading.Thread(target=self._run, name=f"publish {stream}", daemon=True)
        self._thread.start()

    def publish_video(self, frame: Frame) -> None:
        """Publish the original picture."""
        stream, engine, quality = self._stream, self.engine, self._quality
        job = lambda: encode_video(frame, stream, engine=engine, jpeg_quality=quality)  # noqa: E731
        self._offer("video", job, frame.captured_ns)

    def publish_overlay(self, frame: Frame, drawn: Drawn) -> None:
        """Publish the result of `draw_overlay`."""
        stream, engine, quality = self._stream, self.engine, self._quality
        job = lambda: encode_overlay(frame, drawn, stream, engine=engine, jpeg_quality=quality)  # noqa: E731
        self._offer("overlay", job, frame.captured_ns)

    def watched(self, kind: Topic) -> bool:
        """Whether a topic may have a subscriber now. If not, make no message for it: call `pass_over`."""
        return kind in self._topics and self._subscriptions.has_subscriber(kind)

    def pass_over(self, kind: Topic) -> None:
        """Count a message that was not made, because the topic has no subscriber."""
        with self._lock:
            self._offered[kind] += 1
            self._dropped[kind]["unwatched" if kind in self._topics else "off"] += 1

    def publish_masks(
        self, masks: Masks, frame: FrameId, budget_ms: float = MASK_BUDGET_MS, looks: Looks = PLAIN
    ) -> None:
        """Publish masks with their state on `frame`: their own frame, or a later one."""
        stream, engine = self._stream, self.engine
        job = lambda: encode_masks(masks, frame, stream, engine=engine, budget_ms=budget_ms, looks=looks)  # noqa: E731
        # Encoding many objects takes long, and pictures must not wait for it: so it is done in the caller's thread.
        self._offer("masks", _done(job) if self._subscriptions.has_subscriber("masks") else job, frame.captured_ns)

    def set_status(self, status: Mapping[str, Any]) -> None:
        """Set the status of the pipeline. It is sent now, twice a second, and to every new subscriber.

        Its key `state` is also sent in the header. `OutputError` unless it holds only numbers, text, lists and maps.
        """
        copy = dict(status)
        # So that an error is raised here, and not in the thread.
        encode_status(copy, self._stream, session=self._session, seq=0, stated_ns=0)
        with self._lock:
            self._status, self._stated_ns = copy, now_ns()
        self._offer("status", self._status_parts, now_ns())

    def counts(self) -> dict[str, dict[str, Any]]:
        """For each topic: messages offered, sent, and dropped by cause.

        Messages in a slot are counted as offered only.
        Causes: `slot` (replaced by a newer one), `unwatched` (no subscriber), `failed` (see `error` in the status),
        `off` (not among `topics`), `closed`.
        """
        with self._lock:
            return {
                kind: {"offered": self._offered[kind], "sent": self._sent[kind], "dropped": dict(self._dropped[kind])}
                for kind in TOPICS
            }

    def close(self) -> None:
        """Send what is queued, within about 0.1 s, and free the port. May be called again."""
        with self._lock:
            self._closed = True
        self._wakeup.wake()
        self._thread.join()
        self._context.term()
        self._wakeup.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _offer(self, kind: Topic, job: Callable[[], Parts], captured_ns: int) -> None:
        with self._lock:
            self._offered[kind] += 1
            if self._closed or kind not in self._topics:
                self._dropped[kind]["closed" if self._closed else "off"] += 1
                return
            slot = self._slots[kind]
            if len(slot) == _DEPTH[kind]:
                slot.popleft()
                self._dropped[kind]["slot"] += 1
            slot.append((job, captured_ns))
        self._wakeup.wake()

    def _status_parts(self) -> Parts:
        with self._lock:
            status, stated_ns, error = self._status, self._stated_ns, self._error
        self._status_seq += 1
        full = {**status, "publisher": {"topics": self.counts(), "error": error}}
        return encode_status(
            full, self._stream, session=self._session, seq=self._status_seq, stated_ns=stated_ns, engine=self.engine
        )

    # Everything below runs in the thread that owns the socket.

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            release(self.endpoint)
            self._xpub.close()  # otherwise close() would wait forever

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._xpub, zmq.POLLIN)
        poller.register(self._wakeup.fileno(), zmq.POLLIN)
        open_ = True
        while open_:
            poller.poll(max(0, (self._status_due_ns - now_ns()) // 1_000_000 + 1))
            self.turned_ns = now_ns()
            self._wakeup.drain()  # first: a wake-up after this starts another round
            with self._lock:
                open_ = not self._closed
            if self._subscriptions.read():
                self._status_due_ns = 0
            if now_ns() >= self._status_due_ns and open_:
                self._offer("status", self._status_parts, now_ns())
            for kind in _ORDER:
                with self._lock:
                    waiting = list(self._slots[kind])
                    self._slots[kind].clear()
                for job, captured_ns in waiting:
                    self._send(kind, job, captured_ns)

    def _send(self, kind: Topic, job: Callable[[], Parts], captured_ns: int) -> None:
        if kind == "status":
            self._status_due_ns = now_ns() + _STATUS_PERIOD_NS
        cause = error = None
        if not self._subscriptions.has_subscriber(kind):
            cause = "unwatched"
        else:
            try:
                self._xpub.send_multipart(job(), flags=zmq.NOBLOCK, copy=False)
            except Exception as e:  # one bad picture must not end the thread that sends the status
                cause, error = "failed", f"{kind}: {type(e).__name__}: {e}"
        with self._lock:
            self._error = error or self._error
            if cause is None:
                self._sent[kind] += 1
            else:
                self._dropped[kind][cause] += 1
        if cause is None:
            self.on_sent(kind, captured_ns)
