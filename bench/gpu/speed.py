"""Tracked frames, timed: from a picture in host memory to the masks there, with full memory, by number of objects.

A row is an engine with so many objects. The first has `max_objects = 1`, as a feed that follows one tool; the others
share an engine with room for all. What the device holds is measured beside each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import torch

from bench.gpu.case import Case, boxes, endoscope, get_ready, let_go, there_and_back, wait
from bench.gpu.waits import profiled, warned
from rtseg.base.types import ImageU8, now_ns
from rtseg.engine import Decoded, Engine, Recall, Remembered
from rtseg.engine.memory_estimate import estimate_memory
from rtseg.evaluate.speed.statistics import summary
from rtseg.track import Tracker

FULL = 20  # frames after a prompt memories and pointers are full, and libraries have settled
HD = (720, 1280)
PROFILED = 8  # steps
FEWEST = 10  # frames of a row, whatever the time
GOALS_MS = {"sam2.1-tiny:512": 1.5, "sam2.1-tiny:1024": 3.0}  # p50 of one object, on an H200
TAIL, WAITS = 1.2, 1  # p99 over p50; of the host in a step
FIRST = "bf16, 1 object"
Note = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Row:
    """What is timed: precision, policy, objects, room in the engine, and the picture's size (None: the network's)."""

    name: str
    precision: str = "bf16"
    policy: str = "fifo"
    objects: int = 1
    estimate_memory: int = 1
    picture: tuple[int, int] | None = None


VARIANTS = (Row("bf16, efp", policy="efp"), Row("fp16", precision="fp16"), Row("bf16, 720p", picture=HD))


def rows(objects: tuple[int, ...]) -> list[Row]:
    """The rows of a case: one object alone, and more on one engine."""
    estimate_memory = max(objects)
    found = [Row(FIRST)] if 1 in objects else []
    return found + [Row(f"bf16, {n} objects", objects=n, estimate_memory=estimate_memory) for n in objects if n > 1]


def measure(case: Case, wanted: list[Row], frames: int, deadline: float, note: Note) -> dict[str, Any]:
    """Each row that there is time for; `note` hears of each as it is done."""
    report: dict[str, Any] = {"case": case.name, "rows": {}, "left": [], "ok": True}
    engines: dict[tuple[str, str, int], Opened] = {}
    for row in wanted:
        if report["rows"] and time.monotonic() > deadline:
            report["left"].append(row.name)
            continue
        with let_go():
            key = (row.precision, row.policy, row.estimate_memory)
            for other in [k for k in engines if k != key]:
                del engines[other]  # one at a time: what the device holds is to be this one's
            if key not in engines:
                engines[key] = Opened.for_row(case, row)
            report["rows"][row.name] = timed(case, row, engines[key], frames, deadline)
        report["goals"] = goals(case.name, report["rows"])
        note(report)
    return report


def goals(name: str, rows: dict[str, Any]) -> dict[str, bool]:
    """Which of the goals of one object are reached; those that nothing was measured for are left out."""
    one = rows.get(FIRST)
    if one is None:
        return {}
    reached = {}
    if name in GOALS_MS:
        reached[f"p50 <= {GOALS_MS[name]:g} ms"] = one["ms"]["p50"] <= GOALS_MS[name]
        reached[f"p99 <= {TAIL} x p50"] = one["ms"]["p99"] <= TAIL * one["ms"]["p50"]
    waits = [row["profile"]["waits"] for row in rows.values() if "waits" in row.get("profile", {})]
    if waits:
        reached[f"<= {WAITS} wait of the host a step"] = max(waits) <= WAITS
    return reached


@dataclass(slots=True)
class Opened:
    """An engine, how long it took to be ready, and what the device held before."""

    engine: Engine
    open_s: float
    held_before: int

    @staticmethod
    def for_row(case: Case, row: Row) -> Opened:
        held = held_bytes(case.device)
        if case.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        start = time.monotonic()
        engine = case.engine(row.precision, row.policy, row.estimate_memory)
        wait(case.device)
        return Opened(engine, round(time.monotonic() - start, 2), held)


def timed(case: Case, row: Row, opened: Opened, frames: int, deadline: float) -> dict[str, Any]:
    """Percentiles of one row; at least a few frames, and as many as asked for if there is time."""
    height, width = row.picture or (case.size, case.size)
    shown, _ = endoscope(height, width)
    start = time.monotonic()
    get_ready(opened.engine, height, width)
    ready_s = time.monotonic() - start
    tracker = Tracker(opened.engine, row.policy)
    for i, box in enumerate(boxes(height, width, row.objects), 1):
        tracker.prompt(i, box=box)
    pictures = cycle(there_and_back(shown, 2 * len(shown) - 2))

    def step() -> float:
        picture, begin = next(pictures), now_ns()
        tracker.step(picture)
        return (now_ns() - begin) / 1e6

    first_ms = [step() for _ in range(FULL)]
    times: list[float] = []
    while len(times) < frames and (len(times) < FEWEST or time.monotonic() < deadline):
        times.append(step())
    found: dict[str, Any] = {
        "engine": opened.engine.description, "objects": row.objects, "ms": summary(times),
        "first_ms": [round(ms, 2) for ms in first_ms[:3]], "open_s": opened.open_s, "ready_s": round(ready_s, 2),
        "host_ms": host_ms(tracker, shown[0]), "memory_mb": memory_mb(case.device, opened.held_before),
        "planned_mb": planned_mb(opened.engine, height, width),
    }  # fmt: skip
    found["masks"] = int(sum(bool(m.any()) for m in tracker.step(shown[0]).mask_logits_bhw > 0))
    if case.device != "cpu":
        found["profile"], found["warned"] = profiled(step, PROFILED), warned(step, PROFILED)
    return found


def held_bytes(device: str) -> int:
    """What is taken of the device's memory by anyone: contexts, libraries and graphs are not torch's to count."""
    if device == "cpu":
        return 0
    free, total = torch.cuda.mem_get_info()
    return int(total - free)


def memory_mb(device: str, before: int) -> dict[str, float]:
    """What torch gave out at most, what it keeps, and what the device's free memory lost since before the engine."""
    if device == "cpu":
        return {}
    return {
        "allocated": round(torch.cuda.max_memory_allocated() / 2**20, 1),
        "reserved": round(torch.cuda.max_memory_reserved() / 2**20, 1),
        "device": round((held_bytes(device) - before) / 2**20, 1),
    }


