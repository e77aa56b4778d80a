"""`rtseg bench --loopback`: the time from a picture's release by its source to its complete arrival at a subscriber.

A live feed plays coded frames: each picture shows its own number, and the source records when it released each. A
subscriber reads the number from the pixels, so no header or queue can make a picture younger than it is.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt

from ...base.defaults import Topic
from ...base.errors import OutputError, SourceError
from ...base.types import Prompt, now_ns
from ...live.profile import Publish, StreamProfile
from ...publish import Subscriber
from ...synthetic.coded import CodedSource, disc_box, read, read_stamps

_TOPICS: tuple[Topic, ...] = ("video", "overlay")
_PERCENTS = (50, 95, 99)
_MOST_S = 3600
_DRAWS = 1000  # resamples of the bootstrap
_BLOCK_S = 1.0  # the length of a block: times within a second are not independent, and are drawn together
Ready = Callable[[Any, str], None]


class _Play(Protocol):
    def __call__(self, profile: StreamProfile, seconds: float | None, *, ready: Ready) -> dict[str, Any]: ...


@dataclass(slots=True)
class Received:
    """The messages of one topic, in order: the number in each picture (None: unreadable), its header and arrival."""

    numbers: list[int | None] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    captured_ns: list[int] = field(default_factory=list)
    arrived_ns: list[int] = field(default_factory=list)
    read_ms: list[float] = field(default_factory=list)


def loopback(
    profile: StreamProfile | None = None,
    seconds: float = 20.0,
    *,
    width: int = 1280,
    height: int = 720,
    play: _Play | None = None,
) -> dict[str, Any]:
    """Play coded frames through a live feed for `seconds`, and measure each picture that arrives.

    `profile` gives the engine, rates, overlay, objects (all on one disc) and transport (None: the defaults, over ipc).
    The feed publishes on a free address, without keys. `play` runs it (None: `run_live`). Returns for `video` and
    `overlay` the latencies in ms with 95% confidence intervals, and the numbers of missing and wrong pictures. `ok` is
    false if a header was wrong, the feed failed, or nothing arrived.
    """
    if play is None:
        from ...live import run_live

        play = run_live
    if not 0 < seconds <= _MOST_S:
        raise SourceError(f"loopback: seconds={seconds:g}; expected a number from 0 to {_MOST_S}, above 0")
    with tempfile.TemporaryDirectory(prefix="rtseg-") as folder:
        made = _coded(profile or StreamProfile("", publish=Publish("ipc://*")), Path(folder), seconds, width, height)
        listener = _Listener()
        try:
            report = play(made, None, ready=listener.begin)
        finally:
            received = listener.end()
        stamps_ns = read_stamps(Path(folder) / "stamps")
    return {
        "endpoint": listener.endpoint,
        "picture": f"{width}x{height} at {made.target_fps:g} fps",
        **_summary(made, report, received, stamps_ns),
    }


def _summary(
    profile: StreamProfile, report: dict[str, Any], received: dict[Topic, Received], stamps_ns: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """The result of a loopback: the figures of each topic, and the feed's own report."""
    topics = {kind: figures(received[kind], stamps_ns, profile.target_fps) for kind in _TOPICS}
    return {
        "ok": bool(report.get("ok")) and all(t["seen"] and not t["wrong"] for t in topics.values()),
        "stream": profile.name,
        "engine": report.get("engine"),
        "objects": len(profile.objects),
        "frames": {"released": int((stamps_ns > 0).sum()), **report.get("frames", {})},
        "video": topics["video"],
        "overlay": topics["overlay"],
        "uncertainty": _uncertainty(received),
        "load": round(os.getloadavg()[0], 2),
        "faults": report.get("faults", {}),
    }


def _coded(profile: StreamProfile, folder: Path, seconds: float, width: int, height: int) -> StreamProfile:
    """The profile with a coded source and a new address, without recording.

    The source keeps its own time. To pace it once more would delay every picture by as much as the first.
    """
    keys = {"seconds": f"{seconds:g}", "fps": f"{profile.target_fps:g}", "width": width, "height": height}
    source = "coded:?" + urlencode({**keys, "stamps": str(folder / "stamps")}, safe="/")
    ipc = profile.publish.bind.startswith("ipc:")
    publish = Publish(f"ipc://{folder}/loopback" if ipc else "tcp://127.0.0.1:*")
    CodedSource(source)  # before `disc_box`, because it raises the better error for a size that is not valid
    box = disc_box(height, width)
    objects = tuple(Prompt(p.id, box=box, label=p.label) for p in profile.objects)
    return replace(
        profile, source=source, pace="flat-out", deinterlace="off", crop="off", publish=publish, control=None,
        metrics=None, record=None, keys=None, objects=objects or (Prompt(1, box=box, label="disc"),),
    )  # fmt: skip


