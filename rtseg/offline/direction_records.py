"""The masks of a pass on the disk, until another pass is merged with them: one SQLite file.

A commit adds masks, and replaces what the pass needs to go on from there, or neither. So after a kill, a pass goes on
from its latest commit. In memory are only the masks since then.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

from ..base.errors import OutputError
from ..base.files import discard_folder, unwritable
from .direction_masks import StoredMask

Row = tuple[int, int, StoredMask]  # frame, id, mask

_TABLES = """
CREATE TABLE IF NOT EXISTS masks (
    frame INTEGER NOT NULL, id INTEGER NOT NULL, rle BLOB NOT NULL, wins BLOB, score REAL NOT NULL, iou REAL NOT NULL,
    area INTEGER NOT NULL, flags INTEGER NOT NULL, PRIMARY KEY (frame, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


class Records:
    """The masks of one pass, by frame and id. From any thread. `folder` is where the file lies."""

    def __init__(self, path: Path) -> None:
        """Open or make the file, in a folder of its own. Raises `OutputError` if it cannot be read or written."""
        self._path, self._lock, self.folder = path, threading.Lock(), path.parent
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as e:
            raise unwritable(self.folder, e) from e
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.executescript(_TABLES)
        except sqlite3.Error as e:
            raise self._error(e) from e

    def _error(self, error: sqlite3.Error) -> OutputError:
        return OutputError(f"{self._path}: cannot be written ({error}); free the space, or choose another folder")

    def commit(self, rows: Iterable[Row], state: dict[str, bytes]) -> None:
        """Add masks, and replace values of the state, in one step that is on the disk when this returns."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(
                    "INSERT OR REPLACE INTO masks VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    ((n, i, m.rle, m.wins, m.score, m.iou, m.area, m.flags) for n, i, m in rows),
                )
                self._db.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", state.items())
                self._db.execute("COMMIT")
            except sqlite3.Error as e:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise self._error(e) from e

    def state(self, name: str) -> bytes | None:
        """A value of the state; None if there is none."""
        with self._lock:
            found = self._db.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return None if found is None else bytes(found[0])

    def masks(self, frame: int) -> dict[int, StoredMask]:
        """The masks on a frame, by the id of their object, ascending."""
        query = "SELECT id, rle, wins, score, iou, area, flags FROM masks WHERE frame = ? ORDER BY id"
        with self._lock:
            rows = self._db.execute(query, (frame,)).fetchall()
        return {object_id: StoredMask(*mask) for object_id, *mask in rows}

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._db.executescript("DELETE FROM masks; DELETE FROM state;")

    def close(self) -> None:
        """Close the file. May be called again."""
        with self._lock:
            self._db.close()

    def remove(self) -> None:
        """Close the file, and remove its folder."""
        self.close()
        discard_folder(self.folder)
