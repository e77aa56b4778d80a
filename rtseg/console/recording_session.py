"""A session with a recording: what people order, done on the store, the network and the file. No server is needed.

Orders may come from any thread. Tracking and export run in a worker thread, one at a time; meanwhile people may look,
preview and stop, but change nothing else.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from msgspec.structs import replace

from ..base.errors import PromptError
from ..base.types import Frame, Masks, Prompt
from ..engine.recipe import Recipe
from ..grab.random_access import Frames, open_frames
from ..offline.direction_masks import one_mask
from ..offline.settings import Way
from ..track.inputs import merged
from .recording_export import export
from .recording_masks import shown_masks
from .recording_network import Found, Network
from .recording_plan import primers
from .recording_state import GivenPrompt, State, Tracked, given_of, prompt_of, with_lock, with_prompt
from .recording_store import Store, claim
from .recording_timeline import timeline
from .recording_tracking import known
from .recording_worker import Tracking, Worker

FILE, EXPORT = "session.sqlite", "export"
Say = Callable[[str, str, str], None]  # kind, text, who


class Session:
    """One recording, with what was said about it. A context manager.

    Attributes:
        frames: the reader of the recording that orders use.
        folder: where everything is kept.
        on_change: called from any thread when objects or masks have changed.
        on_frame: called from the worker's thread with a frame that was tracked and saved.
        say: called with each event: its kind, in words, and who.
    """

    def __init__(self, uri: str | Path, recipe: Recipe, folder: Path | None = None) -> None:
        """Open a recording, and the session in `folder` (default: `NAME.rtseg` beside it) if there is one.

        Raises `SourceError` if the recording cannot be read in any order, `ConfigError` if the folder is that of
        another recording or is in use, `OutputError` if it cannot be written.
        """
        self.frames: Frames = open_frames(uri)
        self.folder = folder or Path(f"{str(uri).rstrip('/')}.rtseg" if Path(uri).exists() else "recording.rtseg")
        self.on_change: Callable[[], None] = lambda: None
        self.on_frame: Callable[[Frame], None] = lambda frame: None
        self.say: Say = lambda kind, text, who: None
        self._lock, self._changing = threading.RLock(), threading.Lock()
        self.worker = Worker(self._worker_says)
        self._found: tuple[object, Found] | None = None
        self._timeline: dict[str, Any] | None = None
        try:
            self._handle = claim(self.folder)
            try:
                self.store = Store(self.folder / FILE, self._about())
            except BaseException:
                os.close(self._handle)
                raise
        except BaseException:
            self.frames.close()
            raise
        self.network = Network(recipe)
        self._tracking = Tracking(self.frames, self.network, self.store, self.worker, self._saved, self._say)

    def _about(self) -> dict[str, str]:
        """What tells this recording from others, wherever it lies."""
        frames = self.frames
        end_s = frames.seconds(frames.count - 1) if frames.count else 0.0
        size = f"{frames.width}x{frames.height}"
        return {"size": size, "frames": str(frames.count), "ends": f"{end_s:.6f}"}

    # What people see.

    @property
    def state(self) -> State:
        """All objects."""
        return self.store.state

    def masks(self, frame: Frame) -> Masks:
        """The masks of a frame."""
        return shown_masks(frame, self.state.objects, self.store.masks(frame.seq))

    def status(self) -> dict[str, Any]:
        """The objects and the timeline, as the status of a recording has them."""
        with self._lock:
            if self._timeline is None:
                self._timeline = timeline(self.state, self.store, self.frames.count)
            about = {"frames": self.frames.count, "fps": self.frames.fps, **self._timeline}
        busy = self.worker.busy
        return {**about, "busy": busy} if busy else about

    # Prompts.

    def preview(self, prompt: Prompt, number: int) -> Found:
        """The mask that a prompt would give on a frame; nothing changes."""
        frame = self.frames.frame(number)
        return self._look(prompt, frame)[1]

    def prompt(self, prompt: Prompt, number: int, who: str = "", *, new: bool | None = None) -> Found:
        """Add an object (`new` True), or correct one (False), on a frame; None: whichever it is."""
        with self._change():
            frame, known = self.frames.frame(number), self.state.find(prompt.id)
            if new and known is not None:
                raise PromptError(f"object {prompt.id} is there already; correct it, or remove it first")
            if new is False:
                self.state.get(prompt.id)
            if known is not None and known.locked_until(number, "forward") is not None:
                raise PromptError(f"object {prompt.id}: frame {number} is locked; unlock it first")
            if known is None:
                self._check_room(prompt.id)
            given, found = self._look(prompt, frame)
            label = prompt.label or (known.label if known else f"object {prompt.id}")
            each = known or Tracked(self.store.next_number, prompt.id, label)
            each = with_prompt(replace(each, label=label), number, given)
            mask = one_mask(found.mask_hw, found.score, found.iou)
            text = f"{'correct' if known else 'add'} {label} ({prompt.id}) on frame {number}"
            self.store.change(text, who, self.state.put(each), [(number, each.key, mask)])
            self._changed("order", text, who)
        return found

    def _check_room(self, object_id: int) -> None:
        most = self.network.recipe.max_objects
        if len(self.state.objects) >= most:
            full = f"{most} objects are there already"
            raise PromptError(f"object {object_id}: {full}; remove one, or raise max_objects in the recipe")

    def _look(self, prompt: Prompt, frame: Frame) -> tuple[GivenPrompt, Found]:
        """All that is then said on the frame, and the mask that it gives. The latest one is remembered."""
        each, number = self.state.find(prompt.id), frame.seq
        before = each.prompts.get(number) if each else None
        size = frame.height, frame.width
        whole = merged(prompt_of(prompt.id, before, size) if before else None, prompt)
        others = [] if each is None else primers(each, number, None)
        whole.check(*size, first=not others)
        given = given_of(whole, alone=not others)
        key = number, prompt.id, given, self.store.head
        remembered = self._found
        if remembered is not None and remembered[0] == key:
            return given, remembered[1]
        primed = [(self.frames.frame(at), known(self.store, each, at, size)) for at in others] if each else []
        found = self.network.look(frame, whole, primed, (prompt.id, tuple(others), self.store.head))
        self._found = key, found
        return given, found

    # Other orders.

    def remove(self, object_id: int, who: str = "") -> None:
        """Remove an object and its masks. `undo` brings them back."""
        with self._change():
            label = self.state.get(object_id).label
            self._commit(f"remove {label} ({object_id})", who, self.state.without(object_id))

    def rename(self, object_id: int, label: str, who: str = "") -> None:
        """Give an object another label."""
        with self._change():
            each = self.state.get(object_id)
            self._commit(
                f"rename {each.label} ({object_id}) to {label}", who, self.state.put(replace(each, label=label))
            )

    def reset(self, who: str = "") -> None:
        """Remove all objects. `undo` brings them back."""
        with self._change():
            self._commit("remove all objects", who, State())

    def look(self, object_id: int, color: tuple[int, int, int] | None = None, hidden: bool | None = None) -> None:
        """Change how an object is shown. Not undone, and possible at any time."""
        with self._lock:
            each = self.state.get(object_id)
            shown = each.hidden if hidden is None else hidden
            self.store.extend(self.state.put(replace(each, color=color or each.color, hidden=shown)))
            self._timeline = None
        self.on_change()

    def lock(self, object_id: int, first: int, last: int, who: str = "", *, on: bool = True) -> None:
        """Lock, or unlock, frames of an object: no later pass and no prompt changes what they show."""
        count = self.frames.count
        if not 0 <= first <= last < count:
            raise PromptError(f"lock: frames {first} to {last}; expected first <= last, from 0 to {count - 1}")
        with self._change():
            each = self.state.get(object_id)
            text = f"{'lock' if on else 'unlock'} {each.label} ({object_id}) on frames {first} to {last}"
            self._commit(text, who, self.state.put(with_lock(each, (first, last), on)))

    def undo(self, who: str = "") -> str:
        """Undo the latest change. Returns what it was, in words."""
        with self._change():
            text = self.store.undo(who)
            self._changed("order", f"undo: {text}", who)
        return text

    def redo(self, who: str = "") -> str:
        """Do again what was undone. Returns what it was, in words."""
        with self._change():
            text = self.store.redo(who)
            self._changed("order", f"redo: {text}", who)
        return text

    def _commit(self, text: str, who: str, state: State) -> None:
        self.store.change(text, who, state)
        self._changed("order", text, who)

    def _changed(self, kind: str, text: str, who: str) -> None:
        with self._lock:
            self._timeline = None
        self.say(kind, text, who)
        self.on_change()

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Change something, alone; `PromptError` while the worker is at work."""
        with self._changing:
            busy = self.worker.busy
            if busy is not None:
                raise PromptError(f"{busy['what']} is under way; stop it, or wait for its end")
            yield

    # What takes long.

    def track(self, way: Way, to: int | None = None, who: str = "") -> dict[str, Any]:
        """Carry on every prompt that was not carried on yet, in a thread. Returns how many `frames` that is at most.

        Arguments:
            way: forward, backward or both.
            to: the last frame; None: the end, or the beginning, of the recording. Not with both.
            who: for the log.

        Raises `PromptError` if there is nothing to track.
        """
        with self._change():
            return self._tracking.begin(way, to, who)

    def export(self, who: str = "") -> dict[str, Any]:
        """Write what `rtseg segment` writes into the folder `export` of the session, in a thread. Returns its path."""
        with self._change():
            state, out = self.state, self.folder / EXPORT
            if not any(each.prompts for each in state.objects):
                raise PromptError("export: no object is prompted; point at one first")

            def work() -> None:
                frames = export(self.frames, state, self.store, self.network.engine, out, self.worker.progress)
                self.say("recording", f"exported {frames} frames to {out}", who)

            self.worker.begin("export", work)
        return {"out": str(out)}

    def stop(self) -> bool:
        """Stop what is under way, and wait until it has. Returns whether anything was."""
        return self.worker.stop()

    def _say(self, kind: str, text: str, who: str) -> None:
        self.say(kind, text, who)

    def _worker_says(self, error: str | None) -> None:
        """The worker has ended, with an error or without."""
        if error is not None:
            self.say("error", error, "")
        self.on_change()

    def _saved(self, frame: Frame | None) -> None:
        with self._lock:
            self._timeline = None
        if frame is not None:
            self.on_frame(frame)
        self.on_change()

    def close(self) -> None:
        """Stop, and close everything. Nothing is lost. May be called again."""
        self.stop()
        self.store.close()
        self.frames.close()
        with suppress(OSError):
            os.close(self._handle)
        self._handle = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
