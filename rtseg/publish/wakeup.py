"""A wake-up for a thread that polls. Any thread may send it, unlike a ZeroMQ socket, which belongs to one thread."""

from __future__ import annotations

import socket
from contextlib import suppress


class Wakeup:
    """`wake`, from any thread, makes `fileno` readable; `drain`, in the thread that polls, resets it."""

    def __init__(self) -> None:
        self._write_end, self._read_end = socket.socketpair()
        self._write_end.setblocking(False)
        self._read_end.setblocking(False)

    def fileno(self) -> int:
        return self._read_end.fileno()

    def wake(self) -> None:
        with suppress(OSError):  # full: a wake-up is pending already; closed: there is no thread to wake
            self._write_end.send(b"!")

    def drain(self) -> None:
        with suppress(BlockingIOError):
            while self._read_end.recv(4096):
                pass

    def close(self) -> None:
        self._write_end.close()
        self._read_end.close()
