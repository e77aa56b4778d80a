"""Times of an engine's verbs and of its whole steps, with the work of a GPU waited for.

Nothing here imports torch, so an engine that needs no torch is timed without it.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice

from ..base.types import ImageU8, now_ns
from ..engine import Array, Decoded, Engine, Features, PromptBatch, Recall, Remembered
from ..engine.base import Verbs
from ..track import Tracker
from .clips import Clip

VERBS = ("encode_image", "attend", "decode", "remember", "track")
FRAMES, COUNTED = 24, 8  # steps taken on a clip, at least; the last of them that count, with full banks


def synchronise(device: str = "cuda") -> None:
    """Wait for the engine's GPU, if it has one: a kernel launch returns before the work is done."""
    torch = sys.modules.get("torch")
    if torch is not None and device.startswith("cuda") and torch.cuda.is_initialized():
        torch.cuda.synchronize(device)


class StageClock:
    """Times of named stages, frame by frame. Waits for the device at both ends of a stage. Stages do not overlap."""

    def __init__(self, device: str) -> None:
        self.frames: list[dict[str, float]] = []  # ms by stage, of each frame
        self._device, self._start_ns = device, 0

    def next_frame(self) -> None:
        self.frames.append({})

    def start(self) -> None:
        synchronise(self._device)
        self._start_ns = now_ns()

    def stop(self, stage: str) -> None:
        """Add the time since `start` to this stage of the frame."""
        synchronise(self._device)
        frame = self.frames[-1]
        frame[stage] = frame.get(stage, 0.0) + (now_ns() - self._start_ns) / 1e6

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        self.start()
        yield
        self.stop(stage)


class TimedEngine(Verbs):
    """An engine whose verbs run one by one, each inside `clock(verb)`. It does not use the engine's fused step."""

    def __init__(self, engine: Engine, clock: Callable[[str], AbstractContextManager[None]]) -> None:
        self.recipe, self.preset, self.image_size = engine.recipe, engine.preset, engine.image_size
        self.weights_hash, self.description = engine.weights_hash, engine.description
        self.engine, self.clock = engine, clock

    def encode_image(self, image_hwc: ImageU8) -> Features:
        with self.clock("encode_image"):
            return self.engine.encode_image(image_hwc)

    def attend(self, features: Features, recalls: Sequence[Recall | None]) -> Array:
        with self.clock("attend"):
            return self.engine.attend(features, recalls)

    def decode(self, conditioned_bchw: Array, features: Features, prompts: PromptBatch) -> Decoded:
        with self.clock("decode"):
            return self.engine.decode(conditioned_bchw, features, prompts)

    def remember(
        self, features: Features, logits_b1hw: Array, score_b: Array, prompted: Sequence[bool]
    ) -> list[Remembered]:
        with self.clock("remember"):
            return self.engine.remember(features, logits_b1hw, score_b, prompted)


class _AlternatingEngine(TimedEngine):
    """A `TimedEngine` that runs tracked frames alternately as one fused step and verb by verb."""

    _fused = False

    def track(self, image_hwc: ImageU8, recalls: Sequence[Recall]) -> tuple[Decoded, list[Remembered]]:
        self._fused = not self._fused
        if not self._fused:
            return super().track(image_hwc, recalls)
        with self.clock("track"):
            return self.engine.track(image_hwc, recalls)


def verb_times_ms(engine: Engine, clip: Clip) -> dict[str, float]:
    """The median ms of each verb, and of `track`, over a clip. For orientation only: `rtseg bench` measures."""
    clock = StageClock(engine.recipe.device)
    tracker = Tracker(_AlternatingEngine(engine, clock.time))
    for frame in clip.frames():
        clock.next_frame()
        for prompt in clip.prompts.get(frame.seq, ()):
            tracker.give(prompt)
        tracker.step(frame)
    times = {verb: [frame[verb] for frame in clock.frames if verb in frame] for verb in VERBS}
    # The first half of a verb's calls warms it up and is not counted.
    return {verb: round(statistics.median(ms[len(ms) // 2 :]), 3) for verb, ms in times.items() if ms}


def step_times_ms(engine: Engine, clip: Clip) -> list[float]:
    """The times in ms of the last `COUNTED` unprompted steps on the first frames of a clip, with all its objects."""
    tracker, times = Tracker(engine), []
    for frame in islice(clip.frames(), max(FRAMES, max(clip.prompts) + COUNTED)):
        for prompt in clip.prompts.get(frame.seq, ()):
            tracker.give(prompt)
        start_ns = now_ns()
        tracker.step(frame)
        if frame.seq not in clip.prompts:
            times.append((now_ns() - start_ns) / 1e6)
    return times[-COUNTED:]
