"""The process that segments: newest frame -> tracker -> mask ring. It may crash: what a person said is kept elsewhere.

An exception ends it, whatever it was (after a CUDA error nothing in a process can be trusted); the supervisor starts
it again and says again what was prompted, each prompt with the picture it was given on. Only an answer that is none,
as one that is not a number, is passed over: of that frame there are no masks, and several in a row end it, too.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import AnswerError, PromptError, RtsegError
from ..base.types import Frame, now_ns
from ..engine import Readies, open_engine, spare_core
from ..engine.recipe import MemorySettings, Recipe
from ..track import Tracker
from . import priority
from .news import News
from .parcels import frame_of, masks_parcel, prompt_of
from .preparing import Size, on_gpu, prepare, say_opening, warm_up
from .rhythm import Rhythm
from .ring import quiet
from .seat import Seat

CATCH_UP, CATCH_UP_S = 8, 0.3  # frames between a click in the past and now that are looked at, and for how long


def work(seat: Seat) -> None:
    priority.last()  # before there are threads
    with spare_core():
        recipe = recipe_of(seat.config["recipe"])
        size = size_of(seat)
        _Segment(seat, recipe, _opened(seat, recipe, size), size).run()


def _opened(seat: Seat, recipe: Recipe, size: Size | None) -> Tracker:
    """A tracker on its engine, warm, and ready for pictures of a size where that is known; the supervisor is told."""
    priority.last()
    say_opening(seat, recipe)
    engine = open_engine(recipe)
    if on_gpu(engine):
        priority.first()  # of a GPU this thread only launches the work: short slices, which the whole frame waits for
    seat.beat()
    step_ms = prepare(seat, engine, size)
    if step_ms is None:
        step_ms = 0.0 if isinstance(engine, Readies) else warm_up(engine)
    tracker = Tracker(engine)
    said = f"{engine.recipe.model}, {engine.description}, memory {tracker.policy}"
    seat.link.send("ready", engine=said, step_ms=step_ms)
    return tracker


def size_of(seat: Seat) -> Size | None:
    """The size of the feed's pictures: of the newest one, or what its source has said; None: not known yet."""
    newest = seat.frames.head - 1
    meta = seat.frames.meta(newest)
    if meta is not None:
        frame = frame_of(newest, meta)
        return frame.height, frame.width
    told = seat.config["size"]
    return None if told is None else (int(told[0]), int(told[1]))


def recipe_of(plain: dict[str, Any]) -> Recipe:
    """A recipe that was sent as a plain map."""
    path = None if plain["path"] is None else Path(plain["path"])
    return Recipe(**{**plain, "memory": MemorySettings(**plain["memory"]), "path": path})


