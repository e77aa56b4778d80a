"""The process that publishes: frame ring and mask ring -> original picture, overlay, masks, status.

It waits for neither of the others. Every frame of the ring has one fate, counted on the board: shown, or dropped by
cause. With `overlay = "sync"` a frame waits for its own masks, but not for longer than twice their budget.
"""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import Any

from ..publish import Drawn, Publisher, draw_overlay
from ..publish.carry import Carrier
from ..publish.shown import Steady
from ..publish.wire import encode_overlay
from ..types import Frame, Masks, now_ns
from . import priority
from .pace import Pace
from .parcels import frame_of, masks_of
from .ring import quiet
from .seat import Seat

YIELD_S = 0.003  # at most: where nobody watches the original, nothing leaves
LATE_NS = 1_000_000_000  # who was away for longer goes on with the newest frame


def work(seat: Seat) -> None:
    priority.first()
    config = seat.config
    publisher = Publisher(
        config["bind"], config["name"], config["topics"],
        engine=config["engine"], keys=None if config["keys"] is None else Path(config["keys"]),
    )  # fmt: skip
    with publisher:
        seat.link.send("bound", endpoint=publisher.endpoint)
        _Display(seat, publisher).run()


class _Display:
    def __init__(self, seat: Seat, publisher: Publisher) -> None:
        self._seat, self._publisher, self._board = seat, publisher, seat.board
        config = seat.config
        self._name, self._engine = config["name"], config["engine"]
        self._budget_ms, self._opacity = config["mask_budget_ms"], config["opacity"]
        self._sync, self._record = config["overlay"] == "sync", config["record"]
        self._carrier = Carrier() if config["carry"] == "flow" and not self._sync else None
        self._pace = Pace(config["target_fps"])
        self._masks: Masks | None = None
        self._steady: Steady | None = None
        self._masks_seen = max(0, seat.masks.head - 1)  # the newest there are still say something
        self._recovering = config["recovering"]
        self._waiting: deque[int] = deque()  # frames that wait for their own masks
        self._alone = False  # whether they have given that up
        publisher.on_sent = self._sent
        self._video_left = threading.Event()
        self._lost: dict[str, int] = {}
        # Frames that came while nobody published are gone: a late picture is worse than none.
        self._next = seat.frames.head
        self._board.add("dropped restart", self._next - self._board.decided())

    def run(self) -> None:
        seat, fds = self._seat, self._seat.fds
        try:
            while True:
                for facts, _ in seat.heard():
                    self._obey(facts)
                self._turn()
                seat.wait(0.05, fds.frames_for_publish, fds.masks_for_publish)
                quiet(fds.frames_for_publish)
                quiet(fds.masks_for_publish)
        finally:
            self._end()

    def _turn(self) -> None:
        self._seat.beat()
        self._take_masks()
        while self._next < self._seat.frames.head:
            self._take_frame(self._next)
            self._next += 1
            self._seat.beat()
        self._give_up_waiting()
        self._count_lost()

    def _end(self) -> None:
        """What is still in the ring is shown, and the last counts are told."""
        self._turn()
        for _ in range(len(self._waiting)):
            self._waiting.popleft()
            self._drop("slot")
        self._publisher.close()
        self._count_lost()
        self._seat.link.send("counts", counts=self._publisher.counts())

    def _obey(self, facts: dict[str, Any]) -> None:
        say = facts.pop("say")
        if say == "status":
            self._recovering = facts["recovering"]
            self._publisher.set_status(facts["status"])
            self._seat.link.send("counts", counts=self._publisher.counts())
        elif say == "set":
            self._budget_ms, self._opacity = facts["settings"]["budget_ms"], facts["settings"]["opacity"]
        elif say == "engine":
            self._engine = self._publisher.engine = facts["engine"]

    # Masks.

    def _take_masks(self) -> None:
        head = self._seat.masks.head
        for index in range(max(self._masks_seen, head - 2), head):
            entry = self._seat.masks.read(index)
            if entry is None:
                continue
            masks = masks_of(*entry)
            meta = self._seat.frames.meta(masks.seq)
            if meta is not None:
                self._publisher.publish_masks(masks, frame_of(masks.seq, meta), self._budget_ms)
            self._masks = masks
            if self._sync:
                self._show_waiting(masks)
        self._masks_seen = head

    # Frames.

    def _take_frame(self, index: int) -> None:
        entry = self._seat.frames.read(index)
        if entry is None:
            self._drop("ring")
            return
        frame = frame_of(index, *entry)
        age_ns = now_ns() - frame.captured_ns
        if age_ns > LATE_NS:
            self._drop("late")
            return
        self._board.stages["handover"].add(age_ns / 1e6)
        self._publish_video(frame)
        if self._carrier is not None:
            self._carrier.see(frame)
        if self._pace.is_early(frame.seconds):
            self._drop("rate")
        elif self._sync and not self._alone:
            self._waiting.append(index)
        elif self._seat.frames.head - index > 1:
            self._drop("slot")
        else:
            self._show(frame, self._masks)

    def _publish_video(self, frame: Frame) -> None:
        """Hand over the original, and leave the processor to the thread that sends it, before anything is drawn."""
        self._video_left.clear()
        self._publisher.publish_video(frame)
        self._video_left.wait(YIELD_S)

    def _show_waiting(self, masks: Masks) -> None:
        """In sync: the frame that these masks are of, with them; those before it will not get any."""
        self._alone &= self._age_ms(masks.seq) > 2 * self._budget_ms
        while self._waiting and self._waiting[0] <= masks.seq:
            index = self._waiting.popleft()
            if index == masks.seq:
                self._show_entry(index, masks)
            else:
                self._drop("slot")

    def _give_up_waiting(self) -> None:
        """In sync: no masks for twice their budget, so the picture goes on without, until there are some again."""
        if not self._waiting or self._age_ms(self._waiting[0]) <= 2 * self._budget_ms:
            return
        self._alone = True
        *older, newest = self._waiting
        self._waiting.clear()
        for _ in older:
            self._drop("slot")
        self._show_entry(newest, self._masks)

    def _age_ms(self, index: int) -> float:
        meta = self._seat.frames.meta(index)
        return float("inf") if meta is None else (now_ns() - frame_of(index, meta).captured_ns) / 1e6

    def _show_entry(self, index: int, masks: Masks | None) -> None:
        entry = self._seat.frames.read(index)
        if entry is None:
            self._drop("ring")
        else:
            self._show(frame_of(index, *entry), masks)

    def _show(self, frame: Frame, masks: Masks | None) -> None:
        drawn = self._draw(frame, masks)
        self._board.add(f"masks {drawn.state}")
        self._board.add("shown")
        self._pace.shown(frame.captured_ns, frame.seconds)
        if drawn.age_ms is not None:
            self._board.stages["mask age"].add(abs(drawn.age_ms))
        self._publisher.publish_overlay(frame, drawn)
        if self._record:
            _, header, _ = encode_overlay(frame, drawn, self._name, engine=self._engine)
            self._seat.shown.write(bytes(header), drawn.image_hwc)

    def _draw(self, frame: Frame, found: Masks | None) -> Drawn:
        masks = found
        options: dict[str, Any] = {"budget_ms": self._budget_ms, "opacity": self._opacity}
        try:
            start_ns = now_ns()
            if self._carrier is not None and masks is not None:
                masks = self._carrier.carry(masks, frame, self._budget_ms)
            options |= {"carried": masks is not found, "before": self._steady}
            drawn = draw_overlay(frame, masks, **options, recovering=self._recovering)
            self._steady = drawn.steady
            self._board.stages["overlay"].add((now_ns() - start_ns) / 1e6)
            return drawn
        except Exception as e:  # the picture goes on, bare
            self._seat.link.send("fault", text=f"overlay of frame {frame.seq}: {type(e).__name__}: {e}")
            return Drawn(frame.image_hwc, "none", None, None)

    def _drop(self, cause: str) -> None:
        self._board.add(f"dropped {cause}")

    def _count_lost(self) -> None:
        """What was drawn and yet did not leave was not shown."""
        dropped = self._publisher.counts()["overlay"]["dropped"]
        for cause in ("slot", "failed", "off"):
            lost = dropped.get(cause, 0) - self._lost.get(cause, 0)
            self._lost[cause] = dropped.get(cause, 0)
            self._board.add("shown", -lost)
            self._board.add(f"dropped {cause}", lost)

    # The publisher's thread.

    def _sent(self, kind: str, captured_ns: int) -> None:
        now = now_ns()
        if kind == "overlay":
            self._board.stages["glass-to-publish"].add((now - captured_ns) / 1e6)
            jitter_ms = self._pace.jitter_ms(captured_ns, now)
            if jitter_ms is not None:
                self._board.stages["jitter"].add(jitter_ms)
        elif kind == "video":
            self._board.stages["video"].add((now - captured_ns) / 1e6)
            self._video_left.set()
