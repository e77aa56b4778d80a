"""The link between the supervisor and one of its workers: small messages, and sending never waits.

It is a pair of connected sockets (SEQPACKET: a message arrives whole or not at all, and the end of either process shows
as the end of the link). A message may carry file descriptors.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any, NamedTuple

from .messages import Elsewhere, Message
from .packing import pack, unpack

_MOST_BYTES = 1 << 12  # a longer message goes through a memfd, so that the socket has room for hundreds
_BUFFER_BYTES = 1 << 20


class Received(NamedTuple):
    """A message with its descriptors, which the receiver has to close."""

    message: Any
    fds: list[int]


class Link:
    """One end of a link. `gone`: the other end is known to be closed; `closed`: its last message was received, too."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self.closed = self.gone = False

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """The two ends of a new link."""
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> bool:
        """Send a message. Returns False if the other end is gone, or does not read, so that the buffer is full."""
        packed = pack(message)
        memory = -1
        if len(packed) > _MOST_BYTES:
            memory = os.memfd_create("rtseg-message")
            os.pwrite(memory, packed, 0)
            packed, fds = pack(Elsewhere(len(packed))), (*fds, memory)
        try:
            socket.send_fds(self._socket, [packed], fds)
        except BlockingIOError:
            return False
        except OSError:  # the messages that the other end sent before can still be received
            self.gone = True
            return False
        finally:
            if memory >= 0:
                os.close(memory)
        return True

    def receive(self) -> list[Received]:
        """All messages that have come."""
        received: list[Received] = []
        while not self.closed:
            try:
                packed, fds, _, _ = socket.recv_fds(self._socket, _MOST_BYTES + 1024, 4)
            except BlockingIOError:
                break
            except ConnectionResetError:  # the other end left messages unread; those that it sent come first
                continue
            except OSError:
                packed, fds = b"", []
            if not packed:
                self.closed = self.gone = True
                break
            message = unpack(packed)
            if isinstance(message, Elsewhere):
                message = unpack(os.pread(fds[-1], message.size, 0))
                os.close(fds.pop())
            received.append(Received(message, fds))
        return received

    def close(self) -> None:
        with suppress(OSError):
            self._socket.close()
        self.closed = self.gone = True
