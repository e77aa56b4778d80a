"""The interface of every source of frames: a file, a folder, a stream, a device or the synthetic endoscope."""

from __future__ import annotations

import os
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType
from typing import Literal, Self

from .account import Account
from .errors import SourceError
from .geometry import Geometry
from .types import Frame, now_ns

Mode = Literal["off", "auto", "on"]  # which pictures are deinterlaced: none, those marked as interlaced, all
MODES: tuple[Mode, ...] = ("off", "auto", "on")
Damaged = Literal["skip", "stop"]  # skip damaged frames, or stop at the first
DAMAGED: tuple[Damaged, ...] = ("skip", "stop")


class PermanentSourceError(SourceError):
    """A live input cannot be opened, for a reason that makes another attempt pointless."""


class Source(ABC):
    """Frames in order, from the first: `for frame in source`. A context manager.

    Iterating again starts again at the first frame (a file is opened again), with the same session: equal (session,
    seq) mean the same picture. At most a few frames are in memory at any time.

    Attributes:
        uri: what was opened.
        width: of its pictures, in pixels.
        height: of its pictures, in pixels.
        fps: the nominal frame rate; a frame's own time is `pts * time_base`.
        frame_count: how many frames the source declares; None if it does not know.
        sample_aspect: the width of a pixel divided by its height: 64/45 for PAL that is shown at 16:9.
        geometry: where the pixels of a medical source lie; None for others.
        account: what was found while reading: frames skipped, repaired and assumed.
        session: a random name, which every frame carries.
        paced: whether frames come in real time, by their own times.
        begin: the first frame that is given; those before it are read, and counted, but not given.
    """

    def __init__(self, uri: str, width: int, height: int, fps: float, frame_count: int | None) -> None:
        self.uri, self.width, self.height, self.fps, self.frame_count = uri, width, height, fps, frame_count
        self.sample_aspect = Fraction(1)
        self.geometry: Geometry | None = None
        self.account = Account(declared=frame_count, count=frame_count)
        self.session = secrets.token_hex(6)
        self.paced = False  # if True, optional work that costs as much as decoding is left out
        self.begin = 0
        self._grab_ns = 0
        self._closed = threading.Event()

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """The frames from the first to the last; a new iterator at each call. `SourceError` at the first bad one."""

    @property
    def grab_ms(self) -> float:
        """How long the latest frame took to read and decode, or to draw."""
        return self._grab_ns / 1e6

    def __iter__(self) -> Iterator[Frame]:
        frames, owner = self.frames(), os.getpid()
        while True:
            if os.getpid() != owner:  # the decoder's threads and its position in the file belong to the parent
                raise SourceError(f"{self.uri}: the process was forked while it was read; expected one to begin there")
            start_ns = now_ns()
            frame = next(frames, None)
            self._grab_ns = now_ns() - start_ns
            if frame is None or self._closed.is_set():
                return
            self.account.shown = frame.seq + 1
            if frame.seq >= self.begin:
                yield frame

    def close(self) -> None:
        """End every running iteration before its next frame; from any thread."""
        self._closed.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