class _Segment:
    def __init__(self, seat: Seat, recipe: Recipe, tracker: Tracker, size: Size | None) -> None:
        self._size = size  # of the pictures that the engine is ready for
        self._seat, self._recipe, self._tracker, self._paused = seat, recipe, tracker, False
        self._rhythm = Rhythm() if seat.config["overlay"] == "latest" else None
        self._waited = -1  # the frame that was left for the one after it
        self._done = -1  # the latest frame that was looked at
        self._had = False  # whether there were objects on it: that there are none any more is said once
        self._pace = Pacing(seat)
        self._news = News(seat)

    def run(self) -> None:
        seat = self._seat
        while True:
            seat.beat()
            self._make_ready()
            for facts, fds in seat.heard():
                self._obey(facts, fds)
                seat.beat()
            newest = seat.frames.head - 1
            due = newest > self._done and not self._paused and bool(self._tracker.ids or self._had)
            wait_s = self._wait_s(newest) if due else 0.1
            if wait_s:
                quiet(seat.fds.frames_for_segment)
                if seat.frames.head - 1 == newest:
                    seat.wait(wait_s, seat.fds.frames_for_segment)
            else:
                self._step(newest)

    def _make_ready(self) -> None:
        """Prepare for the feed's pictures as soon as their size is known: not on the first that has an object."""
        size = size_of(self._seat)
        if size != self._size and size is not None:
            self._size = size
            self._seat.link.send("sized", step_ms=prepare(self._seat, self._tracker.engine, size))

    def _wait_s(self, newest: int) -> float:
        """How long to leave this frame for the next one: once each."""
        meta = self._seat.frames.meta(newest)
        if self._rhythm is None or newest == self._waited or meta is None:
            return 0.0
        self._waited = newest
        return self._rhythm.wait_s((now_ns() - frame_of(newest, meta).captured_ns) / 1e6)

    def _step(self, newest: int) -> None:
        frame = self._frame(newest)
        self._done, self._had = newest, bool(self._tracker.ids)
        if frame is None:
            return
        start_ns = now_ns()
        self._pace.begins(frame)
        try:
            masks = self._tracker.step(frame)
        except AnswerError as e:
            self._news.failed(e)
            return
        self._news.answered(masks)
        board = self._seat.board
        took_ms = (masks.done_ns - start_ns) / 1e6
        self._pace.took(took_ms)
        if self._rhythm is not None:
            self._rhythm.stepped(newest, frame.captured_ns, took_ms)
        board.stages["segment"].add(took_ms)
        board.stages["glass-to-mask"].add((masks.done_ns - frame.captured_ns) / 1e6)
        board["masks objects"] = len(masks.ids)
        board["masks captured_ns"] = frame.captured_ns
        board.add("segmented")
        self._seat.masks.write(*masks_parcel(masks))

    def _frame(self, index: int) -> Frame | None:
        entry = self._seat.frames.read(index)
        return None if entry is None else frame_of(index, *entry)

    def _obey(self, facts: dict[str, Any], fds: list[int]) -> None:
        say = facts["say"]
        if say == "resize":
            self._resize(facts["image_size"])
            return
        if say == "size":
            self._seat.config["size"] = facts["size"]
            self._make_ready()
            self._seat.link.send("sized", step_ms=None)
            return
        self._make_ready()
        warnings: tuple[str, ...] = ()
        try:
            if say == "prompts":
                warnings = self._prompt(_kept_frame(facts, fds[0]), facts["prompts"])
            elif say == "remove":
                self._tracker.remove(facts["id"])
            elif say == "rename":
                self._tracker.rename(facts["id"], facts["label"])
            elif say == "pause":
                self._paused = facts["on"]
        except (PromptError, AnswerError) as e:
            if isinstance(e, AnswerError) and not facts["ticket"]:  # what was said to a life before; nobody waits
                raise RuntimeError(str(e)) from e
            self._seat.link.send("answer", ticket=facts["ticket"], error=str(e))
        else:
            self._seat.link.send("answer", ticket=facts["ticket"], error=None, warnings=warnings)
        finally:
            for fd in fds:
                os.close(fd)

    def _resize(self, image_size: int) -> None:
        """Open the engine again for a picture of another size; the supervisor then says again what was prompted."""
        recipe = replace(self._recipe, image_size=image_size)
        try:
            self._tracker = _opened(self._seat, recipe, self._size)
            self._recipe, self._had = recipe, False
        except RtsegError as e:
            self._seat.link.send("kept", why=str(e))
            self._tracker = _opened(self._seat, self._recipe, self._size)

    def _prompt(self, frame: Frame, prompts: list[dict[str, Any]]) -> tuple[str, ...]:
        """Let prompts act on their own frame, and carry what they say forward to the present; returns warnings."""
        given = [prompt_of(plain) for plain in prompts]
        fork = self._tracker.fork([prompt.id for prompt in given], frame.seq)
        for prompt in given:
            fork.give(prompt)
        start_ns = now_ns()
        self._pace.begins(frame)
        warnings = fork.step(frame).warnings
        self._seat.beat()
        step_s = (now_ns() - start_ns) / 1e9
        for index in self._between(frame.seq, min(CATCH_UP, int(CATCH_UP_S / step_s))):
            later = self._frame(index)
            if later is not None:
                self._seat.beat()
                with suppress(AnswerError):  # the prompt holds without this frame
                    fork.step(later)
        self._tracker.adopt(fork)
        return warnings

    def _between(self, seq: int, most: int) -> list[int]:
        """Frames between `seq` and the newest, evenly spread; none if `seq` is of long ago."""
        newest = self._seat.frames.head - 1
        if not self._seat.frames.holds(seq):
            return []
        spread = np.linspace(seq, newest, most + 2)[1:-1].round().astype(int)
        return sorted({*spread.tolist()} - {seq, newest})


def _kept_frame(facts: dict[str, Any], fd: int) -> Frame:
    """The picture that a prompt was given on, which the supervisor keeps."""
    flat = np.frombuffer(mmap.mmap(fd, facts["bytes"], prot=mmap.PROT_READ), np.uint8).copy()
    return frame_of(facts["seq"], facts["meta"], flat)


class Pacing:
    """Tells the supervisor how long steps take, so that it knows a hang from a long step.

    On the first pictures of a size an engine may prepare for it (capture its graphs, choose kernels), for which it has
    more time. How long a step takes is known from those after.
    """

    FIRST = 3  # steps with a new size: a prompted one, a tracked one, and one more that is like all that follow

    def __init__(self, seat: Seat) -> None:
        self._seat, self._size, self._steps, self._told_ms = seat, (0, 0), 0, 0.0

    def begins(self, frame: Frame) -> None:
        size = frame.height, frame.width
        if size != self._size:
            self._size, self._steps, self._told_ms = size, 0, 0.0
            self._seat.link.send("sizing")

    def took(self, step_ms: float) -> None:
        self._steps += 1
        if self._steps >= self.FIRST and step_ms > 2 * self._told_ms:  # more objects take longer
            self._told_ms = step_ms
            self._seat.link.send("pace", step_ms=step_ms)
