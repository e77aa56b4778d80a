"""Processes that a test started and did not end: they are known by a word in their environment, and ended."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

NAME = "RTSEG_TESTS"
PROC = Path("/proc")
WAIT_S = 5.0
# A process of Python's own, which lives as long as the one that first needed it.
LASTING = b"multiprocessing.resource_tracker"


def tag() -> str:
    """Put a word into this process's environment that is its own and that all it starts inherit.

    A worker of pytest-xdist adds its name to the word of the process that started it, so that the latter finds all.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    os.environ[NAME] = f"{os.environ[NAME]}{worker}/" if worker else f"{os.getpid()}/"
    return os.environ[NAME]


class Leftovers:
    """The processes that carry this process's word."""

    def __init__(self, word: str) -> None:
        self._word = f"{NAME}={word}".encode()

    def running(self) -> set[int]:
        """All that run now, whoever's they are; none where there is no /proc."""
        return {int(name) for name in os.listdir(PROC) if name.isdecimal()} if PROC.is_dir() else set()

    def of_ours(self, before: set[int]) -> dict[int, str]:
        """Those of ours that did not run before, by number: their command lines."""
        found = {}
        for pid in self.running() - before - {os.getpid()}:
            with suppress(OSError):  # it ended meanwhile
                words = (PROC / str(pid) / "environ").read_bytes().split(b"\0")  # empty if it has ended
                command = (PROC / str(pid) / "cmdline").read_bytes()
                if any(word.startswith(self._word) for word in words) and LASTING not in command:
                    found[pid] = command.replace(b"\0", b" ").decode(errors="replace")[:200]
        return found

    def end(self, before: set[int], wait_s: float = WAIT_S) -> list[str]:
        """Give them a moment, then end those of ours that did not run before; says which they were."""
        until, left = time.monotonic() + wait_s, self.of_ours(before)
        while left and time.monotonic() < until:
            time.sleep(0.02)
            left = self.of_ours(before)
        said: dict[int, str] = {}
        while left and len(said) < 50:  # what watches over others starts them again until it is ended itself
            said |= left
            for pid in left:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
            left = self.of_ours(before)
        return list(said.values())
