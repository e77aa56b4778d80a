"""The filter between a source and everything that is written: it hides frames and masks text. Doubt hides.

`ahead` reads the frames some way ahead of the network, which sees them untouched; `picture` gives what may be written
of a frame. A frame that `ahead` did not pass on has no verdict, and is hidden.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...base.errors import ConfigError, did_you_mean
from ...base.state import State
from ...base.types import BoolMask, Frame, ImageU8
from .classifier import shipped
from .judge import BEFORE, Arrays, Judge
from .names import Names
from .pictures import blackened, blurred, reduced
from .text import TextFinder

WHAT = ("out-of-body", "text")
NOTE = "a heuristic that does not replace a person's check"
KEPT = 64  # frames whose states are kept: more than are on their way from the source to the files
LOOK_AHEAD = BEFORE  # frames that are read ahead, and lie in memory


class Deidentify:
    """Hides out-of-body frames and masks burned-in text. `ahead` and `picture` may be called in different threads."""

    def __init__(self, what: Sequence[str] = WHAT[:1], uris: Sequence[str] = ()) -> None:
        """`what`: some of `WHAT`, or `ConfigError`; `uris`: of the source, whose `names` are hidden."""
        for one in what:
            if one not in WHAT:
                raise ConfigError(f"deidentify = {one!r}; {did_you_mean(str(one), WHAT)}")
        self.what = tuple(one for one in WHAT if one in what)
        self.names = Names(uris)
        self._classifier = shipped()
        self._lock = threading.Lock()
        self._judge, self._text = Judge(), TextFinder()
        self._colours: ImageU8 | None = None  # of the hidden stretch that is passed on now
        self._stretches: list[tuple[int, int, str]] = []  # first frame, last frame, cause
        self._shown = 0
        self._decided: dict[int, tuple[ImageU8 | None, BoolMask | None]] = {}  # what to do with a frame, by its seq
        self._states: dict[int, State] = {}
        self._last = -1  # the frame that `picture` was last asked for
        self._drawn: tuple[ImageU8, ImageU8] | None = None  # colours, and the picture that they gave

    def ahead(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The same frames, each passed on when the `LOOK_AHEAD` after it were judged, or the last was."""
        waiting: deque[tuple[Frame, Judge, TextFinder]] = deque()
        for frame in frames:
            self._judge = self._judge.after(frame, self._classifier) if "out-of-body" in self.what else Judge("")
            self._text = self._read(frame)
            waiting.append((frame, self._judge, self._text))
            if len(waiting) > LOOK_AHEAD:
                yield self._pass(waiting)
        while waiting:
            yield self._pass(waiting)

    def _read(self, frame: Frame) -> TextFinder:
        """The state of the search for text after a frame; a search that fails masks the whole picture."""
        if "text" not in self.what:
            return self._text
        try:
            return self._text.after(frame.image_hwc)
        except Exception:
            return TextFinder(held_hw=np.ones((1, 1), np.int16))

    def _pass(self, waiting: deque[tuple[Frame, Judge, TextFinder]]) -> Frame:
        """Decide about the first of the waiting frames."""
        frame, judge, text = waiting[0]
        cause = judge.cause or ("margin" if any(later.cause for _, later, _ in waiting) else "")
        cells_hw = None
        if "text" in self.what:
            cells_hw = _united([later.cells_hw for _, _, later in waiting])
        with self._lock:
            if cause:
                self._colours = reduced(frame.image_hwc) if self._colours is None else self._colours
                self._note(frame.seq, cause)
            else:
                self._colours, self._shown = None, self._shown + 1
            self._decided[frame.seq] = self._colours, cells_hw
            self._states[frame.seq] = self._state(judge, text)
            for old in [seq for seq in self._decided if seq <= frame.seq - KEPT]:
                del self._decided[old], self._states[old]
        waiting.popleft()
        return frame

    def _note(self, seq: int, cause: str) -> None:
        if self._stretches and self._stretches[-1][1:] == (seq - 1, cause):
            self._stretches[-1] = self._stretches[-1][0], seq, cause
        else:
            self._stretches.append((seq, seq, cause))

    def picture(self, frame: Frame) -> Frame:
        """What may be written of a frame, without its name: its picture, black on its text, or blurred all over."""
        with self._lock:
            known, self._last = frame.seq in self._decided, frame.seq
            colours_hwc, cells_hw = self._decided.get(frame.seq, (None, None))
        if not known:
            colours_hwc = reduced(frame.image_hwc)
        image_hwc = frame.image_hwc
        if colours_hwc is not None:
            image_hwc = self._blurred(colours_hwc, frame)
        elif cells_hw is not None and cells_hw.any():
            image_hwc = blackened(image_hwc, cells_hw)
        return Frame.from_id(replace(frame.id, name=""), image_hwc)

    def _blurred(self, colours_hwc: ImageU8, frame: Frame) -> ImageU8:
        drawn = self._drawn
        if drawn is None or drawn[0] is not colours_hwc or drawn[1].shape != frame.image_hwc.shape:
            drawn = self._drawn = colours_hwc, blurred(colours_hwc, frame.height, frame.width)
        return drawn[1].copy()

    def _state(self, judge: Judge, text: TextFinder) -> State:
        arrays = {f"judge.{name}": value for name, value in judge.arrays().items()}
        arrays |= {f"text.{name}": value for name, value in text.arrays().items()}
        arrays |= {} if self._colours is None else {"colours": self._colours}
        return State({"shown": self._shown, "stretches": list(self._stretches)}, arrays)

    def state(self) -> State:
        """The state after the frame that was last given to `picture`, which `ahead` had passed on.

        It holds 64 x 48 pixels of that frame, hidden or not: it belongs into a folder that is removed.
        """
        with self._lock:
            return self._states[self._last]

    def restore(self, state: State) -> None:
        """Go on after the frame of this state: call it before `ahead`, and give `ahead` the frames after it."""
        parts: dict[str, Arrays] = {"judge": {}, "text": {}}
        for name, value in state.arrays.items():
            part, dot, own = name.partition(".")
            if dot:
                parts[part][own] = value
        with self._lock:
            self._judge, self._text = Judge.of(parts["judge"]), TextFinder.of(parts["text"])
            self._colours, self._shown = state.arrays.get("colours"), state.plain["shown"]
            self._stretches = [(first, last, cause) for first, last, cause in state.plain["stretches"]]
            self._decided, self._states = {}, {}

    def document(self, document: dict[str, Any]) -> dict[str, Any]:
        """A document without names of the source, and without where and when its files were written."""
        hidden: dict[str, Any] = self.names.hidden(document)
        return hidden

    def account(self) -> dict[str, Any]:
        """What `run.json` says of it: what was asked, how many frames are hidden, which, and why."""
        with self._lock:
            hidden = sum(last - first + 1 for first, last, _ in self._stretches)
            found = {"asked": list(self.what), "note": NOTE, "shown": self._shown, "hidden": hidden}
            return {"deidentified": found | {"stretches": [list(one) for one in self._stretches]}}

    def line(self) -> str:
        """A line for the user."""
        found = self.account()["deidentified"]
        blurred_of = f"{found['hidden']} of {found['hidden'] + found['shown']} frames are blurred"
        did = [blurred_of] * ("out-of-body" in self.what) + ["regions that may be text are black"] * (
            "text" in self.what
        )
        return f"de-identified: {', '.join(did)}; {NOTE}"


def _united(cells: Sequence[BoolMask]) -> BoolMask:
    """The cells that are masked in any of these; of those of another size (the picture's has changed), everything."""
    if any(cells_hw.shape != cells[0].shape for cells_hw in cells):
        return np.ones((1, 1), np.bool_)
    return np.asarray(np.logical_or.reduce(cells))
