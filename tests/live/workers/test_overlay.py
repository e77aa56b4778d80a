"""Which frames are drawn: their counts never fall, their number is bounded, and none is read twice."""

from __future__ import annotations

import threading
from collections import deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rtseg.base.types import Frame
from rtseg.live.ipc.board import Board
from rtseg.live.ipc.shared_memory import FRAMES
from rtseg.live.ipc.wakeup import WakeUp
from rtseg.live.workers.overlay import OverlayThread


def test_a_count_of_shown_frames_never_falls() -> None:
    """The publisher decides later what left: nothing that was counted is taken back."""
    overlay: dict[str, Any] = {"offered": 0, "sent": 0, "dropped": {}}
    thread: Any = object.__new__(OverlayThread)
    thread._publisher = SimpleNamespace(counts=lambda: {"overlay": overlay})
    thread._board, thread._counted = Board.create(), {}
    seen = [0]
    for fate in ("sent", "slot", "slot", "unwatched", "failed", "sent", "off"):
        overlay["offered"] += 1
        thread.count_sent()
        seen.append(thread._board["shown"])
        if fate == "sent":
            overlay["sent"] += 1
        else:
            overlay["dropped"][fate] = overlay["dropped"].get(fate, 0) + 1
        thread.count_sent()
        seen.append(thread._board["shown"])
    assert seen == sorted(seen) and seen[-1] == 3 and thread._board.decided() == 7
    assert thread._board.drops()["slot"] == 2


@pytest.fixture()
def thread() -> Any:
    """An overlay thread that is not started."""
    one: Any = object.__new__(OverlayThread)
    one._frames, one._waiting, one._overtaken, one._handing = deque(), deque(), 0, threading.Lock()
    one._board, one._wake_up = Board.create(), WakeUp()
    return one


def test_frames_that_nobody_draws_are_dropped_oldest_first_and_counted(thread: Any) -> None:
    pixels = np.zeros((6, 8, 3), np.uint8)
    for seq in range(FRAMES.entries + 10):
        thread.hand_over(Frame(pixels, seq))
    assert len(thread._frames) == FRAMES.entries and thread._next_frame().seq == 10
    assert thread._board["dropped ring"] == 10


def test_large_frames_are_held_by_their_bytes(thread: Any) -> None:
    pixels = np.broadcast_to(np.uint8(0), (4000, 4000, 3))
    for seq in range(20):
        thread.hand_over(Frame(pixels, seq))  # type: ignore[arg-type]
    assert len(thread._frames) == FRAMES.arena // pixels.nbytes


def test_a_frame_that_left_the_ring_unread_is_counted(thread: Any) -> None:
    thread.hand_over(None)
    thread.hand_over(Frame(np.zeros((6, 8, 3), np.uint8), 1))
    assert thread._next_frame().seq == 1 and thread._next_frame() is None and thread._board["dropped ring"] == 1


def test_a_frame_that_waits_in_sync_is_shown_as_it_was_handed_over(thread: Any) -> None:
    """It is not read from the ring again."""
    shown: list[Frame] = []
    thread._context = SimpleNamespace(
        frames=SimpleNamespace(identity=lambda seq: None, get=pytest.fail, read=pytest.fail)
    )
    thread._show = lambda frame, masks: shown.append(frame)
    thread._without_masks, thread.settings = False, SimpleNamespace(budget_ms=120.0)
    given = [Frame(np.zeros((6, 8, 3), np.uint8), seq) for seq in range(3)]
    for frame in given:
        thread._wait_for_masks(frame)
    thread._show_waiting(SimpleNamespace(seq=1))
    assert shown == [given[1]] and list(thread._waiting) == [given[2]] and thread._board["dropped slot"] == 1
