"""The worker that segments: newest frame -> tracker -> mask ring. It may crash: the supervisor has the prompt history.

Any exception ends the process, because after a CUDA error its memory cannot be trusted. The supervisor restarts it and
replays the prompts, each with its picture. One kind of error is tolerated: if the network's output for a frame is
invalid (NaN, for example), that frame gets no masks; several such frames in a row end the process, too.
"""

from __future__ import annotations

import mmap
import os
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from ...base.errors import AnswerError, PromptError, RtsegError
from ...base.rle import encode_rle
from ...base.types import Frame, FrameId, now_ns
from ...engine import Readies, open_engine, spare_core
from ...engine.recipe import Recipe
from ...track import Proposals, Tracker
from ..ipc.link import Received
from ..ipc.messages import (
    DescribeMemory,
    GivePrompts,
    Pause,
    PreviewPrompts,
    PromptData,
    RemoveObject,
    RenameObject,
    SegmentConfig,
    SetImageSize,
    SetSize,
    Size,
)
from ..ipc.reports import Answer, EngineReady, ImageSizeRefused, SizeReady
from .context import WorkerContext
from .engine_preparation import on_gpu, prepare, report_opening, warm_up
from .priority import lower_priority, raise_priority
from .step_reports import SceneReports, StepTimes
from .step_schedule import StepSchedule

CATCH_UP, CATCH_UP_S = 8, 0.3  # limits, in frames and seconds, of tracking from a click in the past to now

SegmentRequest = GivePrompts | PreviewPrompts | DescribeMemory | RemoveObject | RenameObject | Pause


def work(context: WorkerContext) -> None:
    """Open the engine, and segment the newest frame repeatedly until `Stop` comes."""
    lower_priority()  # before there are threads
    config: SegmentConfig = context.config
    with spare_core():
        size = size_of(context, config.size)
        recipe = config.to_recipe()
        _Segmenter(context, recipe, opened(context, recipe, size), size).run()


def opened(context: WorkerContext, recipe: Recipe, size: Size | None) -> Tracker:
    """A tracker on a new engine, warmed up and ready for pictures of `size`, if known. Reports `EngineReady`."""
    lower_priority()
    report_opening(context, recipe)
    engine = open_engine(recipe)
    if on_gpu(engine):
        raise_priority()  # this thread only launches the GPU's work, which is short, and the whole frame waits for it
    context.beat()
    step_ms = prepare(context, engine, size)
    if step_ms is None:
        step_ms = 0.0 if isinstance(engine, Readies) else warm_up(engine)
    tracker = Tracker(engine)
    description = f"{engine.recipe.model}, {engine.description}, memory {tracker.policy}"
    context.send(EngineReady(description, step_ms))
    return tracker


def size_of(context: WorkerContext, known: Size | None) -> Size | None:
    """The size of the feed's pictures: that of the newest frame, or else the `known` one of the source."""
    newest = context.frames.newest
    return known if newest is None else (newest.height, newest.width)


