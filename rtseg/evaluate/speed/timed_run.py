"""Timing of one engine that tracks a number of objects through a clip, in blocks of frames or stage by stage."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...base.types import Float32, Frame, ImageU8, Masks, now_ns
from ...build.timing import StageClock, TimedEngine, synchronise
from ...engine import Decoded, Engine, Prepares, Remembered
from ...publish import draw_overlay
from ...track import Tracker
from .alternation import settling
from .budget import Deadline
from .looped_clip import LoopedClip

SETTLED_FRAMES, SETTLED_WITHIN, MOST_WARM_UP = 5, 0.10, 60
STAGES = ("to_input", "encode_image", "attend", "decode", "remember", "bank", "masks_to_host", "overlay")


@dataclass(slots=True)
class Block:
    """Consecutive frames: the time of each until its masks are on the host, and of all until the device is idle."""

    frames_ms: list[float]
    wall_ms: float


class TimedRun:
    """A tracker of `objects` objects that steps through a looped clip and times each step."""

    def __init__(self, engine: Engine, clip: LoopedClip, objects: int) -> None:
        self.engine, self.clip, self.objects = engine, clip, objects
        self.blocks: list[Block] = []
        self.warm_up_frames, self.full, self.steady = 0, False, False
        self.first_ms, self._steps, self._recent_ms = 0.0, 0, [0.0]
        self._tracker = self._make_tracker()

    @property
    def blocks_ms(self) -> list[list[float]]:
        return [block.frames_ms for block in self.blocks]

    @property
    def step_ms(self) -> float:
        """The median time of the latest tracked frames."""
        return float(np.median(self._recent_ms))

    def _make_tracker(self) -> Tracker:
        return Tracker(self.engine)

    def first_frame(self) -> float:
        """Prompt every object and track the clip's first frame. Returns the ms until its masks are on the host."""
        self._tracker, self._steps = self._make_tracker(), 0
        for i in range(1, self.objects + 1):
            self._tracker.give(self.clip.prompt(i))
        return self.step()

    def step(self) -> float:
        """Track the next frame. Returns the ms until its masks are on the host."""
        frame = self.clip.frame(self._steps)
        self._steps += 1
        start_ns = now_ns()
        self._frame(frame)
        return (now_ns() - start_ns) / 1e6

    def _frame(self, frame: Frame) -> Masks:
        return self._tracker.step(frame)

    def warm_up(self, deadline: Deadline) -> None:
        """Step until the bank is full and times have settled, at most `MOST_WARM_UP` frames later, or until time is up.

        At least two frames are tracked, so that the time of one is known.
        """
        self.first_ms = self.first_frame()
        fill = max(self.engine.preset.num_maskmem, self.engine.recipe.memory.pointers) + 1
        times: list[float] = []
        while len(times) < 2 or not (deadline.over or self.steady or len(times) >= fill + MOST_WARM_UP):
            times.append(self.step())
            self.steady = has_settled(times[fill:])
        self.full, self.warm_up_frames = len(times) >= fill, 1 + len(times)
        self._recent_ms = times[-SETTLED_FRAMES:] if self.full else times[-1:]

    def block(self, frames: int) -> None:
        """Time a block of frames."""
        for _ in range(settling(self.step_ms)):
            self.step()
        synchronise(self.engine.recipe.device)
        start_ns = now_ns()
        frames_ms = [self.step() for _ in range(frames)]
        synchronise(self.engine.recipe.device)
        self.blocks.append(Block(frames_ms, (now_ns() - start_ns) / 1e6))

    def click(self) -> float:
        """Correct an object with a click on the next frame. Returns the ms from the click to its mask."""
        self.step()
        point = self.clip.click(1, self._steps)
        start_ns = now_ns()
        self._tracker.prompt(1, points=[point])
        self.step()
        return (now_ns() - start_ns) / 1e6


def has_settled(times_ms: Sequence[float]) -> bool:
    """Whether the median of the last few times is close to that of the few before."""
    if len(times_ms) < 2 * SETTLED_FRAMES:
        return False
    before, last = (float(np.median(part)) for part in np.split(np.array(times_ms[-2 * SETTLED_FRAMES :]), 2))
    return abs(last / before - 1) <= SETTLED_WITHIN


class StagedTracker(Tracker):
    """A tracker that times its own stages: `bank` is the memory bank with its policy, before and after the network.

    `masks_to_host` is the time from the network's answer to the masks in host memory.
    """

    def __init__(self, engine: Engine, clock: StageClock) -> None:
        super().__init__(TimedEngine(engine, clock.time))
        self._clock = clock

    def step(self, frame: Frame | ImageU8) -> Masks:
        self._clock.start()
        return super().step(frame)

    def _run_network(self, *given: Any) -> tuple[Decoded, list[Remembered], Float32 | None]:
        self._clock.stop("bank")
        answer = super()._run_network(*given)
        self._clock.start()
        return answer

    def _commit(self, *made: Any) -> None:
        self._clock.stop("masks_to_host")
        with self._clock.time("bank"):
            super()._commit(*made)


class StagedRun(TimedRun):
    """A run that times each stage of a frame, including the overlay. Its clocks slow the whole step down.

    `to_input` is the conversion of the picture to the network's input; 0 for an engine that cannot do it separately.
    """

    def __init__(self, run: TimedRun) -> None:
        """Continue another run, from its frame and with its memories."""
        self._clock = StageClock(run.engine.recipe.device)
        self.measured: list[dict[str, float]] = []
        super().__init__(run.engine, run.clip, run.objects)
        self._tracker.adopt(run._tracker.fork(run._tracker.ids, sys.maxsize))
        self._steps, self._recent_ms = run._steps, run._recent_ms

    def _make_tracker(self) -> Tracker:
        return StagedTracker(self.engine, self._clock)

    def _frame(self, frame: Frame) -> Masks:
        self._clock.next_frame()
        if isinstance(self.engine, Prepares):  # only for its time, because `encode_image` does it again
            with self._clock.time("to_input"):
                self.engine.prepare(frame.image_hwc)
        masks = super()._frame(frame)
        with self._clock.time("overlay"):
            draw_overlay(frame, masks)
        return masks

    def block(self, frames: int) -> None:
        super().block(frames)
        self.measured += self._clock.frames[-frames:]
        self._clock.frames.clear()

    def stages_ms(self) -> dict[str, list[float]]:
        """The times of each stage on the frames of all blocks, with the stages in their order within a frame."""
        return {stage: [frame.get(stage, 0.0) for frame in self.measured] for stage in STAGES}
