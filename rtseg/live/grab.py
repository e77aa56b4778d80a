"""The process that grabs: source -> frame ring. It may hang, and it may be killed; nothing else stops for it.

Two threads: one reads the source, the other watches it: a source that hangs inside FFmpeg for ever ends the process.
"""

from __future__ import annotations

import os
import threading

from ..base.errors import SourceError
from ..base.types import now_ns
from ..grab.capture import Capture
from . import priority
from .parcels import frame_meta
from .seat import HUNG, Seat

_WATCH_S = 0.05
_ACCOUNT_NS, _ACCOUNT_MOST_NS = 1_000_000_000, 60_000_000_000  # between two accounts of a source that goes on changing


def work(seat: Seat) -> None:
    priority.first()
    options = {name: seat.config[name] for name in ("pace", "deinterlace", "crop")}
    held = bool(seat.config["hold"])
    intake = Capture(seat.config["source"], **options, first=held)
    seat.link.send("source", uri=intake.uri, live=intake.live, size=intake.size)
    begun = threading.Event()
    if not held:
        begun.set()
    watch = threading.Thread(target=_Watch(seat, intake, begun).run, daemon=True)
    watch.start()
    if not intake.live:  # it waits for the feed; what is live is connected meanwhile, and its first pictures are let go
        begun.wait()
    told = intake.size
    for frame in intake.frames():
        if not begun.is_set():
            if told != (told := (frame.height, frame.width)):
                seat.link.send("picture", size=told)  # let go, but who segments can prepare for those to come
            continue
        try:
            seat.frames.write(frame_meta(frame), frame.image_hwc)
        except ValueError as e:
            raise SourceError(f"{intake.uri}: a frame of {frame.width}x{frame.height} ({e}); crop it") from e
        seat.board.stages["grab"].add(intake.grab_ms)
    threading.Event().wait()  # the watch goes on until the supervisor has seen what it needs


class _Watch:
    """The second thread: it alone hears the supervisor, and tells it how the source is."""

    def __init__(self, seat: Seat, intake: Capture, begun: threading.Event) -> None:
        self._seat, self._intake, self._begun = seat, intake, begun
        self._told: list[str] = []
        self._due_ns, self._pause_ns = 0, _ACCOUNT_NS

    def run(self) -> None:
        seat = self._seat
        try:
            while True:
                seat.beat()
                self._tell()
                if self._intake.health.hung(now_ns()):
                    seat.link.send("fault", text="the source does not answer, and cannot be interrupted")
                    os._exit(HUNG)
                seat.wait(_WATCH_S)
                if any(facts["say"] == "go" for facts, _ in seat.heard()):
                    self._begun.set()
        except SystemExit:
            self._account(now_ns(), last=True)
            seat.link.send("done")
            os._exit(0)
        except Exception as e:  # without this thread nobody hears of the source
            seat.link.send("fault", text=f"{type(e).__name__}: {e}")
            os._exit(1)

    def _tell(self) -> None:
        """The source's account first: whoever hears that the source has ended knows how."""
        health, now = self._intake.health, now_ns()
        state = health.state(now)
        why = health.why if state in ("opening", "lost") else ""
        self._account(now, last=state == "ended")
        self._seat.link.send("state", state=state, why=why, crop=self._intake.crop, counts=health.counters)

    def _account(self, at_ns: int, last: bool) -> None:
        """What the source turned out to hold, where that has changed, and is worth a line."""
        try:
            account = self._intake.account
            lines = account.lines()
            if lines == self._told or (not last and at_ns < self._due_ns):
                return
            plain = account.plain()
        except RuntimeError:  # the reader writes into it just now: it is looked at again
            return
        if self._seat.link.send("account", account=plain, lines=lines):
            self._told, self._due_ns = lines, at_ns + self._pause_ns
            self._pause_ns = min(2 * self._pause_ns, _ACCOUNT_MOST_NS)
