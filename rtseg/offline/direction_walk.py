"""The ways through a recording: forward, backward, and both; which frames a pass reads, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from ..base.errors import ConfigError, SourceError, did_you_mean
from ..base.types import Frame
from ..grab.random_access import Frames
from .settings import WAYS, Way

Direction = Literal["forward", "backward"]


def directions_of(way: Way) -> tuple[Direction, ...]:
    """The passes of a way, in the order in which they are made. Raises `ConfigError` for an unknown way."""
    if way not in WAYS:
        raise ConfigError(f"direction = {way!r:.40}; {did_you_mean(str(way), WAYS)}")
    return ("forward", "backward") if way == "both" else (way,)


@dataclass(frozen=True, slots=True)
class Walk:
    """A pass: its direction, and the numbers of its first and last frame."""

    direction: Direction
    first: int
    last: int

    @property
    def step(self) -> int:
        """1 forward, -1 backward."""
        return 1 if self.direction == "forward" else -1

    @property
    def frames(self) -> range:
        """The frames of the pass, in order."""
        return range(self.first, self.last + self.step, self.step)

    def is_past(self, frame: int, other: int) -> bool:
        """Whether a frame comes after another one on this way."""
        return (frame - other) * self.step > 0


def read(frames: Frames, walk: Walk, left_out: Callable[[int, str], None]) -> Iterator[Frame]:
    """The frames of a pass, in order. `left_out` is called with each that cannot be read, and why."""
    for number in walk.frames:
        try:
            frame = frames.frame(number)
        except SourceError as e:
            left_out(number, str(e))
            continue
        yield frame
