"""The worker that grabs: source -> frame ring. It may hang or be killed without effect on the others.

Two threads: one reads the source, the other watches it. A source that hangs inside FFmpeg for ever ends the process.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from ...base.errors import SourceError
from ...base.types import now_ns
from ...grab.capture import Capture
from ..ipc.messages import Begin, GrabConfig
from ..ipc.reports import Done, Fault, SourceAccount, SourceOpened, SourceReport, SourceSize
from .context import WorkerContext
from .priority import raise_priority

HUNG = 4  # exit code: a call into the source does not return
_WATCH_S = 0.05
_ACCOUNT_NS, _ACCOUNT_MOST_NS = 1_000_000_000, 60_000_000_000  # between two accounts of a source that keeps changing


def work(context: WorkerContext) -> None:
    """Read the source into the frame ring until it ends."""
    raise_priority()
    config: GrabConfig = context.config
    options: dict[str, Any] = {"pace": config.pace, "deinterlace": config.deinterlace, "crop": config.crop}
    capture = Capture(config.source, **options, first=config.hold)
    context.send(SourceOpened(capture.uri, capture.live, capture.size))
    begun = threading.Event()
    if not config.hold:
        begun.set()
    threading.Thread(target=_Watch(context, capture, begun).run, daemon=True).start()
    if not capture.live:  # a live source is connected meanwhile, and its first frames are dropped
        begun.wait()
    reported = capture.size
    for frame in capture.frames():
        if not begun.is_set():
            if reported != (reported := (frame.height, frame.width)):
                context.send(SourceSize(reported))  # so that the engine can prepare for the frames to come
            continue
        try:
            context.frames.put(frame)
        except ValueError as e:
            raise SourceError(f"{capture.uri}: a frame of {frame.width}x{frame.height} ({e}); crop it") from e
        context.board.stages["grab"].add(capture.grab_ms)
    threading.Event().wait()  # the second thread ends the process, once the supervisor has received all reports


class _Watch:
    """The second thread: it alone receives messages, and reports the state of the source."""

    def __init__(self, context: WorkerContext, capture: Capture, begun: threading.Event) -> None:
        self._context, self._capture, self._begun = context, capture, begun
        self._reported: list[str] = []
        self._due_ns, self._pause_ns = 0, _ACCOUNT_NS

    def run(self) -> None:
        context = self._context
        try:
            while True:
                context.beat()
                self._report()
                if self._capture.health.hung(now_ns()):
                    context.send(Fault("the source does not answer, and cannot be interrupted"))
                    os._exit(HUNG)
                context.wait(_WATCH_S)
                if any(isinstance(one.message, Begin) for one in context.receive()):
                    self._begun.set()
        except SystemExit:
            self._account(now_ns(), last=True)
            context.send(Done())
            os._exit(0)
        except Exception as e:  # without this thread the supervisor would learn nothing of the source
            context.send(Fault(f"{type(e).__name__}: {e}"))
            os._exit(1)

    def _report(self) -> None:
        """Report account and state; the account first, so that the supervisor knows how the source ended."""
        health, now = self._capture.health, now_ns()
        state = health.state(now)
        why = health.why if state in ("opening", "lost") else ""
        self._account(now, last=state == "ended")
        self._context.send(SourceReport(state, why, self._capture.crop, dict(health.counters)))

    def _account(self, at_ns: int, last: bool) -> None:
        """Report what the source turned out to hold, if its lines have changed and a report is due."""
        try:
            account = self._capture.account
            lines = account.lines()
            if lines == self._reported or (not last and at_ns < self._due_ns):
                return
            plain = account.plain()
        except RuntimeError:  # the reading thread changes it just now; the next round looks again
            return
        if self._context.send(SourceAccount(plain, tuple(lines))):
            self._reported, self._due_ns = lines, at_ns + self._pause_ns
            self._pause_ns = min(2 * self._pause_ns, _ACCOUNT_MOST_NS)
