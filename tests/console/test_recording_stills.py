"""Frames far from a key frame are shown at once, small, and then as they are; a seek gives way to the next one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rtseg.base.types import Frame
from rtseg.console.recording_player import Player
from rtseg.console.recording_stills import FAR, Stills
from rtseg.grab.random_access import Frames, VideoFrames, open_frames
from tests.grab.test_random_access import COUNT, write_clip


@pytest.fixture
def frames(tmp_path: Path) -> Iterator[Frames]:
    found = open_frames(write_clip(tmp_path / "clip.mp4", group=COUNT))
    yield found
    found.close()


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def unlike(one: Frame, other: Frame) -> float:
    return float(np.abs(one.image_hwc.astype(int) - other.image_hwc).mean())


def test_each_far_frame_has_its_still_and_all_are_bounded(frames: Frames, tmp_path: Path) -> None:
    stills = Stills(frames, tmp_path)
    stills.start()
    until(lambda: stills.done)
    assert list(frames.stretches()) == [(0, COUNT)]
    assert [stills.frame(n) is not None for n in range(COUNT)] == [n >= FAR for n in range(COUNT)]
    for number in range(FAR, COUNT - 4):
        still = stills.frame(number)
        assert still is not None and (still.seq, still.width, still.height) == (number, frames.width, frames.height)
        assert unlike(still, frames.frame(number)) < unlike(still, frames.frame(number + 4))  # and of no other frame
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".mp4"]  # the file has no name
    stills.close()
    assert stills.frame(FAR) is None
    few = Stills(frames, tmp_path, most_bytes=4000)
    few.start()
    until(lambda: few.done)
    assert few.frame(FAR) is not None and few._bytes < 4000 + 10_000 and few.frame(COUNT - 1) is None
    few.close()


def test_a_seek_shows_the_still_first_and_then_the_frame(frames: Frames, tmp_path: Path) -> None:
    shown, errors = list[Frame](), list[str]()
    session = SimpleNamespace(frames=frames, folder=tmp_path)
    player = Player(session, shown.append, lambda kind, text: errors.append(text))  # type: ignore[arg-type]
    player.start()
    until(lambda: player._stills.done)
    frames.frame(0)  # else what is decoded is near
    shown.clear()
    player.seek(COUNT - 1)
    until(lambda: len(shown) == 2)
    assert [frame.seq for frame in shown] == [COUNT - 1] * 2 and not errors
    exact = frames.frame(COUNT - 1)
    assert unlike(shown[0], exact) > 0 and unlike(shown[1], exact) == 0
    player.close()


def test_a_seek_gives_way_to_the_next_one(frames: Frames) -> None:
    assert isinstance(frames, VideoFrames)
    fed: list[int] = []
    read = frames._read
    frames._read = lambda number: fed.append(number) or read(number)  # type: ignore[method-assign,func-returns-value]
    asked = threading.Event()
    assert not frames.approach(COUNT - 1, asked.is_set) and len(fed) == 1
    asked.set()
    assert frames.approach(COUNT - 1, asked.is_set)  # goes on from there
    decoded = len(fed)
    assert frames.frame(COUNT - 1).seq == COUNT - 1 and len(fed) == decoded >= COUNT / 2
    assert frames.approach(COUNT - 1, asked.is_set) and len(fed) == decoded
