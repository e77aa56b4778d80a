"""The process that grabs: source -> frame ring. It may hang, and it may be killed; nothing else stops for it.

Two threads: one reads the source, the other watches it: a source that hangs inside FFmpeg for ever ends the process.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from ..errors import SourceError
from ..grab.intake import Intake
from ..types import now_ns
from . import priority
from .parcels import frame_meta
from .seat import HUNG, Seat

_WATCH_S = 0.05


def work(seat: Seat) -> None:
    priority.first()
    options = {name: seat.config[name] for name in ("pace", "deinterlace", "crop")}
    intake = Intake(seat.config["source"], **options)
    seat.link.send("source", uri=intake.uri, live=intake.live)
    while seat.config["hold"]:
        seat.beat()
        seat.wait(_WATCH_S)
        seat.config["hold"] = all(facts["say"] != "go" for facts, _ in seat.heard())
    threading.Thread(target=_watch, args=(seat, intake), daemon=True).start()
    for frame in intake.frames():
        try:
            seat.frames.write(frame_meta(frame), frame.image_hwc)
        except ValueError as e:
            raise SourceError(f"{intake.uri}: a frame of {frame.width}x{frame.height} ({e}); crop it") from e
        seat.board.stages["grab"].add(intake.grab_ms)
    seat.link.send("state", **_facts(intake))
    threading.Event().wait()  # the watch goes on until the supervisor has seen what it needs


def _facts(intake: Intake) -> dict[str, Any]:
    state = intake.health.state(now_ns())
    why = intake.health.why if state in ("opening", "lost") else ""
    return {"state": state, "why": why, "crop": intake.crop, "counts": intake.health.counters}


def _watch(seat: Seat, intake: Intake) -> None:
    try:
        while True:
            seat.beat()
            seat.link.send("state", **_facts(intake))
            if intake.health.hung(now_ns()):
                seat.link.send("fault", text="the source does not answer, and cannot be interrupted")
                os._exit(HUNG)
            seat.wait(_WATCH_S)
            seat.heard()
    except SystemExit:
        os._exit(0)
