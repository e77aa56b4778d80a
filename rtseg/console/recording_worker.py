"""What takes long in a recording's session: one thing at a time, in a thread, which can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ..base.errors import OutputError, PromptError, RtsegError
from ..base.types import Frame
from ..grab.random_access import Frames
from ..offline.direction_walk import Direction, directions_of
from ..offline.settings import WAYS, Way
from .recording_network import Network
from .recording_plan import plan
from .recording_store import Store
from .recording_tracking import Halted, Pass

MOST_WARNINGS = 3  # frames that cannot be read, of a pass, that are told


class StoppedError(OutputError):
    """Somebody stopped what was under way."""


class Worker:
    """Runs one thing at a time. `stopped` is set when it should end; `on_end` is called with its error, if any."""

    def __init__(self, on_end: Callable[[str | None], None]) -> None:
        self.stopped = threading.Event()
        self._on_end, self._thread = on_end, threading.Thread()
        self._what: str | None = None
        self._done = self._of = 0

    @property
    def busy(self) -> dict[str, Any] | None:
        """What is under way: `what`, `done`, `of`; None if nothing is."""
        what = self._what
        return None if what is None else {"what": what, "done": self._done, "of": self._of}

    def begin(self, what: str, work: Callable[[], None]) -> None:
        """Begin something. The caller has seen that nothing is under way."""
        self.stopped.clear()
        self._what, self._done, self._of = what, 0, 0
        self._thread = threading.Thread(target=self._run, args=(what, work), name=what, daemon=True)
        self._thread.start()

    def progress(self, done: int, of: int | None) -> None:
        """How far it has come. Raises `StoppedError` if it should, for work that looks nowhere else."""
        self._done, self._of = done, of or 0
        if self.stopped.is_set():
            raise StoppedError("stopped; what was there before is unchanged")

    def tell(self, done: int, of: int) -> None:
        """How far it has come."""
        self._done, self._of = done, of

    def _run(self, what: str, work: Callable[[], None]) -> None:
        error = None
        try:
            work()
        except RtsegError as e:
            error = f"{what}: {e}"
        except Exception as e:
            error = f"{what}: {type(e).__name__}: {e} (a bug, or this machine)"
        finally:
            self._what = None
            self._on_end(error)

    def stop(self) -> bool:
        """Stop what is under way, and wait until it has. Returns whether anything was."""
        if not self._thread.is_alive():
            return False
        self.stopped.set()
        self._thread.join()
        return True

    def wait(self) -> None:
        """Wait until nothing is under way."""
        if self._thread.is_alive():
            self._thread.join()


@dataclass(slots=True, eq=False)
class Tracking:
    """Carries prompts through a recording. `kept`: the tracker where the latest pass was stopped."""

    frames: Frames
    network: Network
    store: Store
    worker: Worker
    on_saved: Callable[[Frame | None], None]
    say: Callable[[str, str, str], None]
    kept: Halted | None = None

    def begin(self, way: Way, to: int | None, who: str) -> dict[str, Any]:
        """Begin in the worker; see `Session.track`."""
        if way not in WAYS:
            raise PromptError(f"track: direction = {way!r:.40}; expected forward, backward or both")
        if way == "both" and to is not None:
            raise PromptError("track: both directions have no `to`; leave it out, or choose a direction")
        ways = directions_of(way)
        journeys = [plan(self.store.state, each, self.frames.count, to) for each in ways]
        if not any(journeys):
            raise PromptError(f"track {way}: every prompt is carried on already; correct a frame first")
        self.worker.begin(f"track {way}", lambda: self._run(ways, to, who))
        return {"frames": sum(len(journey.frames) for journey in journeys if journey)}

    def _run(self, ways: Sequence[Direction], to: int | None, who: str) -> None:
        with closing(self.frames.again(backward="backward" in ways)) as frames:
            for way in ways:
                self._one_way(way, to, who, frames, merges=way == "backward" and len(ways) > 1)

    def _one_way(self, way: Direction, to: int | None, who: str, frames: Frames, *, merges: bool) -> None:
        """Passes until there is nothing to carry on: an object may leave a pass before its last prompt."""
        before = None
        while not self.worker.stopped.is_set():
            state = self.store.state
            journey = plan(state, way, self.frames.count, to)
            if journey is None or state == before:
                return
            kept, self.kept, before = self.kept, None, state
            usable = kept is not None and kept.head == self.store.head and kept.journey.direction == way
            self.store.change(f"track {way} from {journey.first}", who, state)
            running = Pass(
                journey, frames, self.network, self.store, self.on_saved, self.worker.tell, kept if usable else None,
                merges,
            )  # fmt: skip
            try:
                self.kept = running.run(self.worker.stopped)
            finally:
                for line in running.warnings[:MOST_WARNINGS]:
                    self.say("warning", line, who)
                self.say("recording", f"tracked {way}: {running.done} of {running.of} frames from {journey.first}", who)
