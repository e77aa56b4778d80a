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
CACHED = 8  # frames in the cache, so that a protocol can go back a little; 48 MB at 1080p


@dataclass(frozen=True, slots=True)
class Recording:
    """The files of one recording, or another source. `options` are keywords of `open_source`."""

    uris: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return self.uris[0] if len(self.uris) == 1 else f"{self.uris[0]} and {len(self.uris) - 1} more"


VideoInput = Path | Recording


class FrameReader:
    """Reads the videos of all sequences of a data set, one at a time: only one is open, and only its frames are cached.

    To go forward decodes the frames between. To go back beyond the cache decodes the video from its start.
    """

    def __init__(self) -> None:
        self._current: VideoInput | None = None
        self._source: Source | None = None
        self._frames: Iterator[Frame] = iter(())
        self._next = 0
        self._cached: OrderedDict[int, ImageU8] = OrderedDict()

    def image(self, video: VideoInput, t: int) -> ImageU8:
        """Frame t of a video, uint8 [H, W, 3]. Raises `SourceError` if it cannot be read, or has fewer frames."""
        if video != self._current or (t < self._next and t not in self._cached):
            self._start(video)
        while t >= self._next:
            frame = next(self._frames, None)
            if frame is None:
                raise self._short(video, t)
            self._cached[self._next] = frame.image_hwc
            self._next += 1
            if len(self._cached) > CACHED:
                self._cached.popitem(last=False)
        return self._cached[t]

    def _short(self, video: VideoInput, t: int) -> SourceError:
        lines = self._source.account.lines() if self._source is not None else []
        lost = [line for line in lines if line.startswith(("skipped", "ended"))]
        why = f" ({'; '.join(lost)})" if lost else ""
        return SourceError(f"{video}: ends after {self._next} frames{why}; expected a frame {t}; copy it again")

    def _start(self, video: VideoInput) -> None:
        self.close()
        self._source = open_video(video)
        self._frames = iter(self._source)
        self._current = video

    def close(self) -> None:
        """Close the current video."""
        if isinstance(self._frames, Generator):
            self._frames.close()
        if self._source is not None:
            self._source.close()
        self._current, self._source, self._frames, self._next = None, None, iter(()), 0
        self._cached.clear()


def open_video(video: VideoInput) -> Source:
    """Open a video with its options. Raises `SourceError` if it cannot be opened."""
    if isinstance(video, Recording):
        return open_source(video.uris if len(video.uris) > 1 else video.uris[0], **dict(video.options))
    return open_source(video)


def frame_count(video: VideoInput) -> int:
    """The number of frames of a video, as its source counts them, or else by decoding it."""
    with open_video(video) as source:
        return source.account.count or sum(1 for _ in source)


def frame_size(video: VideoInput) -> tuple[int, int]:
    """(height, width) of a video's frames."""
    with open_video(video) as source:
        return source.height, source.width
