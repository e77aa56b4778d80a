"""The network of a recording's session: opened in the background, and the mask that a prompt gives on a frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..base.errors import EngineError, RtsegError
from ..base.types import BoolMask, Frame, Prompt
from ..engine import Engine, open_engine, spare_core
from ..engine.recipe import Recipe
from ..track import Tracker

EVERYTHING = 1 << 62  # a frame number after all others


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The mask that a prompt gives. `score`, `iou`: 0 to 1. `warnings`: about an object that is too small."""

    mask_hw: BoolMask
    score: float
    iou: float
    warnings: tuple[str, ...] = ()


class Network:
    """An engine that opens in a thread while people look around already."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._engine: Engine | None = None
        self._error: RtsegError | None = None
        self._primed: tuple[object, Tracker] | None = None
        self._lock, self._turn, self._waiting = threading.Lock(), threading.Lock(), 0
        self._thread = threading.Thread(target=self._open, name="open engine", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        try:
            with spare_core():
                self._engine = open_engine(self.recipe)
        except RtsegError as e:
            self._error = e
        except Exception as e:
            self._error = EngineError(f"the engine does not open: {type(e).__name__}: {e}")

    @property
    def is_ready(self) -> bool:
        """Whether it is open."""
        return self._engine is not None

    @property
    def error(self) -> str | None:
        """Why it did not open; None: it did, or is about to."""
        return None if self._error is None else str(self._error)

    @property
    def engine(self) -> Engine:
        """The engine; waits until it is open. Raises the error with which it did not open."""
        self._thread.join()
        if self._engine is None:
            raise self._error or EngineError("the engine did not open")
        return self._engine

    @contextmanager
    def turn(self, *, urgent: bool = False) -> Iterator[None]:
        """Use the engine alone. Who has no hurry lets those go first who have."""
        if urgent:
            with self._lock:
                self._waiting += 1
        else:
            while self._waiting:
                time.sleep(0.001)
        try:
            with self._turn:
                yield
        finally:
            if urgent:
                with self._lock:
                    self._waiting -= 1

    def look(
        self, frame: Frame, prompt: Prompt, primers: Sequence[tuple[Frame, Prompt]] = (), key: object = None
    ) -> Found:
        """The mask that a prompt gives on a frame.

        Arguments:
            frame: the frame that was pointed at.
            prompt: the prompt on it.
            primers: other frames with the object, and where it is on them.
            key: equal keys mean equal primers, so that they are shown to the network once.

        Raises what `Tracker.step` raises.
        """
        self.engine  # noqa: B018 - waits until it is open
        with self.turn(urgent=True):
            tracker = self._tracker(prompt.id, primers, key)
            tracker.give(prompt)
            masks = tracker.step(frame)
        found = masks.mask(prompt.id)
        return Found(found, masks.score(prompt.id), masks.iou(prompt.id), masks.warnings)

    def primed(self, primers: Sequence[tuple[Frame, Prompt]]) -> Tracker:
        """A tracker that was given these prompts on these frames, in this order. The caller has the engine alone."""
        tracker = Tracker(self.engine)
        tracker.cuts = False  # from one of these frames to the next nothing moves, and everything may have changed
        for frame, prompt in primers:
            tracker.give(prompt)
            tracker.step(frame)
        return tracker

    def _tracker(self, object_id: int, primers: Sequence[tuple[Frame, Prompt]], key: object) -> Tracker:
        if not primers:
            return self.primed(())
        if self._primed is None or self._primed[0] != key:
            self._primed = key, self.primed(primers)
        return self._primed[1].fork([object_id], EVERYTHING)
