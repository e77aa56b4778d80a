"""The overlay of a feed: a thread that decides which frames are drawn, and with which masks.

Every frame is either shown or dropped, and counted on the board by cause. With `overlay = "sync"` a frame waits for its
own masks, up to twice their budget.
"""

from __future__ import annotations

import select
import threading
from collections import deque
from typing import Any

from ...base.types import Frame, Masks, now_ns
from ...publish import Drawn, Publisher, draw_overlay
from ...publish.carry import Carrier
from ...publish.looks import PLAIN
from ...publish.mask_state import ShownState
from ...publish.wire import encode_overlay
from ..ipc.messages import DisplaySettings, PublishConfig
from ..ipc.reports import Fault
from ..ipc.shared_memory import FRAMES
from ..ipc.wakeup import WakeUp
from .context import WorkerContext
from .output_rate import OutputRate

LATE_NS = 1_000_000_000  # a reader that fell further behind skips to the newest frame
_POLL_MS = 50


class OverlayThread(threading.Thread):
    """Draws the frames that are handed over to it. `turned_ns`: when its loop last ran.

    It holds no more frames than the frame ring does; beyond that, the oldest are dropped.
    """

    def __init__(self, context: WorkerContext, publisher: Publisher) -> None:
        super().__init__(name="overlay", daemon=True)
        self._context, self._publisher, self._board = context, publisher, context.board
        config: PublishConfig = context.config
        self.settings, self.looks = DisplaySettings(config.opacity, config.mask_budget_ms), PLAIN
        self.recovering, self.notice = config.recovering, ""
        self.behind = False  # whether the network is too slow for the budget
        self.turned_ns = now_ns()
        self._name, self._record = config.name, config.record
        self._sync = config.overlay == "sync"
        self._carry = "off" if self._sync else config.carry
        self._carrier = None if self._carry == "off" else Carrier()
        self._rate = OutputRate(config.target_fps)
        self._masks: Masks | None = None
        self._masks_next = max(0, context.masks.head - 1)  # the newest masks are still valid
        self._shown_state: ShownState | None = None
        self._frames: deque[Frame] = deque()  # handed over, and not processed yet
        self._overtaken, self._handing = 0, threading.Lock()  # frames dropped before they were processed
        self._waiting: deque[Frame] = deque()  # in sync: frames that wait for their own masks
        self._without_masks = False  # in sync: whether frames are shown without their own masks
        self._counted: dict[str, int] = {}
        self._wake_up, self._over = WakeUp(), False
        # Frames that came while no publisher ran are dropped, because they are late by now.
        self._board.add("dropped restart", context.frames.head - self._board.decided())

    def hand_over(self, frame: Frame | None) -> None:
        """Queue a frame for drawing; None: the ring dropped it before it was read. Called by the publishing thread."""
        with self._handing:
            if frame is None:
                self._overtaken += 1
            else:
                self._frames.append(frame)
                while len(self._frames) + len(self._waiting) > _most_frames(frame):
                    self._frames.popleft()
                    self._overtaken += 1
        self._wake_up.set()

    def _next_frame(self) -> Frame | None:
        with self._handing:
            overtaken, self._overtaken = self._overtaken, 0
            frame = self._frames.popleft() if self._frames else None
        self._drop("ring", overtaken)
        return frame

    def finish(self) -> None:
        """Show or drop all that is left, and end."""
        self._over = True
        self._wake_up.set()
        self.join()

    def sent(self, captured_ns: int, at_ns: int) -> None:
        """Note that an overlay was sent; in the publisher's thread."""
        self._board.stages["glass-to-publish"].add((at_ns - captured_ns) / 1e6)
        jitter_ms = self._rate.jitter_ms(captured_ns, at_ns)
        if jitter_ms is not None:
            self._board.stages["jitter"].add(jitter_ms)

    def count_sent(self) -> None:
        """Count the overlays that the publisher has sent or dropped since the last call: a count never falls."""
        overlay = self._publisher.counts()["overlay"]
        dropped = overlay["dropped"]
        counts = {f"dropped {cause}": dropped.get(cause, 0) for cause in ("slot", "failed", "off")}
        counts["shown"] = overlay["sent"] + dropped.get("unwatched", 0) + dropped.get("closed", 0)
        for name, count in counts.items():
            self._board.add(name, count - self._counted.get(name, 0))
        self._counted = counts

    def run(self) -> None:
        poll = select.poll()
        wake_ups = (self._wake_up, self._context.shared.masks_for_publish)
        for one in wake_ups:
            poll.register(one, select.POLLIN)
        while not self._over:
            poll.poll(_POLL_MS)
            for one in wake_ups:
                one.clear()
            self._turn()
        self._turn()
        self._drop("slot", len(self._waiting))

    def _turn(self) -> None:
        self._take_masks()
        while (frame := self._next_frame()) is not None:
            self._take_frame(frame)
            self.turned_ns = now_ns()
        self._give_up_waiting()
        self.count_sent()
        self.turned_ns = now_ns()

    # Masks.

    def _take_masks(self) -> None:
        head = self._context.masks.head
        for index in range(max(self._masks_next, head - 2), head):
            masks = self._context.masks.get(index)
            if masks is None:
                continue
            self._masks = masks
            frame_id = self._context.frames.identity(masks.seq)
            if frame_id is not None:
                self._publisher.publish_masks(masks, frame_id, self.settings.budget_ms, self.looks)
            if self._sync:
                self._show_waiting(masks)
        self._masks_next = head

    # Frames.

    def _take_frame(self, frame: Frame) -> None:
        if self._carrier is not None and self._carries_now():
            self._carrier.add(frame)
        if now_ns() - frame.captured_ns > LATE_NS:
            self._drop("late")
        elif not self._sync and self._frames:
            self._drop("slot")
        elif self._rate.is_early(frame.seconds):
            self._drop("rate")
        elif self._sync and not self._without_masks:
            self._wait_for_masks(frame)
        else:
            self._show(frame, self._masks)

    def _wait_for_masks(self, frame: Frame) -> None:
        """In sync: let a frame wait; if too many wait, the oldest is dropped."""
        self._waiting.append(frame)
        if len(self._waiting) > _most_frames(frame) - 1:  # one more may be in the queue
            self._waiting.popleft()
            self._drop("ring")

    def _show_waiting(self, masks: Masks) -> None:
        """In sync: show the frame of these masks with them; frames before it will get no masks, and are dropped."""
        frame_id = self._context.frames.identity(masks.seq)
        self._without_masks &= frame_id is None or _age_ms(frame_id.captured_ns) > 2 * self.settings.budget_ms
        while self._waiting and self._waiting[0].seq <= masks.seq:
            frame = self._waiting.popleft()
            if frame.seq == masks.seq:
                self._show(frame, masks)
            else:
                self._drop("slot")

    def _give_up_waiting(self) -> None:
        """In sync: after twice the budget without masks, show frames without them until masks come again."""
        if not self._waiting or _age_ms(self._waiting[0].captured_ns) <= 2 * self.settings.budget_ms:
            return
        self._without_masks = True
        newest = self._waiting.pop()
        self._drop("slot", len(self._waiting))
        self._waiting.clear()
        self._show(newest, self._masks)

    def _show(self, frame: Frame, masks: Masks | None) -> None:
        watched = self._watched()
        drawn = self._draw(frame, masks, watched)
        self._board.add(f"masks {drawn.state}")
        self._rate.shown(frame.captured_ns, frame.seconds)
        if drawn.age_ms is not None:
            self._board.stages["mask age"].add(abs(drawn.age_ms))
        if watched:
            self._publisher.publish_overlay(frame, drawn)
        else:
            self._publisher.pass_over("overlay")
        if self._record:
            _, header, _ = encode_overlay(frame, drawn, self._name, engine=self._publisher.engine)
            self._context.drawn.write(bytes(header), drawn.image_hwc)

    def _draw(self, frame: Frame, found: Masks | None, watched: bool) -> Drawn:
        settings, masks, start_ns = self.settings, found, now_ns()
        options: dict[str, Any] = {"budget_ms": settings.budget_ms, "opacity": settings.opacity, "looks": self.looks}
        try:
            if self._carrier is not None and masks is not None and self._carries_now():
                masks = self._carrier.carry(masks, frame, settings.budget_ms)
            options |= {"carried": masks is not found, "before": self._shown_state, "unseen": not watched}
            drawn = draw_overlay(frame, masks, **options, recovering=self.recovering, notice=self.notice)
        except Exception as e:  # the picture is shown without an overlay
            self._context.send(Fault(f"overlay of frame {frame.seq}: {type(e).__name__}: {e}"))
            return Drawn(frame.image_hwc, "none", None, None)
        self._shown_state = drawn.shown_state
        if watched:
            self._board.stages["overlay"].add((now_ns() - start_ns) / 1e6)
        return drawn

    def _watched(self) -> bool:
        """Whether the overlay is watched or recorded; otherwise the time is better spent on the network."""
        return self._record or self._publisher.watched("overlay")

    def _carries_now(self) -> bool:
        return self._watched() and (self._carry == "flow" or self.behind)

    def _drop(self, cause: str, count: int = 1) -> None:
        self._board.add(f"dropped {cause}", count)


def _most_frames(frame: Frame) -> int:
    """How many frames of this size the frame ring holds."""
    return max(2, min(FRAMES.entries, FRAMES.arena // frame.image_hwc.nbytes))


def _age_ms(captured_ns: int) -> float:
    return (now_ns() - captured_ns) / 1e6
