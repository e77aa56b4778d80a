"""Where a socket may listen: loopback and private files for all, any other address only behind an allow-list."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket as sockets
import stat
import threading
from contextlib import suppress
from pathlib import Path

import zmq

from ..errors import ConfigError, OutputError
from .files import server_pair
from .gate import secure

_MAX_PATH = 107  # of a Unix socket's address, in bytes
_umask = threading.Lock()


def check_bind(bind: str, keys: Path | None = None) -> str:
    """The address as ZeroMQ takes it; `OutputError` unless it is one where nobody listens uninvited.

    That is tcp on loopback, or ipc:// and a path, which gets mode 600; with a folder of keys any tcp address. An
    abstract ipc name (`ipc://@...`) has no owner and no mode, so it is refused.
    """
    if keys is not None:
        try:
            server_pair(keys)
        except ConfigError as e:
            raise OutputError(f"bind address {bind}: {e}") from e
    if bind.startswith("ipc://"):
        return _checked_path(bind)
    match = re.fullmatch(r"tcp://(\[(?P<v6>[^\]]+)\]|(?P<v4>[^:\[\]]+)):(?P<port>\*|\d{1,5})", bind)
    if match is None or (match["port"] != "*" and int(match["port"]) > 65535):
        raise OutputError(f"bind address {bind!r}: expected tcp://127.0.0.1:PORT or ipc:///PATH; correct it")
    host = match["v6"] or match["v4"].replace("localhost", "127.0.0.1")
    try:
        loopback: bool | None = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False if host == "*" else None
    if not loopback and keys is None:
        raise OutputError(
            f"bind address {bind}: not loopback, so anyone could watch; expected tcp://127.0.0.1:PORT, or CURVE keys "
            "with an allow-list; run: rtseg keys new server, and name the folder as keys under [security]"
        )
    if loopback is None:
        raise OutputError(f"bind address {bind}: {host!r:.60} is no IP address; expected one; correct it")
    port = "*" if match["port"] == "0" else match["port"]
    return f"tcp://[{host}]:{port}" if match["v6"] else f"tcp://{host}:{port}"


def listen(context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], bind: str, keys: Path | None) -> str:
    """Bind a socket where `check_bind` lets it, behind the allow-list if there are keys; returns its endpoint.

    `OutputError` in one line if that cannot be; the socket is the caller's to close.
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
    """Remove the file of an ipc endpoint: ZeroMQ leaves it. Before the socket is closed, while it is still ours."""
    if endpoint.startswith("ipc://"):
        with suppress(OSError):
            Path(endpoint.removeprefix("ipc://")).unlink()


def _checked_path(bind: str) -> str:
    name = bind.removeprefix("ipc://")
    if name.startswith(("@", "*")) or not name or "\0" in name:
        raise OutputError(f"bind address {bind!r}: no file, so no file mode keeps others out; expected ipc:///PATH")
    if len(os.fsencode(name)) > _MAX_PATH:
        raise OutputError(f"bind address {bind}: a path of over {_MAX_PATH} bytes; expected a shorter one")
    path = Path(name)
    if not path.parent.is_dir():
        raise OutputError(f"bind address {bind}: no folder {path.parent}; expected one that is there; make it")
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OutputError(f"bind address {bind}: {path} is another kind of file; expected a free name")
        if _is_alive(path):
            raise OutputError(f"bind address {bind}: is in use; expected a free name; stop its owner or choose another")
    return bind


def _is_alive(path: Path) -> bool:
    """Whether somebody listens at a socket file. ZeroMQ does not ask: it takes the name from its owner."""
    with sockets.socket(sockets.AF_UNIX) as probe:
        probe.setblocking(False)
        return probe.connect_ex(os.fspath(path)) != errno.ECONNREFUSED


def _bind_path(socket: zmq.Socket[bytes], address: str) -> None:
    """The file has mode 600 from the start: with a chmod after it, there would be a moment for others to connect."""
    with _umask:
        before = os.umask(0o177)
        try:
            socket.bind(address)
        finally:
            os.umask(before)
