"""The memory of a recording's session: one SQLite file with every change and every mask; nothing is lost by a kill.

Each change (a prompt, a correction, a pass of the tracker, a lock, ...) has a number, the whole state after it, and the
masks that it made. Masks are only added: a frame shows, of each object, the mask with the highest number up to the
present change. So going back by a change is going to a lower number, and a new change after that removes the later
ones. What no undo can reach any more is deleted.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from ..base.errors import ConfigError, OutputError, PromptError
from ..base.lock import lock, open_folder
from ..offline.direction_masks import StoredMask
from .recording_state import State

FORMAT = "rtseg recording 1"
UNDOABLE = 100  # changes that can be undone
LOGGED = 10_000  # lines of the log that are kept
ORDERS = 256  # whose keys are kept

_TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS changes (n INTEGER PRIMARY KEY, text TEXT NOT NULL, state BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS log (n INTEGER PRIMARY KEY, at REAL NOT NULL, who TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS masks (
    frame INTEGER NOT NULL, key INTEGER NOT NULL, change INTEGER NOT NULL, rle BLOB NOT NULL, wins BLOB,
    score REAL NOT NULL, iou REAL NOT NULL, area INTEGER NOT NULL, flags INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS orders (n INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
CREATE UNIQUE INDEX IF NOT EXISTS by_frame ON masks (frame, key, change);
CREATE INDEX IF NOT EXISTS by_object ON masks (key, frame, change, area);
CREATE INDEX IF NOT EXISTS by_change ON masks (change);
"""


Row = tuple[int, int, StoredMask]  # frame, key, mask


