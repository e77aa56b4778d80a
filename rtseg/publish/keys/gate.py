"""The door: a socket that lets in only who is on the allow-list, a socket that shows its key, and what became of it.

ZeroMQ's own rule is that CURVE without a ZAP handler lets everybody in. So the domain is enforced: where the handler
is missing, nobody comes in.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import zmq
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from ...base.errors import ConfigError, OutputError
from .files import allow_list, client_pair, server_pair, server_public

_HANDLER = "inproc://zeromq.zap.01"  # libzmq asks here; one handler for each context
_VERSION = b"1.0"
_FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_PATIENCE = 3  # handshakes that may break off without a reason: a publisher that is just ending does that too


def secure(context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], folder: Path) -> None:
    """Before `bind`: only clients whose keys are on the folder's allow-list get in, and all they get is encrypted.

    Starts the context's ZAP handler, which ends with the context. `ConfigError` if the folder will not do.
    """
    _, secret = server_pair(folder)
    domain = os.fsencode(folder.resolve())
    if len(domain) > 255:
        raise ConfigError(f"{folder}: a path of {len(domain)} bytes; expected at most 255; move the keys")
    # A shadow, for the handler belongs to its thread: `context.destroy()` would close it under its feet, and abort.
    shadow: zmq.Context[zmq.Socket[bytes]] = zmq.Context.shadow(context)
    handler = shadow.socket(zmq.REP)
    try:
        handler.bind(_HANDLER)
    except zmq.ZMQError as e:
        handler.close(linger=0)
        if e.errno != zmq.EADDRINUSE:  # in use: another socket of this context started it
            raise OutputError(f"keys: the allow-list cannot be watched ({e}); nobody would be let in") from e
    else:
        threading.Thread(target=_watch, args=(handler,), name="allow-list", daemon=True).start()
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
    socket.setsockopt(zmq.ZAP_DOMAIN, domain)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def _watch(handler: zmq.Socket[bytes]) -> None:
    while True:
        try:
            handler.send_multipart(_answer(handler.recv_multipart()))
        except zmq.ContextTerminated:
            handler.close(linger=0)
            return
        except Exception:  # the door stays shut for this one; the next one is asked for again
            continue


def _answer(asked: list[bytes]) -> list[bytes]:
    """Yes or no to one client. The domain is the folder's name, so one handler serves sockets with different lists.

    The client's user id is its public key: a name may stand for another key by tomorrow.
    """
    number = asked[1] if len(asked) > 1 else b""
    no = [_VERSION, number, b"400", b"not on the allow-list", b"", b""]
    if len(asked) != 7 or asked[0] != _VERSION or asked[5] != b"CURVE":
        return no
    try:
        public = z85.encode(asked[6])
        allowed = public in allow_list(Path(os.fsdecode(asked[2])), broken_too=False)
    except Exception:  # a folder that is gone, or that others may change
        return no
    return [_VERSION, number, b"200", b"OK", public, b""] if allowed else no


def user_of(part: zmq.Frame) -> str | None:
    """The public key of whoever sent a message, by one of its parts; None where no keys are needed."""
    try:
        return str(part.get("User-Id"))
    except zmq.ZMQError:
        return None


def present(socket: zmq.Socket[bytes], keys: Path, server_key: str | Path | None = None) -> None:
    """Before `connect`: show the key in `keys` (a folder, or a .key_secret), and only to the holder of `server_key`."""
    public, secret = client_pair(Path(keys))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
    socket.setsockopt(zmq.CURVE_SERVERKEY, server_public(Path(keys), server_key))


class Handshakes:
    """Why a socket that connects is not let in. Belongs to the thread of its socket; close it before that one."""

    def __init__(self, socket: zmq.Socket[bytes], endpoint: str) -> None:
        self._socket, self._endpoint, self._broken = socket, endpoint, 0
        self.socket: Any = socket.get_monitor_socket(_FAILED | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self.refused: str | None = None  # one line; None while nothing speaks against this side

    def read(self) -> None:
        """Take in what has happened."""
        while self.socket.poll(0):
            event = recv_monitor_message(self.socket)["event"]
            self._broken = self._broken + 1 if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL else 0
            self.refused = self._why(event)

    def close(self) -> None:
        self._socket.disable_monitor()
        self.socket.close(linger=0)

    def _why(self, event: int) -> str | None:
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return f"{self._endpoint}: this key is not on the allow-list there; there, run: rtseg keys allow NAME.key"
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL or self._broken >= _PATIENCE:
            expected = "expected keys on both sides or on neither, and the server's own public key"
            return f"{self._endpoint}: no handshake; {expected}; check --keys and --server-key"
        return None
