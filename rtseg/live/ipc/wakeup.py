"""A wake-up from one process or thread to another: an event in a file descriptor, which `poll` can wait for."""

from __future__ import annotations

import os
from contextlib import suppress


class WakeUp:
    """An event that wakes one reader. `fd` is its eventfd, which child processes may inherit."""

    def __init__(self, fd: int | None = None) -> None:
        """Use the eventfd `fd`, or make a new one."""
        self.fd = os.eventfd(0, os.EFD_NONBLOCK) if fd is None else fd

    def fileno(self) -> int:
        return self.fd

    def set(self) -> None:
        """Wake the reader."""
        with suppress(BlockingIOError):  # only after 2 ** 64 wake-ups without a `clear`
            os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Discard all wake-ups so far."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.fd)
