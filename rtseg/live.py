"""One feed, live: source -> newest-frame slot -> tracker -> overlay -> publisher.

Three threads, which meet only in values. The grabber (the caller's thread) publishes each original picture at once
and leaves the frame in two slots; the tracker takes the newest from one; the display takes the newest from the
other and draws the newest masks there are. With `overlay = "sync"` the display comes after the tracker instead, and
shows a frame with its own masks. Every frame that is not shown is counted, by cause.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np

from .config import StreamProfile
from .engine import Engine, open_engine, spare_core
from .errors import RtsegError
from .grab import Source, open_source, paced
from .publish import Drawn, Publisher, draw_overlay
from .timing import Stages
from .track import Tracker
from .types import Frame, Masks, now_ns

STATUS_PERIOD_NS = 500_000_000
STAGES = ("grab", "segment", "overlay", "glass-to-mask", "mask age", "glass-to-publish")


class Slot:
    """Holds the newest frame for one taker. The first frame of a feed, which the prompts belong to, waits for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._closed = False

    def put(self, frame: Frame) -> bool:
        """Leave a frame; True if that lost one: the frame that was waiting, or this one if the first still waits."""
        with self._changed:
            lost = self._frame is not None
            if self._frame is None or self._frame.seq > 0:
                self._frame = frame
            self._changed.notify()
            return lost

    def take(self) -> Frame | None:
        """The newest frame, as soon as there is one; None once the slot is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None or self._closed)
            frame, self._frame = self._frame, None
            return frame

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()


class Feed:
    """A running stream profile. `run` blocks until the source ends, `stop` is called, or `seconds` have passed."""

    def __init__(self, profile: StreamProfile, source: Source, engine: Engine, publisher: Publisher) -> None:
        self._profile, self._source, self._publisher, self._engine = profile, source, publisher, engine
        self._tracker = Tracker(engine)
        self._sync = profile.overlay == "sync"
        self._to_track, self._to_show = Slot(), Slot()
        self._masks: Masks | None = None
        self._faults: dict[str, str] = {}  # the room that failed, and how; each key has one writing thread
        self._seen = 0
        self._segmented = 0
        self._states = dict.fromkeys(("fresh", "stale", "expired", "none"), 0)
        self._dropped = {"rate": 0, "slot": 0}
        self._stages = Stages(*STAGES)
        self._next_s = -np.inf
        self.on_masks: Callable[[Masks], None] = lambda masks: None
        publisher.on_sent = self._sent
        for prompt in profile.objects:
            prompt.check(source.height, source.width, first=True)
            self._tracker.give(prompt)

    def run(self, seconds: float | None = None) -> dict[str, Any]:
        """Play the feed; returns what happened to every frame, and how long each stage took."""
        threads = [threading.Thread(target=self._track, name="track")]
        if not self._sync:
            threads.append(threading.Thread(target=self._show, name="show"))
        for thread in threads:
            thread.start()
        start_ns = now_ns()
        try:
            with suppress(KeyboardInterrupt):  # how a person ends a feed that has no end
                self._grab(None if seconds is None else start_ns + int(seconds * 1e9))
        except RtsegError as e:
            self._faults["source"] = str(e)
            raise
        finally:
            for slot in (self._to_track, self._to_show):
                slot.close()
            for thread in threads:
                thread.join()
            self._publisher.set_status(self._status("ended"))
        return self._report((now_ns() - start_ns) / 1e9)

    def stop(self) -> None:
        """End the feed before its next frame; from any thread."""
        self._source.close()

    # The grabber.

    def _grab(self, until_ns: float | None) -> None:
        status_ns = 0
        for frame in self._source:
            if until_ns is not None and frame.captured_ns >= until_ns:
                return
            self._seen += 1
            self._stages.add("grab", self._source.grab_ms)
            self._publisher.publish_video(frame)
            self._hand_on(frame)
            if frame.captured_ns >= status_ns:
                status_ns = frame.captured_ns + STATUS_PERIOD_NS
                self._publisher.set_status(self._status("running"))

    def _hand_on(self, frame: Frame) -> None:
        early = self._is_early(frame)
        self._dropped["rate"] += early
        if not self._sync:
            self._to_track.put(frame)  # what the tracker misses is shown all the same
        if not early:
            self._dropped["slot"] += (self._to_track if self._sync else self._to_show).put(frame)

    def _is_early(self, frame: Frame) -> bool:
        """Whether this frame comes sooner after the last one shown than `target_fps` allows."""
        period = 1 / self._profile.target_fps
        if self._next_s - 2 * period < frame.seconds < self._next_s:  # a pts that jumps back is no early frame
            return True
        # Half a period of tolerance: a 25 fps source with jitter in its pts stays 25 fps.
        on_time = abs(frame.seconds - self._next_s) < 2 * period
        self._next_s = max(self._next_s + period if on_time else 0.0, frame.seconds + period / 2)
        return False

    # The tracker.

    def _track(self) -> None:
        while (frame := self._to_track.take()) is not None:
            if "network" not in self._faults:
                self._masks = self._segment(frame)
            if self._sync:
                self._draw(frame, self._masks)

    def _segment(self, frame: Frame) -> Masks | None:
        """A network that fails takes the masks with it, and nothing else: the picture goes on, bare."""
        try:
            with self._stages.time("segment"):
                masks = self._tracker.step(frame)
            self._publisher.publish_masks(masks, frame, self._profile.mask_budget_ms)
            self.on_masks(masks)
        except Exception as e:
            self._faults["network"] = f"frame {frame.seq}: {type(e).__name__}: {e}"
            return None
        self._segmented += 1
        self._stages.add("glass-to-mask", (masks.done_ns - frame.captured_ns) / 1e6)
        return masks

    # The display.

    def _show(self) -> None:
        while (frame := self._to_show.take()) is not None:
            self._draw(frame, self._masks)

    def _draw(self, frame: Frame, masks: Masks | None) -> None:
        try:
            with self._stages.time("overlay"):
                drawn = draw_overlay(frame, masks, budget_ms=self._profile.mask_budget_ms)
        except Exception as e:
            self._faults["overlay"] = f"frame {frame.seq}: {type(e).__name__}: {e}"
            drawn = Drawn(frame.image_hwc, "none", None, None)
        self._states[drawn.state] += 1
        if drawn.age_ms is not None:
            self._stages.add("mask age", drawn.age_ms)
        self._publisher.publish_overlay(frame, drawn)

    # The publisher's thread.

    def _sent(self, kind: str, captured_ns: int) -> None:
        if kind == "overlay":
            self._stages.add("glass-to-publish", (now_ns() - captured_ns) / 1e6)

    def _frames(self) -> dict[str, Any]:
        """Where every frame went: in = shown + dropped. Of those shown, `unwatched` had nobody to see them."""
        overlay = self._publisher.counts()["overlay"]
        lost = {f"publisher {cause}": overlay["dropped"].get(cause, 0) for cause in ("slot", "failed", "off")}
        return {
            "in": self._seen,
            "shown": sum(self._states.values()) - sum(lost.values()),
            "dropped": {cause: n for cause, n in {**self._dropped, **lost}.items() if n},
            "unwatched": overlay["dropped"].get("unwatched", 0),
        }

    def _status(self, state: str) -> dict[str, Any]:
        return {
            "state": "failed" if self._faults else state,
            "faults": dict(self._faults),
            "source": self._source.uri,
            "frames": self._frames(),
            "segmented": self._segmented,
            "objects": [p.id for p in self._profile.objects],
            "mask_states": dict(self._states),
            "stages_ms": self._stages.summary(),
        }

    def _report(self, seconds: float) -> dict[str, Any]:
        self._publisher.close()
        status = self._status("ended")
        rates = {key: status["frames"][key] / seconds for key in ("in", "shown")}
        return {
            "ok": not self._faults,
            "stream": self._profile.name,
            "source": status["source"],
            "engine": f"{self._engine.recipe.model}, {self._engine.description}, memory {self._tracker.policy}",
            "endpoint": self._publisher.endpoint,
            "faults": status["faults"],
            "seconds": round(seconds, 2),
            "fps": {**rates, "segmented": self._segmented / seconds},
            "frames": status["frames"],
            "mask_states": status["mask_states"],
            "published": {kind: c["sent"] for kind, c in self._publisher.counts().items()},
            "stages_ms": status["stages_ms"],
        }


def run_live(
    profile: StreamProfile,
    seconds: float | None = None,
    *,
    ready: Callable[[Feed, str], None] = lambda feed, endpoint: None,
) -> dict[str, Any]:
    """Play a stream profile to its end, or for so many seconds. Raises an `RtsegError` if it cannot begin.

    `ready` is called with the feed and the address it is published at, when all is open and nothing has begun.
    """
    with ExitStack() as stack:
        source = stack.enter_context(paced(open_source(profile.source)))
        stack.enter_context(spare_core())
        engine = open_engine(profile.engine)
        warm_up(engine)
        publisher = Publisher(profile.publish.bind, profile.name, profile.publish.topics, engine=engine.description)
        stack.enter_context(publisher)
        feed = Feed(profile, source, engine, publisher)
        ready(feed, publisher.endpoint)
        return feed.run(seconds)


def warm_up(engine: Engine) -> None:
    """Two frames of nothing, so that the first real one does not pay for memory and kernels made on first use."""
    tracker = Tracker(engine)
    black_hwc = np.zeros((engine.image_size, engine.image_size, 3), np.uint8)
    tracker.prompt(1, points=[(1, 1, 1)])
    for _ in range(2):
        tracker.step(black_hwc)
