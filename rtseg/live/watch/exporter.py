"""The endpoint that Prometheus scrapes: a snapshot of the feed, taken for each request and never stored.

It runs on its own threads and listens on the loopback interface alone. Bad clients cost the feed nothing: connections
are few, the newest is served, and the rate of snapshots is limited.
"""

from __future__ import annotations

import io
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ...base.errors import OutputError
from .families import Snapshot, families

_MOST_CONNECTIONS = 8
_SILENT_S = 2.0  # a connection that sends nothing for so long is closed
_PERIOD_S = 0.05  # between two snapshots: bounds the cost of a flood of scrapes


class _FeedCollector(Collector):
    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        try:
            found = list(families(self._snapshot()))
        except Exception:  # a feed without a snapshot must not look like one that works
            found = []
        yield GaugeMetricFamily("rtseg_up", "1 if the feed could report its state.", float(bool(found)))
        yield from found


class _Handler(WSGIRequestHandler):
    timeout = _SILENT_S
    server: _Server

    def parse_request(self) -> bool:
        return super().parse_request() and self.server.wait_for_turn(self.connection)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: stderr is for the feed's own lines."""

    def get_stderr(self) -> io.StringIO:
        return io.StringIO()  # nor why a connection failed


class _Server(WSGIServer):
    """One thread for each connection; beyond the limit the oldest is closed, so that the newest is served."""

    request_queue_size = 64

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._open: dict[socket.socket, None] = {}  # oldest first
        self._lock, self._next_s = threading.Lock(), 0.0
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # Not WSGIServer's own: it asks the network for this machine's name, which may take long.
        socket.socket.setsockopt(self.socket, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) >= _MOST_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with suppress(OSError):  # it was closed by its client
                    oldest.shutdown(socket.SHUT_RDWR)
            self._open[request] = None
        threading.Thread(target=self._answer, args=(request, client_address), daemon=True).start()

    def wait_for_turn(self, request: socket.socket) -> bool:
        """Wait until a snapshot may be taken for this connection; False if it was cut off meanwhile."""
        while True:
            with self._lock:
                if request not in self._open:
                    return False
                if time.monotonic() >= self._next_s:
                    self._next_s = time.monotonic() + _PERIOD_S
                    return True
            time.sleep(_PERIOD_S / 5)

    def _answer(self, request: socket.socket, client_address: Any) -> None:
        with suppress(Exception):  # whatever the client sent, and however it disconnected
            self.finish_request(request, client_address)
        with self._lock:
            self._open.pop(request, None)
        self.shutdown_request(request)


class Endpoint:
    """A running endpoint, at `address` (HOST:PORT). A context manager."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        host = f"[{server.server_name}]" if ":" in server.server_name else server.server_name
        self.address = f"{host}:{server.server_port}"
        self._thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Free the port. May be called again."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def serve(bind: str, snapshot: Callable[[], Snapshot]) -> Endpoint:
    """Answer scrapes at `bind`, HOST:PORT on the loopback interface (port 0: a free one), with what `snapshot` returns.

    `snapshot` is called in other threads; `families.py` shows its possible keys. `OutputError` if the address is not of
    this form, or in use.
    """
    host, port = _checked(bind)
    try:
        server = _Server(host, port)
    except OSError as e:
        why = (e.strerror or str(e)).lower()
        raise OutputError(f"metrics address {bind}: {why}; expected a free port; choose another") from e
    registry = CollectorRegistry()
    registry.register(_FeedCollector(snapshot))
    server.set_app(make_wsgi_app(registry, disable_compression=True))
    return Endpoint(server)


def _checked(bind: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]/]+)):(\d{1,5})", bind, re.ASCII)
    if match is None or int(match[3]) > 65535:
        raise OutputError(f"metrics address {bind!r}: expected HOST:PORT like 127.0.0.1:9464; correct it")
    host = match[1] or match[2].replace("localhost", "127.0.0.1")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise OutputError(
            f"metrics address {bind}: not loopback, so anyone could read it; expected 127.0.0.1:PORT; use an SSH tunnel"
        )
    return host, int(match[3])