class _Listener:
    """One subscriber and one thread for each topic, started when the feed publishes."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._subscribers: list[Subscriber] = []
        self._threads: list[threading.Thread] = []
        self._received = {kind: Received() for kind in _TOPICS}

    def begin(self, feed: object, endpoint: str) -> None:
        self.endpoint = endpoint
        for kind in _TOPICS:
            subscriber = Subscriber(endpoint, topics=(kind,))
            self._subscribers.append(subscriber)
            self._threads.append(threading.Thread(target=self._listen, args=(kind, subscriber), daemon=True))
            self._threads[-1].start()

    def _listen(self, kind: Topic, subscriber: Subscriber) -> None:
        received = self._received[kind]
        for message in subscriber:
            arrived_ns = now_ns()
            try:
                number = read(message.image_hwc())
            except OutputError:
                number = None
            received.read_ms.append((now_ns() - arrived_ns) / 1e6)
            received.numbers.append(number)
            received.seqs.append(message.seq)
            received.captured_ns.append(message.header["captured_ns"])
            received.arrived_ns.append(arrived_ns)

    def end(self) -> dict[Topic, Received]:
        for subscriber in self._subscribers:
            subscriber.close()
        for thread in self._threads:
            thread.join()
        return self._received


def figures(received: Received, stamps_ns: npt.NDArray[np.int64], fps: float) -> dict[str, Any]:
    """The latencies of one topic in ms, and counts of its pictures. `stamps_ns[number]` is when each was released.

    `missing`: not seen, between the first and the last seen. `wrong`: the header's `seq` is not the picture's number,
    or its capture time is before the picture's release; `unread`: no readable number; `again`: seen before.
    """
    rows = list(zip(received.numbers, received.seqs, received.captured_ns, received.arrived_ns, strict=True))
    read_rows = [(number, *rest) for number, *rest in rows if number is not None]
    known = np.array([r for r in read_rows if r[0] < len(stamps_ns) and stamps_ns[r[0]]], np.int64).reshape(-1, 4)
    number, seq, captured_ns, arrived_ns = known.T
    released_ns = stamps_ns[number]
    is_wrong = (seq != number) | (captured_ns < released_ns)
    distinct, first = np.unique(number, return_index=True)
    result: dict[str, Any] = {
        "seen": len(distinct),
        "missing": int(distinct[-1] - distinct[0] + 1 - len(distinct)) if len(distinct) else 0,
        "wrong": int(is_wrong.sum()) + len(read_rows) - len(known),
        "unread": len(rows) - len(read_rows),
        "again": len(known) - len(distinct),
    }
    if len(distinct):
        ms = (arrived_ns - released_ns)[first] / 1e6
        result["ms"] = {**_percentiles(ms, max(1, round(fps * _BLOCK_S))), "max": round(float(ms.max()), 3)}
        late_ms = (captured_ns - released_ns)[first] / 1e6  # an age by the header is too small by this
        result["header_late_ms"] = {"p50": round(float(np.median(late_ms)), 3), "max": round(float(late_ms.max()), 3)}
    return result


def _percentiles(ms_n: npt.NDArray[np.float64], block: int) -> dict[str, Any]:
    """p50, p95 and p99 of times in order, each with its 95% interval (None for too few times).

    The intervals come from a bootstrap of blocks in time. For a few hundred frames that of p99 depends on the few
    slowest, and its upper end may be too low.
    """
    points = np.percentile(ms_n, _PERCENTS)
    result: dict[str, Any] = {f"p{p}": round(float(v), 3) for p, v in zip(_PERCENTS, points, strict=True)}
    count = len(ms_n) // block
    if count < 5:
        return {**result, **{f"p{p}_ci95": None for p in _PERCENTS}}
    rng, within = np.random.default_rng(0), np.arange(block)
    drawn = []
    for _ in range(_DRAWS):
        starts = rng.integers(0, len(ms_n) - block + 1, count)
        drawn.append(np.percentile(ms_n[(starts[:, None] + within).ravel()], _PERCENTS))
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    for p, a, b in zip(_PERCENTS, low, high, strict=True):
        result[f"p{p}_ci95"] = [round(float(a), 3), round(float(b), 3)]
    return result


def _uncertainty(received: dict[Topic, Received]) -> dict[str, Any]:
    """What the figures include and leave out, and their possible errors."""
    read_ms = [ms for topic in received.values() for ms in topic.read_ms]
    return {
        "clock_ns": round(time.get_clock_info("monotonic").resolution * 1e9),
        "read_ms_p50": round(float(np.median(read_ms)), 3) if read_ms else None,
        "from": "just before the source hands the picture over: drawing it is left out",
        "to": "the whole message is with the subscriber; reading the number (read_ms) is left out",
        "polling": "none: the subscriber is woken by the message",
        "included": "the subscriber's wake-up; it shares a process with the supervisor, so it reads late, never early",
        "left out": "camera, capture card and display",
    }
