"""Keeps the accepted prompts of a feed in a file, so that the feed has its objects again when it is started anew.

Coding pictures takes longer than a round of the supervisor may: a thread does it. It always writes the newest state.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ..base.errors import ConfigError, OutputError, RtsegError
from ..base.files import sweep
from ..base.types import Frame, ImageU8
from .ipc.messages import PromptData
from .kept_file import KeptObject, KeptPrompts, coded, picture_of, read_kept, write_kept
from .object_looks import Choice
from .prompt_history import ObjectHistory, Picture, PromptHistory


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is to be kept: the accepted prompts of each object, and how it is drawn."""

    objects: Mapping[int, ObjectHistory]
    choices: Mapping[int, Choice]


class PromptKeeper:
    """The file of one feed. `note` is called in each round of the supervisor, `close` at the end."""

    def __init__(self, path: Path, stream: str) -> None:
        """`OutputError` if the file could not be written; nothing is written yet."""
        self._path, self._stream = path, stream
        self._last = Snapshot({}, {})
        self._next: Snapshot | None = None
        self._changed, self._over = threading.Condition(), False
        self._coded: dict[int, tuple[Picture, bytes]] = {}  # by identity; only in the thread
        self._error = self._told = ""
        try:
            if path.is_dir():
                raise IsADirectoryError(21, "is a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass
            sweep(path)
        except OSError as e:
            raise OutputError(f"control: keep = {path}: cannot be written ({e.strerror}); choose another file") from e
        self._thread = threading.Thread(target=self._run, name="keep", daemon=True)
        self._thread.start()

    def restore(self, history: PromptHistory, most: int) -> tuple[dict[int, Choice], str] | None:
        """Put the file's prompts into an empty history; returns how the objects are drawn, and when it was written.

        None without a file. `ConfigError` for a file that is damaged, of another stream, or of more objects than
        `most`. The pictures are older than all of this run, so their numbers are negative.
        """
        kept = read_kept(self._path, self._stream)
        if kept is None:
            return None
        if len(kept.objects) > most:
            found = f"{len(kept.objects)} objects; the recipe says max_objects = {most}"
            raise ConfigError(f"{self._path}: {found}; raise it, or move the file away")
        first = -len(kept.pictures)
        frames = [Frame(picture_of(png), first + n, "kept") for n, png in enumerate(kept.pictures)]
        pictures = [Picture.from_frame(frame) for frame in frames]
        for thing in kept.objects:
            for index, data in thing.prompts:
                history.add(pictures[index], data.to_prompt())
            if thing.label:
                history.rename(thing.id, thing.label)
        choices = {thing.id: Choice(thing.color, thing.hidden) for thing in kept.objects}
        self._last = snapshot(history, choices)
        return choices, kept.saved

    def note(self, now: Snapshot) -> str:
        """Have the file written if what it holds has changed; returns why it could not be written lately, or ""."""
        if now != self._last:
            self._last = now
            with self._changed:
                self._next = now
                self._changed.notify()
        error, told = self._error, self._told
        self._told = error
        return error if error != told else ""

    def begin_with(self, now: Snapshot) -> None:
        """This needs no file: the feed begins with it."""
        self._last = now

    def close(self) -> str:
        """Write what is left, and end; returns why that failed, or ""."""
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join()
        return self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._over)
                now, self._next = self._next, None
            if now is None:
                return
            try:
                write_kept(self._path, self._kept(now))
                self._error = ""
            except (RtsegError, OSError) as e:
                self._error = str(e)

    def _kept(self, now: Snapshot) -> KeptPrompts:
        records = [record for one in now.objects.values() for record in one.accepted]
        pictures = {id(r.picture): r.picture for r in sorted(records, key=lambda r: r.picture.seq)}
        places = {key: place for place, key in enumerate(pictures)}
        self._coded = {key: self._coded.get(key) or (one, coded(_pixels(one))) for key, one in pictures.items()}
        objects = tuple(
            KeptObject(
                id=i,
                label=one.label,
                color=now.choices.get(i, Choice()).color,
                hidden=now.choices.get(i, Choice()).hidden,
                prompts=tuple((places[id(r.picture)], PromptData.from_prompt(r.prompt)) for r in one.accepted),
            )
            for i, one in now.objects.items()
        )
        saved = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return KeptPrompts(self._stream, saved, objects, tuple(png for _, png in self._coded.values()))


def snapshot(history: PromptHistory, choices: Mapping[int, Choice]) -> Snapshot:
    """What there is to keep now."""
    states = history.states(history.ids)
    objects = {i: state for i, state in states.items() if state is not None}
    return Snapshot(objects, {i: choices[i] for i in objects if i in choices and choices[i] != Choice()})


def _pixels(picture: Picture) -> ImageU8:
    shape = picture.id.height, picture.id.width, 3
    flat = os.pread(picture.fd, shape[0] * shape[1] * shape[2], 0)
    return np.frombuffer(flat, np.uint8).reshape(shape)