class Store:
    """The file of a session. From any thread; a change is on the disk when its method returns."""

    def __init__(self, path: Path, about: dict[str, str]) -> None:
        """Open or make the file. `about`: what recording it is of.

        Raises `ConfigError` if it is of another recording, `OutputError` if it cannot be read or written.
        """
        self.path, self._lock = path, threading.RLock()
        self._order = threading.local()
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=5)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_TABLES)
            with self._transaction():
                self._check(about)
                self._tidy()
        except sqlite3.Error as e:
            raise OutputError(f"{path}: cannot be used ({e}); choose another folder with --session") from e

    def _check(self, about: dict[str, str]) -> None:
        """Compare what the file says it is of, or write it into a new one."""
        found = dict(self._db.execute("SELECT name, value FROM about"))
        expected = {"format": FORMAT, **about}
        if not found:
            self._db.executemany("INSERT INTO about VALUES (?, ?)", [*expected.items(), ("head", "0")])
            self._db.execute("INSERT INTO changes VALUES (0, '', ?)", (msgspec.json.encode(State()),))
            return
        for name, value in expected.items():
            if found.get(name) != value:
                raise ConfigError(
                    f"{self.path.parent}: a session of another recording ({name} {found.get(name)}, this one has "
                    f"{value}); choose another folder with --session"
                )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                if key := getattr(self._order, "key", None):
                    self._db.execute("INSERT OR IGNORE INTO orders (key) VALUES (?)", (key,))
                    self._db.execute("DELETE FROM orders WHERE n <= (SELECT max(n) FROM orders) - ?", (ORDERS,))
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error as e:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise OutputError(f"{self.path}: cannot be written ({e}); free the space and try again") from e

    @contextmanager
    def order(self, key: str | None) -> Iterator[None]:
        """What this thread changes within is an order with this key, which is saved together with the change."""
        self._order.key = key
        try:
            yield
        finally:
            self._order.key = None

    def knows(self, key: str) -> bool:
        """Whether an order with this key, one of the latest 256, was done."""
        with self._lock:
            return self._db.execute("SELECT 1 FROM orders WHERE key = ?", (key,)).fetchone() is not None

    @property
    def head(self) -> int:
        """The number of the present change."""
        with self._lock:
            return int(self._db.execute("SELECT value FROM about WHERE name = 'head'").fetchone()[0])

    @property
    def state(self) -> State:
        """The present state."""
        with self._lock:
            (found,) = self._db.execute("SELECT state FROM changes WHERE n = ?", (self.head,)).fetchone()
            return msgspec.json.decode(found, type=State)

    @property
    def next_number(self) -> int:
        """The number that the next change will have."""
        return self.head + 1

    def change(self, text: str, who: str, state: State, rows: Iterable[Row] = ()) -> int:
        """Make a change; what was undone before it is gone for good. Returns its number."""
        with self._transaction():
            number = self.next_number
            self._db.execute("DELETE FROM changes WHERE n >= ?", (number,))
            self._db.execute("DELETE FROM masks WHERE change >= ?", (number,))
            self._db.execute("INSERT INTO changes VALUES (?, ?, ?)", (number, text, msgspec.json.encode(state)))
            self._go_to(number)
            self._add(number, rows)
            self._note(who, text)
            if number % UNDOABLE == 0:
                self._tidy()
        return number

    def extend(self, state: State, rows: Iterable[Row] = (), text: str | None = None) -> None:
        """Add to the present change: more masks, another state, other words."""
        with self._transaction():
            number = self.head
            self._db.execute("UPDATE changes SET state = ? WHERE n = ?", (msgspec.json.encode(state), number))
            if text is not None:
                self._db.execute("UPDATE changes SET text = ? WHERE n = ?", (text, number))
            self._add(number, rows)

    def undo(self, who: str) -> str:
        """Go back by a change. Returns what was undone, in words. `PromptError` if there is nothing to undo."""
        with self._transaction():
            head = self.head
            row = self._db.execute("SELECT text FROM changes WHERE n = ?", (head,)).fetchone()
            before = self._db.execute("SELECT n FROM changes WHERE n = ?", (head - 1,)).fetchone()
            if before is None:
                raise PromptError("undo: nothing is left to undo")
            self._go_to(head - 1)
            self._note(who, f"undo: {row[0]}")
            return str(row[0])

    def redo(self, who: str) -> str:
        """Go forward by a change that was undone. `PromptError` if there is none."""
        with self._transaction():
            row = self._db.execute("SELECT text FROM changes WHERE n = ?", (self.head + 1,)).fetchone()
            if row is None:
                raise PromptError("redo: nothing was undone")
            self._go_to(self.head + 1)
            self._note(who, f"redo: {row[0]}")
            return str(row[0])

    def note(self, who: str, text: str) -> None:
        """Write a line of the log."""
        with self._transaction():
            self._note(who, text)

    def log(self) -> list[tuple[float, str, str]]:
        """The log: seconds since 1970, who, and what, in order."""
        with self._lock:
            return list(self._db.execute("SELECT at, who, text FROM log ORDER BY n"))

    def masks(self, frame: int) -> dict[int, StoredMask]:
        """The masks on a frame, by the key of their object."""
        query = (
            "SELECT key, rle, wins, score, iou, area, flags, max(change) FROM masks "
            "WHERE frame = ? AND change <= ? GROUP BY key"
        )
        with self._lock:
            rows = self._db.execute(query, (frame, self.head)).fetchall()
        return {key: StoredMask(*mask) for key, *mask, _ in rows}

    def areas(self, key: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The frames on which an object has a mask, in ascending order, and how many pixels each has."""
        query = "SELECT frame, area, max(change) FROM masks WHERE key = ? AND change <= ? GROUP BY frame ORDER BY frame"
        with self._lock:
            rows = self._db.execute(query, (key, self.head)).fetchall()
        found = np.array(rows, np.int64).reshape(-1, 3)
        return found[:, 0], found[:, 1]

    def close(self) -> None:
        """Close the file. May be called again."""
        with self._lock:
            self._db.close()

    def _add(self, number: int, rows: Iterable[Row]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO masks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (frame, key, number, mask.rle, mask.wins, mask.score, mask.iou, mask.area, mask.flags)
                for frame, key, mask in rows
            ),
        )

    def _go_to(self, number: int) -> None:
        self._db.execute("UPDATE about SET value = ? WHERE name = 'head'", (str(number),))

    def _note(self, who: str, text: str) -> None:
        self._db.execute("INSERT INTO log (at, who, text) VALUES (?, ?, ?)", (time.time(), who, text))
        self._db.execute("DELETE FROM log WHERE n <= (SELECT max(n) FROM log) - ?", (LOGGED,))

    def _tidy(self) -> None:
        """Delete what no undo reaches: old changes, masks that newer ones hide, and those of objects that are gone."""
        floor = self.head - UNDOABLE
        self._db.execute("DELETE FROM changes WHERE n < ?", (floor,))
        self._db.execute(
            "DELETE FROM masks WHERE change < (SELECT max(change) FROM masks AS later WHERE later.frame = masks.frame "
            "AND later.key = masks.key AND later.change <= ?)",
            (floor,),
        )
        states = self._db.execute("SELECT state FROM changes").fetchall()
        keys = {each.key for (state,) in states for each in msgspec.json.decode(state, type=State).objects}
        known = {key for (key,) in self._db.execute("SELECT DISTINCT key FROM masks")}
        self._db.executemany("DELETE FROM masks WHERE key = ?", [(key,) for key in known - keys])


def claim(folder: Path) -> int:
    """Make the folder, and hold its lock: a session belongs to one process at a time. Returns the lock's handle."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open_folder(folder)
    except OSError as e:
        raise OutputError(f"{folder}: cannot be used ({e.strerror}); choose another with --session") from e
    if lock(handle) == "held":
        os.close(handle)
        raise ConfigError(f"{folder}: this session is open in another process; close that one first")
    return handle
