"""`rtseg build` of a recipe with `runtime = "auto"`: prove all that can run here, time what passes, name the fastest.

Candidates take turns on the same frames, with as many objects as the recipe allows, on one thread and on all cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from statistics import geometric_mean, median
from typing import Any

import torch

from ..base.cores import cpu_cores
from ..base.types import now_ns
from ..engine import Engine
from ..engine.threads import at_most
from ..track import Tracker
from .clips import Clip

FRAMES, COUNTED, ROUNDS = 24, 8, 2  # of a clip; the last of them, when memories are filled; turns of each candidate
TIE = 0.05  # a candidate that gains less than this over a more exact one is not taken


@dataclass(slots=True)
class Entry:
    """A candidate: how it is opened, what the gate said of it, and the ms of its steps by number of threads."""

    name: str
    open: Callable[[], Engine]
    said: str = ""
    least_iou: float | None = None
    steps_ms: dict[int, list[float]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return self.least_iou is not None and not self.said

    @property
    def ms(self) -> dict[int, float]:
        return {threads: round(median(steps), 2) for threads, steps in self.steps_ms.items()}

    def row(self) -> dict[str, Any]:
        """What a report says of it."""
        found: dict[str, Any] = {"name": self.name, "ok": self.ok}
        if self.least_iou is not None:
            found["least_iou"] = round(self.least_iou, 4)
        return found | ({"step_ms": self.ms} if self.ms else {}) | ({"said": self.said} if self.said else {})


def measure(entries: Sequence[Entry], clip: Clip, note: Callable[[str], None]) -> None:
    """Time the steps of each entry on the first frames of a clip, on one thread and on all."""
    for threads in sorted({1, cpu_cores()}):
        note(f"timing {len(entries)} engines with {threads} thread{'s' * (threads > 1)}")
        with _torch_threads(threads), at_most(threads):
            engines = [entry.open() for entry in entries]
            for _ in range(ROUNDS):
                for entry, engine in zip(entries, engines, strict=True):
                    entry.steps_ms.setdefault(threads, []).extend(steps_ms(engine, clip))


def steps_ms(engine: Engine, clip: Clip) -> list[float]:
    """The ms of the last steps on the first frames of a clip, where nobody says anything; its objects are followed."""
    tracker, took = Tracker(engine), []
    for frame in islice(clip.frames(), max(FRAMES, max(clip.prompts) + COUNTED)):
        for prompt in clip.prompts.get(frame.seq, ()):
            tracker.give(prompt)
        start_ns = now_ns()
        tracker.step(frame)
        if frame.seq not in clip.prompts:
            took.append((now_ns() - start_ns) / 1e6)
    return took[-COUNTED:]


def fastest(entries: Sequence[Entry]) -> Entry:
    """The fastest over all numbers of threads; a more exact one, which comes earlier, where that is as fast."""
    best = entries[0]
    for entry in entries[1:]:
        if geometric_mean(entry.ms.values()) < (1 - TIE) * geometric_mean(best.ms.values()):
            best = entry
    return best


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