class _Segmenter:
    def __init__(self, context: WorkerContext, recipe: Recipe, tracker: Tracker, size: Size | None) -> None:
        config: SegmentConfig = context.config
        self._context, self._recipe, self._known_size = context, recipe, config.size
        self._tracker, self._paused = tracker, False
        self._size = size  # of the pictures that the engine is ready for
        self._schedule = StepSchedule() if config.overlay == "latest" else None
        self._waited = -1  # the newest frame after which the next one was waited for
        self._done = -1  # the newest frame that was segmented
        self._had_objects = False  # whether that frame had objects: their removal is published once
        self._times, self._scenes = StepTimes(context), SceneReports(context)
        self._previews: deque[Received] = deque()  # that wait: one is answered between two steps
        self._proposals = Proposals()

    def run(self) -> None:
        context, wake_up = self._context, self._context.shared.frames_for_segment
        while True:
            context.beat()
            self._prepare_for_size()
            for received in context.receive():
                self._handle(received)
                context.beat()
            if self._previews:
                waiting = self._previews.popleft()
                self._answer(waiting.message, waiting.fds)
                context.beat()
            newest = context.frames.head - 1
            due = newest > self._done and not self._paused and bool(self._tracker.ids or self._had_objects)
            wait_s = self._wait_s(newest) if due else 0.1
            if not wait_s:
                self._step(newest)
            elif not self._previews:
                wake_up.clear()
                if context.frames.head - 1 == newest:
                    context.wait(wait_s, wake_up)

    def _prepare_for_size(self) -> None:
        """Prepare for the feed's pictures as soon as their size is known, before one of them has an object."""
        size = size_of(self._context, self._known_size)
        if size != self._size and size is not None:
            self._size = size
            self._context.send(SizeReady(prepare(self._context, self._tracker.engine, size)))

    def _wait_s(self, newest: int) -> float:
        """Seconds to wait for the frame after this one; at most one wait for each frame."""
        frame_id = self._context.frames.identity(newest)
        if self._schedule is None or newest == self._waited or frame_id is None:
            return 0.0
        self._waited = newest
        return self._schedule.wait_s((now_ns() - frame_id.captured_ns) / 1e6)

    def _step(self, newest: int) -> None:
        frame = self._context.frames.get(newest)
        self._done, self._had_objects = newest, bool(self._tracker.ids)
        if frame is None:
            return
        start_ns = now_ns()
        self._times.begins(frame)
        try:
            masks = self._tracker.step(frame)
            masks = replace(masks, mask_logits_bhw=masks.fine_logits_bhw, guide=None, done_ns=now_ns())
        except AnswerError as e:
            self._scenes.failed(e)
            return
        self._scenes.answered(masks)
        board = self._context.board
        took_ms = (masks.done_ns - start_ns) / 1e6
        self._times.took(took_ms)
        if self._schedule is not None:
            self._schedule.stepped(newest, frame.captured_ns, took_ms)
        board.stages["segment"].add(took_ms)
        board.stages["glass-to-mask"].add((masks.done_ns - frame.captured_ns) / 1e6)
        board["masks objects"] = len(masks.ids)
        board["masks captured_ns"] = frame.captured_ns
        board.add("segmented")
        self._context.masks.put(masks)

    def _handle(self, received: Received) -> None:
        """Handle a request of the supervisor."""
        match received.message:
            case SetImageSize(image_size):
                self._set_image_size(image_size)
            case SetSize(size):
                self._known_size = size
                self._prepare_for_size()
                self._context.send(SizeReady(None))
            case PreviewPrompts() | DescribeMemory():
                self._previews.append(received)
            case GivePrompts() | RemoveObject() | RenameObject() | Pause() as request:
                self._answer(request, received.fds)

    def _answer(self, request: SegmentRequest, fds: list[int]) -> None:
        """Carry out a request, and report its outcome."""
        self._prepare_for_size()
        warnings: tuple[str, ...] = ()
        result: dict[str, Any] = {}
        try:
            match request:
                case PreviewPrompts(_, prompts, frame_id):
                    result = self._preview(_frame_in(fds[0], frame_id), prompts)
                case GivePrompts(ticket, prompts, frame_id):
                    warnings = self._prompt(_frame_in(fds[0], frame_id), prompts, is_new=bool(ticket))
                case DescribeMemory():
                    banks = self._tracker.banks().items()
                    result = {"objects": [{"id": i, **bank.plain()} for i, bank in banks]}
                case RemoveObject(_, object_id):
                    self._tracker.remove(object_id)
                case RenameObject(_, object_id, label):
                    self._tracker.rename(object_id, label)
                case Pause(_, on):
                    self._paused = on
        except (PromptError, AnswerError) as e:
            if isinstance(e, AnswerError) and not request.ticket:  # a replayed prompt, whose answer has no reader
                raise RuntimeError(str(e)) from e
            self._context.send(Answer(request.ticket, str(e)))
        else:
            self._context.send(Answer(request.ticket, None, warnings, result))
        finally:
            for fd in fds:
                os.close(fd)

    def _set_image_size(self, image_size: int) -> None:
        """Open the engine again with pictures of another size; the supervisor then replays the prompts."""
        recipe = replace(self._recipe, image_size=image_size)
        try:
            self._tracker = opened(self._context, recipe, self._size)
            self._recipe, self._had_objects = recipe, False
        except RtsegError as e:
            self._context.send(ImageSizeRefused(str(e)))
            self._tracker = opened(self._context, self._recipe, self._size)

    def _prompt(self, frame: Frame, given: tuple[PromptData, ...], is_new: bool) -> tuple[str, ...]:
        """Apply prompts to their own frame, and track their objects from there to now; returns warnings.

        Replayed prompts (not `is_new`) on a frame that has left the ring are not tracked to now: that takes too long.
        """
        prompts = [data.to_prompt() for data in given]
        fork = self._tracker.fork([prompt.id for prompt in prompts], frame.seq)
        for prompt in prompts:
            fork.give(prompt)
        start_ns = now_ns()
        self._times.begins(frame)
        warnings = fork.step(frame).warnings
        self._context.beat()
        step_s = (now_ns() - start_ns) / 1e9
        catch_up = is_new or self._context.frames.holds(frame.seq)
        for seq in self._between(frame.seq, min(CATCH_UP, int(CATCH_UP_S / step_s))) if catch_up else ():
            later = self._context.frames.get(seq)
            if later is not None:
                self._context.beat()
                with suppress(AnswerError):  # the prompt is valid without this frame
                    fork.step(later)
        self._tracker.adopt(fork)
        return warnings

    def _preview(self, frame: Frame, given: tuple[PromptData, ...]) -> dict[str, Any]:
        """The mask that prompts of one object would give on their frame. The tracker does not change.

        Without prompts the frame is only encoded, for those that will come.
        """
        self._times.begins(frame)
        if not given:
            self._proposals.prepare(self._tracker, frame)
            return {}
        object_id = given[0].id
        masks = self._proposals.propose(self._tracker, [data.to_prompt() for data in given], frame)
        return {
            "rle": encode_rle(masks.mask(object_id)), "height": masks.height, "width": masks.width,
            "score": masks.score(object_id), "iou": masks.iou(object_id), "warnings": list(masks.warnings),
        }  # fmt: skip

    def _between(self, seq: int, most: int) -> list[int]:
        """Up to `most` frames between `seq` and the newest, evenly spread, of those that the ring still holds."""
        frames = self._context.frames
        newest = frames.head - 1
        oldest = next((n for n in range(max(seq, frames.head - frames.entries, 0), newest) if frames.holds(n)), newest)
        spread = np.linspace(oldest, newest, most + 2)[1:-1].round().astype(int)
        return sorted({*spread.tolist()} - {seq, newest})


def _frame_in(fd: int, frame_id: FrameId) -> Frame:
    """The frame whose pixels are in the memory `fd`."""
    shape = frame_id.height, frame_id.width, 3
    flat = np.frombuffer(mmap.mmap(fd, shape[0] * shape[1] * shape[2], prot=mmap.PROT_READ), np.uint8)
    return Frame.from_id(frame_id, flat.reshape(shape).copy())
