"""`overlay.mp4`, in one piece; or in parts, one for each segment of the work, that are joined in the end.

Each part has an encoder of its own, so a run that goes on after a part encodes the same as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from ..base.types import ImageU8
from ..grab import Source
from ..publish import Mp4Writer
from ..publish.mp4_join import join_mp4
from ..publish.mp4_writer import TICK
from .segments import Segment, part_of

NAME = "overlay.mp4"


class OverlayFile:
    """Writes the pictures. `first` and `first_tick` are of the part that is written."""

    def __init__(self, folder: Path, source: Source, in_parts: bool, last_tick: int = -1) -> None:
        """`last_tick`: when the last picture of the parts so far is shown. Raises `OutputError`."""
        self._folder, self._source, self._in_parts, self.last_tick = folder, source, in_parts, last_tick
        self.first = self.first_tick = 0
        self._writer = None if in_parts else self._new(folder / NAME)

    def _new(self, path: Path) -> Mp4Writer:
        source = self._source
        return Mp4Writer(
            path, source.width, source.height, source.fps, sample_aspect=source.sample_aspect, at_once=True
        )

    def write(self, image_hwc: ImageU8, seconds: float, number: int) -> None:
        """Append picture `number`, shown `seconds` after the first. Raises `OutputError`."""
        tick = max(self.last_tick + 1, round(Fraction(seconds) / TICK))
        if self._writer is None:
            self.first, self.first_tick = number, tick
            self._writer = self._new(part_of(self._folder, number))
        self._writer.write(image_hwc, (tick - self.first_tick) * TICK)
        self.last_tick = tick

    def end_part(self) -> Path:
        """Finish the part, once it is on the disk. Raises `OutputError`."""
        assert self._writer is not None
        path, writer = self._writer.path, self._writer
        self._writer = None
        writer.close()
        return path

    def close(self, done: Sequence[Segment]) -> None:
        """Finish the file; of parts, with those of the segments that are done. Raises `OutputError`."""
        if self._writer is not None:
            self._writer.close()
        if self._in_parts:
            parts = [(one.part(self._folder), one.tick) for one in done]
            join_mp4(parts, self._folder / NAME, Fraction(self._source.fps).limit_denominator(1001))

    def abort(self) -> None:
        """Stop, and leave what is complete."""
        if self._writer is not None:
            self._writer.abort()
