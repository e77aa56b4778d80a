"""A TCP relay that delays, stalls or cuts what passes through it: a bad network between a browser and its console."""

from __future__ import annotations

import queue
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Self

_CHUNK = 1 << 18
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER that sends RST instead of FIN


class Relay:
    """Listens on a free port of loopback, and passes every connection on to `port`; a context manager.

    Attributes:
        port: where it listens.
        delay_s: how long each byte waits here, in each direction; may be changed at any time.
        stalled: nothing passes, and nobody is told; what waits passes when it is False again.
    """

    def __init__(self, port: int, delay_s: float = 0.0) -> None:
        self.delay_s, self.stalled = delay_s, False
        self._upstream, self._refusing, self._over = port, False, False
        self._lock, self._open = threading.Lock(), set[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, refuse: bool = False) -> None:
        """Reset all connections. `refuse`: new ones are reset, too, until `mend`."""
        self._refusing = refuse
        with self._lock:
            found, self._open = self._open, set()
        for one in found:
            _reset(one)

    def mend(self) -> None:
        """Let new connections through again, and let go on what was stalled."""
        self._refusing = self.stalled = False

    def close(self) -> None:
        """End all connections. May be called again."""
        self._over = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut(refuse=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._over:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            while self.stalled and not self._over:  # a dead network takes no new connection either
                time.sleep(0.01)
            try:
                if self._refusing or self._over:
                    raise ConnectionRefusedError
                far = socket.create_connection(("127.0.0.1", self._upstream))
            except OSError:
                _reset(near)
                continue
            with self._lock:
                self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                waiting: queue.Queue[tuple[float, bytes]] = queue.Queue(64)
                threading.Thread(target=self._read, args=(source, waiting), daemon=True).start()
                threading.Thread(target=self._write, args=(sink, waiting), daemon=True).start()

    def _read(self, source: socket.socket, waiting: queue.Queue[tuple[float, bytes]]) -> None:
        found = b"x"
        while found:
            try:
                found = source.recv(_CHUNK)
            except OSError:
                found = b""
            waiting.put((time.monotonic() + self.delay_s, found))

    def _write(self, sink: socket.socket, waiting: queue.Queue[tuple[float, bytes]]) -> None:
        while True:
            due, found = waiting.get()
            time.sleep(max(0.0, due - time.monotonic()))
            while self.stalled and not self._over:
                time.sleep(0.01)
            try:
                if not found:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(found)
            except OSError:
                while found:  # so that the reader is never stuck
                    _, found = waiting.get()
                return


def _reset(one: socket.socket) -> None:
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with suppress(OSError):  # closing alone would wait for a reader
        one.shutdown(socket.SHUT_RD)
    one.close()
