"""The key of a socket that connects, and why a publisher refuses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import zmq

from .files import client_pair, server_public

_FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_MAX_BROKEN = 3  # failed handshakes in a row that count as a refusal; a publisher that is closing causes a few


def present(socket: zmq.Socket[bytes], keys: Path, server_key: str | Path | None = None) -> None:
    """Call before `connect`: use the key in `keys` (a folder, or a .key_secret file), only with this `server_key`."""
    public, secret = client_pair(Path(keys))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
    socket.setsockopt(zmq.CURVE_SERVERKEY, server_public(Path(keys), server_key))


class HandshakeMonitor:
    """Finds out why a connecting socket is refused. It belongs to the socket's thread; close it before the socket."""

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        self._socket, self._endpoint, self._broken = socket, endpoint, 0
        events = _FAILED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        self.socket: Any = socket.get_monitor_socket(events)
        self.refused: str | None = None  # why, in one line; None if this side is not refused
        self.connected = False

    def read(self) -> None:
        """Read the events that happened since the last call."""
        while self.socket.poll(0):
            from zmq.utils.monitor import recv_monitor_message  # brings asyncio: 20 ms, which a publisher does without

            event = recv_monitor_message(self.socket)["event"]
            self.connected = event == zmq.EVENT_HANDSHAKE_SUCCEEDED
            if event == zmq.EVENT_DISCONNECTED:
                continue
            self._broken = self._broken + 1 if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL else 0
            self.refused = self._why(event)

    def close(self) -> None:
        self._socket.disable_monitor()
        self.socket.close(linger=0)

    def _why(self, event: int) -> str | None:
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return f"{self._endpoint}: this key is not on the allow list there; there, run: rtseg keys allow NAME.key"
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL or self._broken >= _MAX_BROKEN:
            expected = "expected keys on both sides or on neither, and the server's own public key"
            return f"{self._endpoint}: no handshake; {expected}; check --keys and --server-key"
        return None
