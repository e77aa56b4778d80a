"""The process that publishes: frame ring and mask ring -> original picture, overlay, masks, status.

Three threads, so that the original waits for nobody: this one takes it from the ring, the publisher's sends it, and the
display's draws on it afterwards. None of them waits for another process.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from ..base.types import Frame, now_ns
from ..publish import Publisher
from . import priority
from .display import LATE_NS, Display, Settings
from .parcels import frame_of
from .ring import quiet
from .seat import Seat

YIELD_S = 0.003  # at most
QUIET_NS = 1_500_000_000  # a thread that has not gone round for so long is no sign of life


def work(seat: Seat) -> None:
    priority.first()
    config = seat.config
    publisher = Publisher(
        config["bind"], config["name"], config["topics"],
        engine=config["engine"], keys=None if config["keys"] is None else Path(config["keys"]),
    )  # fmt: skip
    with publisher:
        seat.link.send("bound", endpoint=publisher.endpoint)
        _Original(seat, publisher).run()


class _Original:
    """Every frame, in order, as it is; then the display may have it."""

    def __init__(self, seat: Seat, publisher: Publisher) -> None:
        self._seat, self._publisher = seat, publisher
        self._display = Display(seat, publisher)
        self._next = seat.frames.head
        self._left = threading.Event()
        publisher.on_sent = self._sent

    def run(self) -> None:
        seat, bell = self._seat, self._seat.fds.frames_for_publish
        self._display.start()
        try:
            while True:
                self._beat()
                for facts, _ in seat.heard():
                    self._obey(facts)
                self._take_frames()
                seat.wait(0.05, bell)
                quiet(bell)
        finally:
            self._take_frames()
            self._display.finish()
            self._publisher.close()
            self._display.settle()
            seat.link.send("counts", counts=self._publisher.counts())

    def _beat(self) -> None:
        """The process lives as long as all of its threads go round."""
        if now_ns() - min(self._publisher.turned_ns, self._display.turned_ns) < QUIET_NS:
            self._seat.beat()

    def _take_frames(self) -> None:
        while self._next < self._seat.frames.head:
            entry = self._seat.frames.read(self._next)
            if entry is not None:
                self._publish(frame_of(self._next, *entry))
            self._next += 1
            self._display.may_take(self._next)
            self._beat()

    def _publish(self, frame: Frame) -> None:
        """Hand over the original, and leave the processor to the thread that sends it, before anything is drawn."""
        age_ns = now_ns() - frame.captured_ns
        if age_ns > LATE_NS:
            return
        self._seat.board.stages["handover"].add(age_ns / 1e6)
        self._left.clear()
        self._publisher.publish_video(frame)
        if self._publisher.watched("video"):
            self._left.wait(YIELD_S)

    def _obey(self, facts: dict[str, Any]) -> None:
        say = facts.pop("say")
        if say == "status":
            self._display.recovering, self._display.notice = facts["recovering"], facts["notice"]
            self._display.behind = facts["behind"]
            self._publisher.set_status(facts["status"])
            self._seat.link.send("counts", counts=self._publisher.counts())
        elif say == "set":
            self._display.settings = Settings(**facts["settings"])
        elif say == "engine":
            self._publisher.engine = facts["engine"]

    def _sent(self, kind: str, captured_ns: int) -> None:
        """In the publisher's thread."""
        now = now_ns()
        if kind == "overlay":
            self._display.left(captured_ns, now)
        elif kind == "video":
            self._seat.board.stages["video"].add((now - captured_ns) / 1e6)
            self._left.set()