def planned_mb(engine: Engine, height: int, width: int) -> dict[str, int]:
    """What the engine was expected to take, by part, in MiB; `engine` is all of it but CUDA's own."""
    parts = estimate_memory(engine.recipe, height, width).mib()
    return {**parts, "engine": sum(size for name, size in parts.items() if name != "CUDA")}


def host_ms(tracker: Tracker, picture: ImageU8, steps: int = 20) -> float:
    """A step without the engine: a tracker like this one, whose engine answers at once what it said first.

    What is left is the tracker's own work, and the copy of the answer from the device.
    """
    fork = tracker.fork(list(tracker.ids), 10**9)
    fork.engine = Echo(tracker.engine)  # type: ignore[assignment]
    fork.step(picture)
    times = []
    for _ in range(steps):
        begin = now_ns()
        fork.step(picture)
        times.append((now_ns() - begin) / 1e6)
    return round(float(np.median(times)), 4)


class Echo:
    """An engine whose `track` asks the real one once, and from then on repeats its answer."""

    def __init__(self, engine: Engine) -> None:
        self.recipe, self.preset, self.image_size = engine.recipe, engine.preset, engine.image_size
        self.weights_hash, self.description = engine.weights_hash, engine.description
        self._engine = engine
        self._said: tuple[Decoded, list[Remembered]] | None = None

    def track(self, image_hwc: ImageU8, recalls: Sequence[Recall]) -> tuple[Decoded, list[Remembered]]:
        if self._said is None:
            self._said = self._engine.track(image_hwc, recalls)
        return self._said
