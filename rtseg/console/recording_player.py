"""Where people are in a recording: seeks, steps and plays, in a thread that shows only the newest wanted frame."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..base.errors import PromptError, SourceError
from ..base.types import Frame
from .recording_session import Session
from .recording_stills import FAR, Stills

PATIENCE_S = 5.0  # that an order waits for its frame


class Player:
    """Shows frames of a session. `show` is called with each, in the player's thread; `say` with errors."""

    def __init__(self, session: Session, show: Callable[[Frame], None], say: Callable[[str, str], None]) -> None:
        self._frames, self._show, self._say = session.frames, show, say
        self._stills = Stills(session.frames, session.folder)
        self.position, self.playing = 0, False
        self._wanted: int | None = 0
        self._follows = True
        self._begun = (0, 0.0, 1.0)  # of playing: position, time, rate
        self._changed, self._over = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)

    def start(self) -> None:
        """Show the first frame."""
        self._thread.start()
        self._stills.start()

    def seek(self, frame: int) -> None:
        """Go to a frame, and wait until it is shown, or a later seek has taken its place."""
        if not 0 <= frame < self._frames.count:
            raise PromptError(f"seek: frame {frame}; expected 0 to {self._frames.count - 1}")
        with self._changed:
            self.playing = self._follows = False
            self._wanted = frame
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._wanted != frame or self._over, PATIENCE_S)

    def step(self, by: int) -> None:
        """Go on, or back, by some frames; no further than the ends."""
        self.seek(min(max(0, self.position + by), self._frames.count - 1))

    def play(self, on: bool, rate: float) -> None:
        """Play from here, or stop playing."""
        with self._changed:
            self.playing, self._follows = on, False
            self._begun = (self.position, time.monotonic(), rate)
            self._changed.notify_all()

    def follow(self) -> None:
        """Show what is tracked from now on, until somebody goes elsewhere."""
        with self._changed:
            self.playing, self._follows = False, True

    def tracked(self, frame: Frame) -> None:
        """A frame was tracked; from any thread."""
        if self._follows:
            self.position = frame.seq
            self._show(frame)

    def again(self) -> None:
        """Show the present frame again: its masks may have changed."""
        with self._changed:
            if self._wanted is None and not self.playing:
                self._wanted = self.position
            self._changed.notify_all()

    def close(self) -> None:
        """End. May be called again."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._stills.close()
        if self._thread.is_alive():
            self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        while not self._over:
            with self._changed:
                self._changed.wait_for(lambda: self._over or self.playing or self._wanted is not None)
                wanted = self._due() if self.playing else self._wanted
            if wanted is None:
                time.sleep(0.002)
                continue
            self._go(wanted)
            with self._changed:
                if self._wanted == wanted:
                    self._wanted = None
                self._changed.notify_all()

    def _due(self) -> int | None:
        """The frame that is due while playing; None: that one is shown already."""
        first, begun, rate = self._begun
        last = self._frames.count - 1
        due = min(last, first + int((time.monotonic() - begun) * rate * self._frames.fps))
        if self.position >= last:
            self.playing = False
        return due if due != self.position else None

    def _go(self, number: int) -> None:
        try:
            near = self._frames.near(number)
            if number - near > FAR and not self.playing:
                # Until the wanted one is decoded: its still, or the key frame before it under that one's own number.
                still = self._stills.frame(number)
                self._show(self._frames.frame(near) if still is None else still)
                if not self._frames.approach(number, lambda: self._wanted == number and not self._over):
                    return  # somebody wants another one by now
            frame = self._frames.frame(number)
        except SourceError as e:
            self._say("error", str(e))
        else:
            self.position = number
            self._show(frame)
