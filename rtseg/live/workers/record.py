"""The worker that records, if the profile asks for it: ring of drawn frames -> a folder that `rtseg verify` checks.

A disk that is full or hangs stops this process alone.
"""

from __future__ import annotations

from pathlib import Path

import msgpack

from ...publish.recording import Recording
from ..ipc.messages import RecordConfig, RecordNote
from ..ipc.reports import RecordingOpened
from .context import WorkerContext


def work(context: WorkerContext) -> None:
    """Write every drawn frame to the recording until `Stop` comes."""
    config: RecordConfig = context.config
    about = {name: getattr(config, name) for name in ("stream", "engine", "config_hash", "recipe_hash", "fps")}
    resume = None if config.resume is None else Path(config.resume)
    with Recording(Path(config.folder), **about, resume=resume) as recording:
        context.send(RecordingOpened(str(recording.folder)))
        context.board.add("missed", recording.lost)
        _Recorder(context, recording).run()


class _Recorder:
    def __init__(self, context: WorkerContext, recording: Recording) -> None:
        self._context, self._recording = context, recording
        # Continue where the previous process stopped: frames drawn since are in the ring, or are counted as missed.
        self._next = context.board["record next"]
        self._last_seq = context.board["record seq"] - 1  # of the frame recorded last; -1: none
        self._overtaken = False  # whether the ring dropped frames that were not recorded yet

    def run(self) -> None:
        context, wake_up = self._context, self._context.shared.drawn_for_record
        stopping = False
        while not stopping:
            context.wait(0.1, wake_up)
            wake_up.clear()
            context.beat()
            try:
                self._write_notes()
            except SystemExit:
                stopping = True  # but all frames drawn until now are written
            while self._next < context.drawn.head:
                self._write_frame(self._next)
                self._next += 1
                context.beat()

    def _write_notes(self) -> None:
        for message, _ in self._context.receive():
            if isinstance(message, RecordNote):
                self._recording.note(message.kind, **message.facts)

    def _write_frame(self, index: int) -> None:
        entry = self._context.drawn.read(index)
        if entry is None:
            self._overtaken = True
            self._context.board.add("missed")
            return
        header = msgpack.unpackb(entry[0])
        # A recording begins with the first frame that was drawn; frames that the ring dropped before it are missed.
        begun = self._last_seq >= 0 or self._overtaken
        if begun and self._last_seq < header["seq"] - 1:
            cause = "the recorder was too slow" if self._overtaken else "not shown"
            self._recording.missed(self._last_seq + 1, header["seq"] - 1, cause)
        self._recording.show(header, entry[1].reshape(header["height"], header["width"], 3))
        self._last_seq, self._overtaken = header["seq"], False
        board = self._context.board
        board["record seq"], board["record next"] = self._last_seq + 1, index + 1
        board.add("recorded")
