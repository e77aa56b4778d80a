"""Signs of life of a process that says nothing: processor time, bytes that it writes, a disk that it waits for."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ..base.types import now_ns


def seconds_of(pid: int) -> float | None:
    """The processor time that a process has had; None if it has gone."""
    words = _stat(pid)
    return None if words is None else (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    """/proc/PID/stat from the state on, which follows a name that may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None


def _bytes_written(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith("wchar:"):
                return int(line.split()[1])
    return 0


def _ran_ns(pid: int) -> int:
    """Processor time, as finely as the kernel tells it."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return round(1e9 * (seconds_of(pid) or 0.0))


def offspring(pid: int) -> frozenset[int]:
    """The processes that a process has begun, and those that these have, as far as the kernel tells: compilers, say."""
    found: set[int] = set()
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError, ValueError):
            for child in map(int, tasks.read_text().split()):
                found |= {child, *offspring(child)}
    return frozenset(found)


class Vitals:
    """Watches one process from now on. `stirred_ns`: when it last did anything; `worked_ns`: when it last got on.

    It gets on where it goes round its loop, writes, or waits for the disk. What only takes processor time may be a
    long piece of work, or turn in a circle. With `family`, what its offspring do counts for it, and so do their birth
    and their end.
    """

    def __init__(self, pid: int, beat_ns: int, family: bool = False) -> None:
        self._pid, self._family = pid, family
        self._seen = self._look(beat_ns)
        self.stirred_ns = self.worked_ns = now_ns()

    def _look(self, beat_ns: int) -> tuple[tuple[int, int, frozenset[int]], int]:
        """What shows that it gets on, and its processor time."""
        children = offspring(self._pid) if self._family else frozenset()
        family = (self._pid, *children)
        return (beat_ns, sum(map(_bytes_written, family)), children), sum(map(_ran_ns, family))

    def look(self, beat_ns: int) -> None:
        """Take note of how it is now; `beat_ns`: when it last said that it goes round."""
        now, seen = now_ns(), self._look(beat_ns)
        words = _stat(self._pid)
        if seen[0] != self._seen[0] or (words is not None and words[0] == "D"):
            self.worked_ns = self.stirred_ns = now
        elif seen != self._seen:
            self.stirred_ns = now
        self._seen = seen
