"""Frames of video files by number: a file is decoded from its start, and the latest frames are cached."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base.errors import SourceError
from ..base.types import Frame, ImageU8
from ..grab import Source, open_source

VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".webm")
KEPT = 8  # frames in the cache, so that a protocol can go back a little; 48 MB at 1080p


@dataclass(frozen=True, slots=True)
class Video:
    """The files of one recording, or another source. `options` are keywords of `open_source`."""

    uris: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return self.uris[0] if len(self.uris) == 1 else f"{self.uris[0]} and {len(self.uris) - 1} more"


Played = Path | Video


class Player:
    """Reads the videos of a data set, one at a time: only one is open, and only its frames are cached.

    To go forward decodes the frames between. To go back beyond the cache decodes the video from its start.
    """

    def __init__(self) -> None:
        self._played: Played | None = None
        self._source: Source | None = None
        self._frames: Iterator[Frame] = iter(())
        self._next = 0
        self._kept: OrderedDict[int, ImageU8] = OrderedDict()

    def image(self, played: Played, t: int) -> ImageU8:
        """Frame t of a video, uint8 [H, W, 3]. Raises `SourceError` if it cannot be read, or has fewer frames."""
        if played != self._played or (t < self._next and t not in self._kept):
            self._start(played)
        while t >= self._next:
            frame = next(self._frames, None)
            if frame is None:
                raise self._short(played, t)
            self._kept[self._next] = frame.image_hwc
            self._next += 1
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return self._kept[t]

    def _short(self, played: Played, t: int) -> SourceError:
        lines = self._source.account.lines() if self._source is not None else []
        lost = [line for line in lines if line.startswith(("skipped", "ended"))]
        why = f" ({'; '.join(lost)})" if lost else ""
        return SourceError(f"{played}: ends after {self._next} frames{why}; expected a frame {t}; copy it again")

    def _start(self, played: Played) -> None:
        self.close()
        self._source = opened(played)
        self._frames = iter(self._source)
        self._played = played

    def close(self) -> None:
        """Close the current video."""
        if isinstance(self._frames, Generator):
            self._frames.close()
        if self._source is not None:
            self._source.close()
        self._played, self._source, self._frames, self._next = None, None, iter(()), 0
        self._kept.clear()


def opened(played: Played) -> Source:
    """Open a video with its options. Raises `SourceError` if it cannot be opened."""
    if isinstance(played, Video):
        return open_source(played.uris if len(played.uris) > 1 else played.uris[0], **dict(played.options))
    return open_source(played)


def frame_count(played: Played) -> int:
    """The number of frames of a video, as its source counts them, or else by decoding it."""
    with opened(played) as source:
        return source.account.count or sum(1 for _ in source)


def frame_size(played: Played) -> tuple[int, int]:
    """(height, width) of a video's frames."""
    with opened(played) as source:
        return source.height, source.width
