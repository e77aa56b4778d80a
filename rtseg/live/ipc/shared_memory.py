"""The memory that all processes of a feed share: the board, the rings, and the wake-ups of the rings' readers."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace

from ...base.edges import MOST
from .board import Board
from .frame_rings import FrameRing, MaskRing
from .ring import Ring, RingSize
from .wakeup import WakeUp

FRAMES = RingSize(entries=64, arena=192 << 20)  # 2.5 s of 720p at 25 fps: how far back a click may point
MASKS = RingSize(entries=64, arena=32 << 20, header=1 << 16)  # at least: see `masks_size`
DRAWN = RingSize(entries=64, arena=96 << 20, header=1 << 16)  # drawn frames for the recorder


def masks_size(max_objects: int, image_size: int) -> RingSize:
    """A ring that holds the masks of four frames. `image_size`: the side in pixels of the network's pictures."""
    side = image_size if image_size <= MOST else image_size // 4  # with parts of cells or without: `base/edges.py`
    largest = max_objects * side**2 * 4
    return replace(MASKS, arena=max(MASKS.arena, 4 * largest))


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The file descriptors that the workers inherit: memory, and wake-ups, named after ring and reader."""

    board: int
    frames: int
    masks: int
    drawn: int
    frames_for_segment: int
    frames_for_publish: int
    masks_for_publish: int
    drawn_for_record: int

    def all(self) -> tuple[int, ...]:
        return tuple(asdict(self).values())


class SharedMemory:
    """One process's view of the shared memory."""

    def __init__(self, fds: Descriptors) -> None:
        self.fds = fds
        self.board = Board(fds.board)
        self.frames_for_segment = WakeUp(fds.frames_for_segment)
        self.frames_for_publish = WakeUp(fds.frames_for_publish)
        self.masks_for_publish = WakeUp(fds.masks_for_publish)
        self.drawn_for_record = WakeUp(fds.drawn_for_record)
        self.frames = FrameRing(fds.frames, FRAMES, (self.frames_for_segment, self.frames_for_publish))
        self.masks = MaskRing(fds.masks, MASKS.with_arena_of(fds.masks), (self.masks_for_publish,))
        self.drawn = Ring(fds.drawn, DRAWN, (self.drawn_for_record,))

    @classmethod
    def create(cls, max_objects: int, image_size: int) -> SharedMemory:
        """New memory for a feed whose masks have at most the size of `masks_size`; `close` it at the end."""
        return cls(
            Descriptors(
                board=Board.create().fd,
                frames=Ring.create("frames", FRAMES),
                masks=Ring.create("masks", masks_size(max_objects, image_size)),
                drawn=Ring.create("drawn", DRAWN),
                frames_for_segment=WakeUp().fd,
                frames_for_publish=WakeUp().fd,
                masks_for_publish=WakeUp().fd,
                drawn_for_record=WakeUp().fd,
            )
        )

    def close(self) -> None:
        """Close the descriptors; the mapped memory stays readable."""
        for fd in self.fds.all():
            os.close(fd)
