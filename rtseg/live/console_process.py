"""The console beside a feed: a process of its own, whose death does not touch the feed. It is started again.

It is `rtseg console`, a subscriber and a control client of the feed like any other; it says the address of its page.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from ..base.errors import ConfigError, OutputError
from ..base.types import now_ns
from .profile import StreamProfile
from .state import FeedState
from .worker_limits import back_off_s
from .workers.lifecycle import end_with_parent

log = logging.getLogger("rtseg.live")

NEEDS = ("starlette", "uvicorn", "websockets")
COMMAND = (sys.executable, "-m", "rtseg.live.console_process")
_POLL_S = 0.1
_END_S = 3.0  # how long it may take to end
_REFUSED = 2  # its exit code where it can never work, such as for a port in use
_LASTED_S = 10.0  # a process that worked so long and then died is started again at once


def is_installed() -> bool:
    """Whether the extra `console` is installed."""
    return all(importlib.util.find_spec(name) is not None for name in NEEDS)


def check_console(profile: StreamProfile) -> None:
    """`ConfigError` unless a console can be started beside a feed with this profile."""
    if not is_installed():
        raise ConfigError("--console: the page needs packages that are not installed: pip install 'rtseg[console]'")
    if profile.keys is not None and not _key(profile.keys).exists():
        folder = f"--folder {profile.keys}"
        make = f"run: rtseg keys new console {folder}; rtseg keys allow console {folder}"
        raise ConfigError(f"--console: {profile.keys} has no key for the console, which this feed asks for; {make}")


class ConsoleProcess:
    """Starts the console once the feed is published, and again when it dies; a context manager."""

    def __init__(self, state: FeedState, port: int, command: Sequence[str] = COMMAND) -> None:
        """`command` starts the process."""
        self._state, self._port, self._command = state, port, tuple(command)
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self._thread = threading.Thread(target=self._run, name="console", daemon=True)

    @property
    def pid(self) -> int | None:
        """The process that runs now, if any."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._state.endpoint:
            if self._over.wait(_POLL_S):
                return
        failures = 0
        while not self._over.wait(back_off_s(failures, random.random())):
            lasted_s = self._play()
            if self._over.is_set():
                return
            code = self._process.returncode if self._process is not None else None
            if code == _REFUSED:
                log.warning("console: ended, and is not started again: its last line says why; the feed goes on")
                return
            failures = 1 if lasted_s > _LASTED_S else failures + 1
            log.warning("console: ended (%s); it is started again; the feed goes on", code)

    def _play(self) -> float:
        """Run one process to its end, or to that of the feed; returns the seconds that it ran."""
        state = self._state
        words = [state.endpoint, "--control", state.control, "--bind", f"127.0.0.1:{self._port}"]
        if state.profile.keys is not None:
            words += ["--keys", str(_key(state.profile.keys))]
        try:
            self._process = subprocess.Popen(
                [*self._command, str(os.getpid()), *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # ours is for the report of the feed
                process_group=0,  # not in our group: Ctrl-C is for the feed, which ends it
            )
        except OSError as e:
            log.warning("console: cannot be started (%s)", e.strerror or e)
            return 0.0
        self.starts += 1
        start_ns = now_ns()
        while self._process.poll() is None and not self._over.wait(_POLL_S):
            pass
        self._end(self._process)
        return (now_ns() - start_ns) / 1e9

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_END_S)


def free_port(wanted: int = 8080) -> int:
    """The wanted port of the loopback address, or any other that is free."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise OutputError("no port of 127.0.0.1 is free; expected one for the console")


def _key(keys: Path) -> Path:
    return keys / "console.key_secret"


def main(feed: str, *words: str) -> None:
    """Be `rtseg console` until the feed's process ends, however it ends."""
    end_with_parent(int(feed), signal.SIGTERM)
    sys.argv = ["rtseg", "console", *words]
    runpy.run_module("rtseg", run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
