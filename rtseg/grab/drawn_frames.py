"""Frames in any order of a source that makes each of them by itself: images, or the synthetic endoscope."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Self

from ..base.errors import SourceError
from ..base.source import Source
from ..base.types import Frame


class DrawnFrames:
    """The frames of a source that makes each of them by itself: images, or the synthetic endoscope."""

    def __init__(self, source: Source) -> None:
        self._source, self.uri, self.session = source, source.uri, source.session
        self.width, self.height, self.fps = source.width, source.height, source.fps
        self.count, self.sample_aspect = source.frame_count or 0, source.sample_aspect
        self._time = Fraction(source.fps).limit_denominator(1001)

    def frame(self, number: int) -> Frame:
        check_number(self.uri, number, self.count)
        made: Frame = self._source.frame(number)  # type: ignore[attr-defined]  # `open_frames` has checked it
        return made

    def near(self, number: int) -> int:
        return number

    def approach(self, number: int, go_on: Callable[[], bool]) -> bool:
        return True

    def stretches(self) -> Iterator[tuple[int, int]]:
        return ((number, number + 1) for number in range(self.count))

    def seconds(self, number: int) -> float:
        return float(number / self._time)

    def number_at(self, seconds: float) -> int | None:
        number = round(seconds * self._time)
        return number if 0 <= number < self.count else None

    def again(self, *, backward: bool = False) -> Self:
        return self

    def close(self) -> None:
        self._source.close()


def check_number(uri: str, number: int, count: int) -> None:
    """`SourceError` unless there is a frame of this number."""
    if not 0 <= number < count:
        raise SourceError(f"{uri}: no frame {number}; expected 0 to {count - 1}")
