"""The allow list: a socket accepts only clients whose CURVE keys are listed.

By default, ZeroMQ accepts every CURVE client if there is no ZAP handler. So the ZAP domain is enforced: without a
handler, no client is accepted.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import zmq
from zmq.utils import z85

from ...base.errors import ConfigError, OutputError
from .files import allowed_keys, server_pair

_HANDLER = "inproc://zeromq.zap.01"  # where libzmq sends ZAP requests; one handler for each context
_VERSION = b"1.0"


def secure(context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], folder: Path) -> None:
    """Call before `bind`: only clients on the folder's allow list may connect, and everything is encrypted.

    Starts the context's ZAP handler, which ends with the context. `ConfigError` if the folder cannot be used.
    """
    _, secret = server_pair(folder)
    domain = os.fsencode(folder.resolve())
    if len(domain) > 255:
        raise ConfigError(f"{folder}: a path of {len(domain)} bytes; expected at most 255; move the keys")
    # A shadow context, because the handler belongs to its own thread: `context.destroy()` would close it there and
    # abort.
    shadow: zmq.Context[zmq.Socket[bytes]] = zmq.Context.shadow(context)
    handler = shadow.socket(zmq.REP)
    try:
        handler.bind(_HANDLER)
    except zmq.ZMQError as e:
        handler.close(linger=0)
        if e.errno != zmq.EADDRINUSE:  # in use: another socket of this context started the handler
            raise OutputError(f"keys: the allow list cannot be served ({e}); every client would be refused") from e
    else:
        threading.Thread(target=_serve, args=(handler,), name="allow-list", daemon=True).start()
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
    socket.setsockopt(zmq.ZAP_DOMAIN, domain)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def _serve(handler: zmq.Socket[bytes]) -> None:
    while True:
        try:
            handler.send_multipart(_answer(handler.recv_multipart()))
        except zmq.ContextTerminated:
            handler.close(linger=0)
            return
        except Exception:  # refuse this client, and continue with the next
            continue


def _answer(request: list[bytes]) -> list[bytes]:
    """The ZAP reply for one client.

    The domain is the folder's path, so one handler serves sockets with different lists. The client's user id is
    its public key, not its name: a name may belong to another key later.
    """
    request_id = request[1] if len(request) > 1 else b""
    refusal = [_VERSION, request_id, b"400", b"not on the allow list", b"", b""]
    if len(request) != 7 or request[0] != _VERSION or request[5] != b"CURVE":
        return refusal
    try:
        public = z85.encode(request[6])
        allowed = public in allowed_keys(Path(os.fsdecode(request[2])), broken_too=False)
    except Exception:  # the folder is gone, or others may change it
        return refusal
    return [_VERSION, request_id, b"200", b"OK", public, b""] if allowed else refusal


def user_of(part: zmq.Frame) -> str | None:
    """The public key of the sender of a message, from one of its parts; None if no keys are used."""
    try:
        return str(part.get("User-Id"))
    except zmq.ZMQError:
        return None
