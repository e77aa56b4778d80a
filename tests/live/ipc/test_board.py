"""Counts in shared memory outlive the process that made them."""

from __future__ import annotations

import os

import pytest

from rtseg.live.ipc.board import Board


def test_a_board_outlives_who_counts_on_it() -> None:
    board = Board.create()
    board.add("shown", 3)
    board.stages["segment"].add(12.0)
    other = Board(os.dup(board.fd))
    other.add("dropped ring")
    assert board.decided() == 4 and other.stages["segment"].summary()["max"] == 12.0
    with pytest.raises(KeyError):
        board["showm"]
