"""A bell between threads that fits into a poller: sockets of ZeroMQ belong to one thread, this one to all."""

from __future__ import annotations

import socket
from contextlib import suppress


class Wake:
    """`ring` from any thread makes `fileno` readable; `drain`, in the thread that polls, makes it quiet again."""

    def __init__(self) -> None:
        self._in, self._out = socket.socketpair()
        self._in.setblocking(False)
        self._out.setblocking(False)

    def fileno(self) -> int:
        return self._out.fileno()

    def ring(self) -> None:
        with suppress(OSError):  # full: a wake-up is under way already; or closed: there is nobody to wake
            self._in.send(b"!")

    def drain(self) -> None:
        with suppress(BlockingIOError):
            while self._out.recv(4096):
                pass

    def close(self) -> None:
        self._in.close()
        self._out.close()
