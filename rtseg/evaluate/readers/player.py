"""Frames of video files by number: each file is read from its start, and the frames just passed are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from ...errors import SourceError
from ...grab import Source, open_source
from ...types import Frame, ImageU8

VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".webm")
KEPT = 8  # frames, so that a protocol may look back a little; 48 MB at 1080p


class Player:
    """Plays one video at a time, whoever asks: a data set of many keeps one open, and the frames of one.

    Going forward costs what decoding costs; going back beyond what is kept starts the video again.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._frames: Iterator[Frame] = iter(())
        self._next = 0
        self._kept: OrderedDict[int, ImageU8] = OrderedDict()

    def image(self, path: Path, t: int) -> ImageU8:
        """Frame t of a video, uint8 [H, W, 3]; `SourceError` if it cannot be read or is shorter."""
        if path != self._path or (t < self._next and t not in self._kept):
            self._start(path)
        while t >= self._next:
            frame = next(self._frames, None)
            if frame is None:
                raise SourceError(f"{path}: ends after {self._next} frames; expected a frame {t}; copy it again")
            self._kept[self._next] = frame.image_hwc
            self._next += 1
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return self._kept[t]

    def _start(self, path: Path) -> None:
        self._path, self._next = None, 0  # None: also when it cannot be opened
        self._kept.clear()
        self._frames = iter(open_source(path))
        self._path = path


def frame_count(path: Path) -> int:
    """How many frames a video has: what it declares, or where it does not, what can be decoded."""
    source: Source = open_source(path)
    return source.frame_count or sum(1 for _ in source)


def frame_size(path: Path) -> tuple[int, int]:
    """(height, width) of a video's frames."""
    source = open_source(path)
    return source.height, source.width
