"""The process that records, if the profile says so: the ring of what was shown -> a folder that `rtseg verify` proves.

A disk that is full, or hangs, is this process's trouble alone.
"""

from __future__ import annotations

from pathlib import Path

import msgpack

from ..publish.recording import Recording
from .ring import quiet
from .seat import Seat


def work(seat: Seat) -> None:
    config = seat.config
    about = {name: config[name] for name in ("stream", "engine", "config_hash", "recipe_hash", "fps")}
    resume = None if config["resume"] is None else Path(config["resume"])
    with Recording(Path(config["folder"]), **about, resume=resume) as recording:
        seat.link.send("recording", folder=str(recording.folder))
        seat.board.add("missed", recording.lost)
        _Tape(seat, recording).run()


class _Tape:
    def __init__(self, seat: Seat, recording: Recording) -> None:
        self._seat, self._recording = seat, recording
        # Where the one before stopped: what was shown meanwhile is still in the ring, or is missed by name.
        self._next = seat.board["record next"]
        self._last_seq = seat.board["record seq"] - 1  # of the frames recorded; -1: none
        self._late = False  # whether the ring went round before this process came to it

    def run(self) -> None:
        seat, bell = self._seat, self._seat.fds.shown_for_record
        stopping = False
        while not stopping:
            seat.wait(0.1, bell)
            quiet(bell)
            seat.beat()
            try:
                for facts, _ in seat.heard():
                    self._recording.note(facts["kind"], **facts["facts"])
            except SystemExit:
                stopping = True  # but what was shown until now is written
            while self._next < seat.shown.head:
                self._write(self._next)
                self._next += 1
                seat.beat()

    def _write(self, index: int) -> None:
        entry = self._seat.shown.read(index)
        if entry is None:
            self._late = True
            self._seat.board.add("missed")
            return
        header = msgpack.unpackb(entry[0])
        if 0 <= self._last_seq < header["seq"] - 1:
            cause = "the recorder was too slow" if self._late else "not shown"
            self._recording.missed(self._last_seq + 1, header["seq"] - 1, cause)
        self._recording.show(header, entry[1].reshape(header["height"], header["width"], 3))
        self._last_seq, self._late = header["seq"], False
        board = self._seat.board
        board["record seq"], board["record next"] = self._last_seq + 1, index + 1
        board.add("recorded")
