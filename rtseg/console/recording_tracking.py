"""One pass of the tracker over a recording: it writes masks as it goes, and can be stopped at any frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ..base.errors import SourceError
from ..base.rle import decode_rle
from ..base.types import Frame, Masks, Prompt
from ..grab.random_access import Frames
from ..offline.direction_masks import CUT, StoredMask, stored_masks
from ..offline.direction_merge import Prompted, sureness_of, takes_backward
from ..track import Tracker
from .recording_network import Network
from .recording_plan import Journey, Task, passed, primers, task
from .recording_state import State, Tracked, prompt_of
from .recording_store import Row, Store

SAVE_S = 0.5  # tracked masks are on the disk at least this often
MOST_UNSAVED = 64  # masks that are not on the disk yet


@dataclass(slots=True)
class Halted:
    """A tracker where a pass was stopped: the next pass goes on with it, if nothing has changed since."""

    tracker: Tracker
    frame: int
    keys: frozenset[int]
    journey: Journey
    head: int


@dataclass(slots=True, eq=False)
class Pass:
    """A pass over a recording.

    `merges`: it is the backward one of two, and takes the place of the other's masks only where it is better.
    `done`: frames so far; `warnings`: frames that could not be read.
    """

    journey: Journey
    frames: Frames
    network: Network
    store: Store
    on_saved: Callable[[Frame | None], None]
    on_step: Callable[[int, int], None] = lambda done, of: None
    kept: Halted | None = None
    merges: bool = False
    done: int = 0
    warnings: list[str] = field(default_factory=list)
    _rows: list[Row] = field(default_factory=list)
    _latest: Frame | None = None
    _active: dict[int, Tracked] = field(default_factory=dict)
    _left: dict[int, int] = field(default_factory=dict)  # where each object left the pass

    @property
    def of(self) -> int:
        """How many frames the pass has, at most."""
        return len(self.journey.frames)

    def run(self, stop: threading.Event) -> Halted | None:
        """Go, until `stop` is set. Returns the tracker where it was stopped; None if it reached its end.

        Raises what the engine does. What was tracked until then is kept.
        """
        tracker, state = self._begin()
        saved, at = time.monotonic(), self.journey.first
        try:
            for frame in self.journey.frames:
                if stop.is_set() or len(self._left) == len(self.journey.starts):
                    break
                at = frame
                self._frame(tracker, state, frame)
                self.done += 1
                self.on_step(self.done, self.of)
                if len(self._rows) >= MOST_UNSAVED or time.monotonic() - saved >= SAVE_S:
                    self._save(at)
                    saved = time.monotonic()
        finally:
            self._save(at)
        if not stop.is_set() or not self._active:
            return None
        return Halted(tracker, at, frozenset(self._active), self.journey, self.store.head)

    def _begin(self) -> tuple[Tracker, State]:
        state, kept = self.store.state, self.kept
        starts = self.journey.starts
        if kept is not None and kept.keys == set(starts) and set(starts.values()) == {kept.frame}:
            self._active = {each.key: each for each in state.objects if each.key in starts}
            return kept.tracker, state
        return Tracker(self.network.engine), state

    def _frame(self, tracker: Tracker, state: State, number: int) -> None:
        """Track all objects on one frame."""
        tasks = {each.key: task(each, number, self.journey) for each in self._taking_part(state)}
        if self.kept is not None and number == self.journey.first and self._active:
            return  # the kept tracker has seen this frame
        try:
            frame = self.frames.frame(number)
        except SourceError as e:
            self.warnings.append(str(e))
            return
        stored = self.store.masks(number)
        with self.network.turn():
            for each in self._taking_part(state):
                self._prepare(tracker, each, tasks[each.key], frame, stored.get(each.key))
            if not tracker.ids or all(tasks[key] == "hold" for key in self._active):
                return  # nothing here is in doubt
            masks = tracker.step(frame)
        self._write(masks, tasks, stored)
        self._latest = frame

    def _taking_part(self, state: State) -> list[Tracked]:
        starts = self.journey.starts
        return [each for each in state.objects if each.key in starts and each.key not in self._left]

    def _prepare(self, tracker: Tracker, each: Tracked, what: str, frame: Frame, stored: StoredMask | None) -> None:
        """Give the tracker what is known of an object on a frame."""
        if what == "leave":
            self._active.pop(each.key, None)
            self._left[each.key] = frame.seq
            if each.id in tracker.ids:
                tracker.remove(each.id)
        elif what == "start":
            self._active[each.key] = each
            others = primers(each, frame.seq, self.journey.direction)
            given, size = each.prompts.get(frame.seq), (frame.height, frame.width)
            if others:
                shown = [(self.frames.frame(at), known(self.store, each, at, size)) for at in others]
                tracker.adopt(self.network.primed(shown))
            if given is not None and given.alone and not others:
                tracker.give(_named(prompt_of(each.id, given, size), each.label))
            else:
                self._give(tracker, each, frame, stored)
        elif what in ("give", "resume"):
            self._give(tracker, each, frame, stored)

    def _give(self, tracker: Tracker, each: Tracked, frame: Frame, stored: StoredMask | None) -> None:
        size = frame.height, frame.width
        prompt = None if stored is None else _as_prompt(each, stored, size)
        if prompt is None and frame.seq in each.prompts:
            prompt = prompt_of(each.id, each.prompts[frame.seq], size)
        if prompt is not None:
            tracker.give(_named(prompt, each.label))

    def _write(self, masks: Masks, tasks: Mapping[int, Task], stored: Mapping[int, StoredMask]) -> None:
        """Note the masks of tracked objects. A prompted mask that comes out again learns what it wins of others."""
        there, n = [each for each in self._active.values() if each.id in masks.ids], masks.seq
        found = stored_masks(masks, [each.id for each in there])
        for each in there:
            mask, before = found[each.id], stored.get(each.key)
            again = tasks[each.key] == "start" and before is not None and before.rle == mask.rle
            if self.journey.direction == "backward" and mask.flags & CUT:  # it is a cut only in the other direction
                mask = replace(mask, flags=mask.flags & ~CUT)
            if again or (tasks[each.key] == "track" and not (before and self.merges and _loses(each, mask, before, n))):
                self._rows.append((n, each.key, mask))

    def _save(self, at: int) -> None:
        """Put what was tracked on the disk, with how far each object has come, in one step."""
        rows, self._rows = self._rows, []
        last = self.frames.count - 1 if self.journey.direction == "forward" else 0
        state = self.store.state
        changed = []
        for each in state.objects:
            if each.key in self._active:
                changed.append(passed(each, self.journey, at, goes_on=at != last))
            elif each.key in self._left:
                changed.append(passed(each, self.journey, self._left[each.key], goes_on=False))
        way = f"track {self.journey.direction} {self.journey.first} to {at}"
        self.store.extend(state.put(*changed), rows, way)
        self.on_saved(self._latest)


def known(store: Store, each: Tracked, number: int, size: tuple[int, int]) -> Prompt:
    """Where an object is on a prompted frame: its mask there, or what was pointed at. `size`: height, width."""
    stored = store.masks(number).get(each.key)
    mask = None if stored is None else _as_prompt(each, stored, size)
    return mask or prompt_of(each.id, each.prompts[number], size)


def _loses(each: Tracked, backward: StoredMask, forward: StoredMask, frame: int) -> bool:
    """Whether the mask of a forward pass is better, as `rtseg segment --direction both` judges it."""
    prompted = Prompted({each.id: sorted(each.prompts)})
    since, until = prompted.since(each.id, frame), prompted.until(each.id, frame)
    if since is None or until is None:
        return False
    return not takes_backward(sureness_of(forward), sureness_of(backward), since, until)


def _named(prompt: Prompt, label: str) -> Prompt:
    return Prompt(prompt.id, prompt.points, prompt.box, prompt.mask, label)


def _as_prompt(each: Tracked, stored: StoredMask, size: tuple[int, int]) -> Prompt | None:
    """A mask as a prompt; None if it covers nothing or everything."""
    if not 0 < stored.area < size[0] * size[1]:
        return None
    return Prompt(each.id, mask=decode_rle(stored.rle, *size))
