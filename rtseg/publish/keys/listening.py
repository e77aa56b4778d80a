"""Binds sockets: to loopback and private files without keys, to any other address only with an allow list."""

from __future__ import annotations

import errno
import os
import socket as sockets
import stat
import threading
from contextlib import suppress
from pathlib import Path

import zmq

from ...base.errors import ConfigError, OutputError
from .allow_list import secure
from .bind_address import bind_mistake, split_bind
from .files import server_pair

_MAX_PATH = 107  # bytes of the longest path of a Unix socket
_umask = threading.Lock()


def check_bind(bind: str, keys: Path | None = None) -> str:
    """The address in ZeroMQ's form; `OutputError` if strangers could connect to it.

    Allowed: tcp on loopback; ipc:// and a path, which gets mode 600; with a folder of keys any tcp address. An abstract
    ipc name (`ipc://@...`) has no owner and no mode, so it is refused.
    """
    if keys is not None:
        try:
            server_pair(keys)
        except ConfigError as e:
            raise OutputError(f"bind address {bind}: {e}") from e
    mistake = bind_mistake(bind, keys is not None)
    if mistake is not None:
        raise OutputError(f"bind address {bind!r}: {mistake}")
    parts = split_bind(bind)
    if parts is None:
        return _checked_path(bind)
    return f"tcp://[{parts.host}]:{parts.port}" if parts.v6 else f"tcp://{parts.host}:{parts.port}"


def listen(context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], bind: str, keys: Path | None) -> str:
    """Bind a socket to an address that `check_bind` allows, with the allow list if there are keys.

    Returns its endpoint. `OutputError` if that fails; the caller closes the socket.
    """
    address = check_bind(bind, keys)
    if keys is not None:
        secure(context, socket, keys)
    socket.setsockopt(zmq.IPV6, "[" in address)
    try:
        if address.startswith("ipc://"):
            _bind_path(socket, address)
        else:
            socket.bind(address)
    except zmq.ZMQError as e:
        taken = "the port is in use; expected a free port"
        why = taken if e.errno == zmq.EADDRINUSE else f"{str(e).lower()}; expected an address of this machine"
        raise OutputError(f"bind address {bind}: {why}; stop its owner or choose another") from e
    return socket.getsockopt_string(zmq.LAST_ENDPOINT)


def release(endpoint: str) -> None:
    """Remove the file of an ipc endpoint, which ZeroMQ leaves. Call it before the socket is closed."""
    if endpoint.startswith("ipc://"):
        with suppress(OSError):
            Path(endpoint.removeprefix("ipc://")).unlink()


def _checked_path(bind: str) -> str:
    name = bind.removeprefix("ipc://")
    if len(os.fsencode(name)) > _MAX_PATH:
        raise OutputError(f"bind address {bind}: a path of over {_MAX_PATH} bytes; expected a shorter one")
    path = Path(name)
    if not path.parent.is_dir():
        raise OutputError(f"bind address {bind}: no folder {path.parent}; expected an existing folder; create it")
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OutputError(f"bind address {bind}: {path} is another kind of file; expected a free name")
        if _is_alive(path):
            raise OutputError(f"bind address {bind}: is in use; expected a free name; stop its owner or choose another")
    return bind


def _is_alive(path: Path) -> bool:
    """Whether a process listens at a socket file. ZeroMQ does not check, and would replace the file."""
    with sockets.socket(sockets.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(os.fspath(path)) != errno.ECONNREFUSED


def _bind_path(socket: zmq.Socket[bytes], address: str) -> None:
    """Bind so that the file has mode 600 from the start: with a later chmod, others could connect in between."""
    with _umask:
        before = os.umask(0o177)
        try:
            socket.bind(address)
        finally:
            os.umask(before)
