"""Small pictures of the frames of a recording that are far from a key frame, for the time until they are decoded.

A frame that is 200 frames behind its key frame takes 200 decoded pictures. A thread of low priority goes through such
stretches once and keeps each frame at half the size, as JPEG, in a file that has no name and ends with the process. So
a seek shows the right frame at once, and its own pixels as soon as they are decoded. The file is bounded; what does not
fit is shown as before: the key frame first.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from ..base.errors import SourceError
from ..base.types import Frame
from ..grab.random_access import Frames

FAR: Final = 24  # frames behind a key frame, from which on there is a still
MOST_BYTES: Final = 512 << 20  # of all stills of a recording: 10 minutes of 720p have about 300 MB
SHORTEST: Final = 160  # pixels of the longer side of a still, at least
_QUALITY = 80
_NICE = 10
_WAIT_S = 5.0  # at the end


@dataclass(frozen=True, slots=True)
class _Place:
    at: int
    size: int


class Stills:
    """The stills of one recording, made in a thread of their own. Thread-safe.

    Attributes:
        done: whether all are made that there will be.
    """

    def __init__(self, frames: Frames, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        """`folder`: where the file lies. Nothing runs before `start`."""
        self._frames, self._most = frames, most_bytes
        self._places: dict[int, _Place] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._bytes = 0
        self._thread = threading.Thread(target=self._run, name="stills", daemon=True)
        self.done = False

    def start(self) -> None:
        """Begin to make them."""
        self._thread.start()

    def frame(self, number: int) -> Frame | None:
        """A frame as its still shows it, at its full size; None if there is none yet."""
        place = self._places.get(number)
        if place is None:
            return None
        with self._lock:
            if self._over.is_set():
                return None
            jpeg = os.pread(self._file.fileno(), place.size, place.at)
        small_hwc = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
        size = self._frames.width, self._frames.height
        image_hwc = np.asarray(cv2.resize(np.asarray(small_hwc), size, interpolation=cv2.INTER_LINEAR), np.uint8)
        return Frame(image_hwc, number, self._frames.session, sample_aspect=self._frames.sample_aspect)

    def close(self) -> None:
        """Stop, and drop all. May be called again."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(_WAIT_S)
        with self._lock:
            self._file.close()

    def _run(self) -> None:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        far = [number for first, after in self._frames.stretches() for number in range(first + FAR, after)]
        if far:
            with suppress(SourceError, OSError), closing(self._frames.again()) as frames:
                self._make(frames, far)
        self.done = not self._over.is_set()

    def _make(self, frames: Frames, numbers: Sequence[int]) -> None:
        for number in numbers:
            with suppress(SourceError):  # a damaged frame has no still
                self._add(number, frames.frame(number))
            if self._over.is_set() or self._bytes >= self._most:
                return

    def _add(self, number: int, frame: Frame) -> None:
        height, width = frame.image_hwc.shape[:2]
        part = 2 if max(height, width) >= 2 * SHORTEST else 1
        size = max(1, width // part), max(1, height // part)
        small_hwc = cv2.resize(frame.image_hwc, size, interpolation=cv2.INTER_AREA)
        done, jpeg = cv2.imencode(
            ".jpg", cv2.cvtColor(small_hwc, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        )
        if not done:
            return
        with self._lock:
            if self._over.is_set():
                return
            self._file.seek(self._bytes)
            self._file.write(jpeg.tobytes())
            self._file.flush()
            self._places[number] = _Place(self._bytes, len(jpeg))
            self._bytes += len(jpeg)
