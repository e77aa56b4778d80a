"""Runs the console's web server until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from ..base.errors import ConfigError, OutputError
from .access import Hosts, Tokens, is_loopback
from .app import make_app
from .feed import Feed
from .hub import Hub
from .messages import MAX_BYTES
from .protocols import HttpProtocol, SocketProtocol

log = logging.getLogger("rtseg.console")
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CONNECTIONS = 256
_GOODBYE_S = 2  # for connections at the end


@dataclass(frozen=True, slots=True)
class Place:
    """Where the console listens, and who may come.

    Attributes:
        host: the address; only loopback without `tokens` and `cert`.
        port: 0 takes a free one.
        tokens: the token file.
        cert: the TLS certificate, PEM, with its chain.
        key: its private key.
        hosts: further names under which the console is called, such as a reverse proxy's.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    tokens: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    hosts: tuple[str, ...] = ()

    def check(self) -> None:
        """`ConfigError` if this would let in anybody."""
        if (self.cert is None) != (self.key is None):
            raise ConfigError("TLS: one file of two; expected both --tls-cert and --tls-key")
        if not is_loopback(self.host) and (self.tokens is None or self.cert is None):
            raise ConfigError(
                f"--bind {self.host}: others can reach it; expected --token, --tls-cert and --tls-key; or bind loopback"
                " behind a reverse proxy"
            )
        if self.hosts and self.tokens is None:
            raise ConfigError("--host: others can reach it through a proxy; expected --token FILE too")


def parse_bind(text: str) -> tuple[str, int]:
    """The host and port of `HOST:PORT`, `[HOST]:PORT` or `PORT`; `ConfigError` if it is something else."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"--bind {text!r:.60}: expected HOST:PORT like 127.0.0.1:8080")
    return host, int(port)


def serve(
    feeds: Sequence[Feed], place: Place, started: Callable[[str, Callable[[], None]], None] | None = None
) -> dict[str, Any]:
    """Serve the feeds until SIGINT, SIGTERM or SIGHUP, and return what happened.

    Arguments:
        feeds: the feeds and recordings.
        place: where, and for whom.
        started: is called with the page's address, and a function that ends the console, from any thread.

    Raises:
        ConfigError: the place would let in anybody, or a file of it is wrong.
        OutputError: the address cannot be bound.
    """
    place.check()
    tokens = Tokens(place.tokens)
    if place.cert is not None and place.key is not None:
        _check_tls(place.cert, place.key)
    hub = Hub(feeds, tokens, Hosts(place.host, place.hosts))
    with contextlib.closing(_bound(place.host, place.port)) as bound:
        host, port = bound.getsockname()[:2]
        scheme = "http" if place.cert is None else "https"
        address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        log.info("open %s", address)
        server = _Server(_config(hub, place))
        if started is not None:
            started(address, server.end)
        asyncio.run(server.serve(sockets=[bound]))
    return {"ok": True, "address": address, **hub.report()}


class _Server(uvicorn.Server):
    """A server that ends in order at each of `_ENDS`, and leaves the process's handlers as they were."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        main = threading.current_thread() is threading.main_thread()
        before = {number: signal.signal(number, self._end) for number in (_ENDS if main else ())}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def end(self) -> None:
        """End in order; from any thread."""
        self.should_exit = True

    def _end(self, *_: object) -> None:
        self.force_exit |= self.should_exit  # a second signal: at once
        self.should_exit = True


def _config(hub: Hub, place: Place) -> uvicorn.Config:
    return uvicorn.Config(
        make_app(hub),
        http=HttpProtocol,
        ws=SocketProtocol,
        ws_max_size=MAX_BYTES,
        ws_per_message_deflate=False,  # pictures do not shrink
        ws_ping_interval=5.0,
        ws_ping_timeout=10.0,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=_GOODBYE_S,
        ssl_certfile=None if place.cert is None else str(place.cert),
        ssl_keyfile=None if place.key is None else str(place.key),
    )


def _check_tls(cert: Path, key: Path) -> None:
    for file in (cert, key):
        if not file.is_file():
            raise ConfigError(f"{file}: no such file; expected a PEM file for TLS")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ValueError) as e:  # an SSLError is an OSError
        why = getattr(e, "reason", None) or getattr(e, "strerror", None) or str(e)
        raise ConfigError(
            f"{cert}, {key}: {str(why).lower()}; expected a certificate and its key without password, PEM"
        ) from e


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, kind)
    except OSError as e:
        raise OutputError(f"--bind {host}:{port}: {(e.strerror or str(e)).lower()}; expected an address") from e
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(128)
        found.setblocking(False)
    except OSError as e:
        found.close()
        why = (e.strerror or str(e)).lower()
        raise OutputError(f"--bind {host}:{port}: {why}; expected a free port; choose another") from e
    return found
