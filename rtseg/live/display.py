"""What is drawn on the picture, and when: the overlay of a feed, in a thread of its own.

Every frame of the ring has one fate, counted on the board: shown, or dropped by cause. With `overlay = "sync"` a frame
waits for its own masks, but not for longer than twice their budget.
"""

from __future__ import annotations

import select
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from ..base.types import Frame, Masks, now_ns
from ..publish import Drawn, Publisher, draw_overlay
from ..publish.carry import Carrier
from ..publish.mask_state import ShownState
from ..publish.wire import encode_overlay
from .pace import Pace
from .parcels import frame_of, masks_of
from .ring import new_bell, quiet, ring_bell
from .seat import Seat

LATE_NS = 1_000_000_000  # who was away for longer goes on with the newest frame
_TURN_MS = 50


@dataclass(frozen=True, slots=True)
class Settings:
    """What a person may change while it runs."""

    opacity: float
    budget_ms: float


class Display(threading.Thread):
    """Draws the frames that it `may_take`. `turned_ns`: when it last went round."""

    def __init__(self, seat: Seat, publisher: Publisher) -> None:
        super().__init__(name="display", daemon=True)
        self._seat, self._publisher, self._board = seat, publisher, seat.board
        config = seat.config
        self.settings = Settings(config["opacity"], config["mask_budget_ms"])
        self.recovering: bool = config["recovering"]
        self.notice = ""
        self.turned_ns = now_ns()
        self._name, self._record = config["name"], config["record"]
        self._sync = config["overlay"] == "sync"
        self._carries = "off" if self._sync else config["carry"]
        self._carrier = None if self._carries == "off" else Carrier()
        self.behind = False  # whether the network is too slow for the budget
        self._pace = Pace(config["target_fps"])
        self._masks: Masks | None = None
        self._masks_seen = max(0, seat.masks.head - 1)  # the newest there are still say something
        self._shown_state: ShownState | None = None
        self._waiting: deque[int] = deque()  # frames that wait for their own masks
        self._alone = False  # whether they have given that up
        self._settled: dict[str, int] = {}
        self._bell, self._over = new_bell(), False
        # Frames that came while nobody published are gone: a late picture is worse than none.
        self._next = self._end = seat.frames.head
        self._board.add("dropped restart", self._next - self._board.decided())

    def may_take(self, end: int) -> None:
        """The frames before `end` are this thread's now; from the thread that has published them."""
        self._end = end
        ring_bell(self._bell)

    def finish(self) -> None:
        """Decide what is still to be decided, and end."""
        self._over = True
        ring_bell(self._bell)
        self.join()

    def left(self, captured_ns: int, at_ns: int) -> None:
        """An overlay has left; in the publisher's thread."""
        self._board.stages["glass-to-publish"].add((at_ns - captured_ns) / 1e6)
        jitter_ms = self._pace.jitter_ms(captured_ns, at_ns)
        if jitter_ms is not None:
            self._board.stages["jitter"].add(jitter_ms)

    def settle(self) -> None:
        """Count what became of the overlays that were handed over, once it is known: what is counted stays so."""
        overlay = self._publisher.counts()["overlay"]
        dropped = overlay["dropped"]
        fates = {f"dropped {cause}": dropped.get(cause, 0) for cause in ("slot", "failed", "off")}
        fates["shown"] = overlay["sent"] + dropped.get("unwatched", 0) + dropped.get("closed", 0)
        for name, count in fates.items():
            self._board.add(name, count - self._settled.get(name, 0))
        self._settled = fates

    def run(self) -> None:
        poll = select.poll()
        bells = (self._bell, self._seat.fds.masks_for_publish)
        for bell in bells:
            poll.register(bell, select.POLLIN)
        while not self._over:
            poll.poll(_TURN_MS)
            for bell in bells:
                quiet(bell)
            self._turn()
        self._turn()
        self._drop("slot", len(self._waiting))

    def _turn(self) -> None:
        self._take_masks()
        while self._next < self._end:
            self._take_frame(self._next)
            self._next += 1
            self.turned_ns = now_ns()
        self._give_up_waiting()
        self.settle()
        self.turned_ns = now_ns()

    # Masks.

    def _take_masks(self) -> None:
        head = self._seat.masks.head
        for index in range(max(self._masks_seen, head - 2), head):
            entry = self._seat.masks.read(index)
            if entry is None:
                continue
            self._masks = masks = masks_of(*entry)
            meta = self._seat.frames.meta(masks.seq)
            if meta is not None:
                self._publisher.publish_masks(masks, frame_of(masks.seq, meta), self.settings.budget_ms)
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
        if self._carrier is not None and self._carrying():
            self._carrier.add(frame)
        if now_ns() - frame.captured_ns > LATE_NS:
            self._drop("late")
        elif not self._sync and self._end - index > 1:
            self._drop("slot")
        elif self._pace.is_early(frame.seconds):
            self._drop("rate")
        elif self._sync and not self._alone:
            self._waiting.append(index)
        else:
            self._show(frame, self._masks)

    def _show_waiting(self, masks: Masks) -> None:
        """In sync: the frame that these masks are of, with them; those before it will not get any."""
        self._alone &= self._age_ms(masks.seq) > 2 * self.settings.budget_ms
        while self._waiting and self._waiting[0] <= masks.seq:
            index = self._waiting.popleft()
            if index == masks.seq:
                self._show_entry(index, masks)
            else:
                self._drop("slot")

    def _give_up_waiting(self) -> None:
        """In sync: no masks for twice their budget, so the picture goes on without, until there are some again."""
        if not self._waiting or self._age_ms(self._waiting[0]) <= 2 * self.settings.budget_ms:
            return
        self._alone = True
        newest = self._waiting.pop()
        self._drop("slot", len(self._waiting))
        self._waiting.clear()
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
        seen = self._seen()
        drawn = self._draw(frame, masks, seen)
        self._board.add(f"masks {drawn.state}")
        self._pace.shown(frame.captured_ns, frame.seconds)
        if drawn.age_ms is not None:
            self._board.stages["mask age"].add(abs(drawn.age_ms))
        if seen:
            self._publisher.publish_overlay(frame, drawn)
        else:
            self._publisher.pass_over("overlay")
        if self._record:
            _, header, _ = encode_overlay(frame, drawn, self._name, engine=self._publisher.engine)
            self._seat.shown.write(bytes(header), drawn.image_hwc)

    def _draw(self, frame: Frame, found: Masks | None, seen: bool) -> Drawn:
        settings, masks, start_ns = self.settings, found, now_ns()
        options: dict[str, Any] = {"budget_ms": settings.budget_ms, "opacity": settings.opacity}
        try:
            if self._carrier is not None and masks is not None and self._carrying():
                masks = self._carrier.carry(masks, frame, settings.budget_ms)
            options |= {"carried": masks is not found, "before": self._shown_state, "unseen": not seen}
            drawn = draw_overlay(frame, masks, **options, recovering=self.recovering, notice=self.notice)
        except Exception as e:  # the picture goes on, bare
            self._seat.link.send("fault", text=f"overlay of frame {frame.seq}: {type(e).__name__}: {e}")
            return Drawn(frame.image_hwc, "none", None, None)
        self._shown_state = drawn.shown_state
        if seen:
            self._board.stages["overlay"].add((now_ns() - start_ns) / 1e6)
        return drawn

    def _seen(self) -> bool:
        """Whether anybody looks at what is drawn: if not, the time is the network's."""
        return self._record or self._publisher.watched("overlay")

    def _carrying(self) -> bool:
        return self._seen() and (self._carries == "flow" or self.behind)

    def _drop(self, cause: str, count: int = 1) -> None:
        self._board.add(f"dropped {cause}", count)
