"""The worker that publishes: frame ring and mask ring -> original picture, overlay, masks, status.

Three threads, so that the original never waits: this one reads each frame from the ring, the publisher's sends it, and
the overlay's draws on it afterwards. All of them run independently of the other processes.
"""

from __future__ import annotations

import threading
from pathlib import Path

from ...base.types import Frame, now_ns
from ...publish import Publisher
from ...publish.looks import Looks
from ..ipc.messages import DisplaySettings, Message, PublishConfig, PublishStatus, SetEngine, SetLooks
from ..ipc.reports import Bound, PublishCounts
from .context import WorkerContext
from .overlay import LATE_NS, OverlayThread
from .priority import raise_priority

YIELD_S = 0.003  # longest wait until the original is sent
QUIET_NS = 1_500_000_000  # a thread whose loop has not run for so long counts as hung


def work(context: WorkerContext) -> None:
    """Publish every frame until `Stop` comes."""
    raise_priority()
    config: PublishConfig = context.config
    keys = None if config.keys is None else Path(config.keys)
    with Publisher(config.bind, config.name, config.topics, engine=config.engine, keys=keys) as publisher:
        context.send(Bound(publisher.endpoint))
        _Originals(context, publisher).run()


class _Originals:
    """Publishes every frame, in order and unchanged; then the overlay thread gets it."""

    def __init__(self, context: WorkerContext, publisher: Publisher) -> None:
        self._context, self._publisher = context, publisher
        self._overlay = OverlayThread(context, publisher)
        self._next = context.frames.head
        self._video_sent = threading.Event()
        publisher.on_sent = self._sent

    def run(self) -> None:
        context, wake_up = self._context, self._context.shared.frames_for_publish
        self._overlay.start()
        try:
            while True:
                self._beat()
                for received in context.receive():
                    self._handle(received.message)
                self._take_frames()
                context.wait(0.05, wake_up)
                wake_up.clear()
        finally:
            self._take_frames()
            self._overlay.finish()
            self._publisher.close()
            self._overlay.count_sent()
            context.send(PublishCounts(self._publisher.counts()))

    def _beat(self) -> None:
        """Record a heartbeat while the loops of all threads run."""
        if now_ns() - min(self._publisher.turned_ns, self._overlay.turned_ns) < QUIET_NS:
            self._context.beat()

    def _take_frames(self) -> None:
        while self._next < self._context.frames.head:
            frame = self._context.frames.get(self._next)
            if frame is not None:
                self._publish(frame)
            self._next += 1
            self._overlay.hand_over(frame)
            self._beat()

    def _publish(self, frame: Frame) -> None:
        """Hand over the original, and yield the processor to the thread that sends it, before anything is drawn."""
        age_ns = now_ns() - frame.captured_ns
        if age_ns > LATE_NS:
            return
        self._context.board.stages["handover"].add(age_ns / 1e6)
        self._video_sent.clear()
        self._publisher.publish_video(frame)
        if self._publisher.watched("video"):
            self._video_sent.wait(YIELD_S)

    def _handle(self, message: Message) -> None:
        """Handle a request of the supervisor."""
        match message:
            case PublishStatus(status, recovering, notice, behind):
                self._overlay.recovering, self._overlay.notice, self._overlay.behind = recovering, notice, behind
                self._publisher.set_status(status)
                self._context.send(PublishCounts(self._publisher.counts()))
            case DisplaySettings():
                self._overlay.settings = message
            case SetLooks(colors, hidden):
                self._overlay.looks = Looks(colors, frozenset(hidden))
            case SetEngine(engine):
                self._publisher.engine = engine

    def _sent(self, kind: str, captured_ns: int) -> None:
        """A message was sent; called in the publisher's thread."""
        now = now_ns()
        if kind == "overlay":
            self._overlay.sent(captured_ns, now)
        elif kind == "video":
            self._context.board.stages["video"].add((now - captured_ns) / 1e6)
            self._video_sent.set()
