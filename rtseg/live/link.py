"""What the supervisor and one of its processes say to each other: small messages that neither ever waits to send.

A pair of connected sockets (SEQPACKET: a message arrives whole, or not at all; the end of either process shows as the
end of the link). A message is a msgpack map with the key `say`; it may carry a file descriptor.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

import msgpack

_MOST_BYTES = 1 << 12  # what is longer goes in a memfd of its own: so there is room for hundreds
_ROOM = 1 << 20
Said = tuple[dict[str, Any], list[int]]


class Link:
    """One end. `gone` is set once the other end is seen to be gone, `closed` when all that it said was received."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
        self.closed = self.gone = False

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, say: str, fds: tuple[int, ...] = (), **facts: Any) -> bool:
        """Send; False if the other end is gone, or has not read for so long that there is no room."""
        packed = msgpack.packb({"say": say, **facts}, use_bin_type=True)
        long = -1
        if len(packed) > _MOST_BYTES:
            long = os.memfd_create("rtseg-message")
            os.pwrite(long, packed, 0)
            packed, fds = msgpack.packb({"say": "long", "size": len(packed)}), (*fds, long)
        try:
            socket.send_fds(self._socket, [packed], fds)
        except BlockingIOError:
            return False
        except OSError:  # what the other end said before it went can still be received: that is where its end is seen
            self.gone = True
            return False
        finally:
            if long >= 0:
                os.close(long)
        return True

    def receive(self) -> list[Said]:
        """All messages that came, each with its descriptors, which are the receiver's to close."""
        said: list[Said] = []
        while not self.closed:
            try:
                packed, fds, _, _ = socket.recv_fds(self._socket, _MOST_BYTES + 1024, 4)
            except BlockingIOError:
                break
            except ConnectionResetError:  # it went without reading all that we said; first comes what it said itself
                continue
            except OSError:
                packed, fds = b"", []
            if not packed:
                self.closed = self.gone = True
                break
            facts = msgpack.unpackb(packed)
            if facts["say"] == "long":
                facts = msgpack.unpackb(os.pread(fds[-1], facts["size"], 0))
                os.close(fds.pop())
            said.append((facts, fds))
        return said

    def close(self) -> None:
        with suppress(OSError):
            self._socket.close()
        self.closed = self.gone = True
