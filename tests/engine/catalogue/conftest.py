"""A server on this machine that does what servers, and proxies, do wrong; and weights that it publishes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rtseg.engine.catalogue import Entry, Licence, download, failure, table

WHOLE = b"PK" + bytes(range(256)) * 8192  # 2 MiB, that begins like a file of torch
SHA256 = hashlib.sha256(WHOLE).hexdigest()


@dataclass
class Server:
    """What it was asked, and how it behaves. `address(path)` is that of a file on it."""

    port: int = 0
    asked: list[tuple[str, str | None]] = field(default_factory=list)  # path, and Range
    content: bytes = WHOLE
    tag: str = '"one"'
    cut: int = 0  # bytes after which a connection breaks
    failing: int = 0  # answers that are yet to be a 503
    ended: threading.Event = field(default_factory=threading.Event)
    http: ThreadingHTTPServer | None = None

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"


class _Handler(BaseHTTPRequestHandler):
    server_ref: Server

    def log_message(self, *args: object) -> None:
        """Silent."""

    def do_CONNECT(self) -> None:
        self.send_error(407, "Proxy Authentication Required")

    def do_GET(self) -> None:
        path = self.path.rpartition("/")[2]
        self.server_ref.asked.append((self.path, self.headers.get("Range")))
        if self.path.startswith("http://"):  # it is asked as a proxy
            self.send_error(407, "Proxy Authentication Required")
        elif path.isdigit():
            self.send_error(int(path))
        elif path == "moved":
            self.send_response(302)
            self.send_header("Location", "/ranges")
            self.end_headers()
        elif path == "page":
            self._send(b"<html>please log in</html>", kind="text/html")
        elif self.server_ref.failing:
            self.server_ref.failing -= 1
            self.send_error(503)
        else:
            self._file(path)

    def _file(self, path: str) -> None:
        server, data, headers = self.server_ref, self.server_ref.content, {}
        asked = self.headers.get("Range")
        if "ranges" in path:
            if "untagged" not in path:
                headers["ETag"] = server.tag
            same = "stubborn" in path or self.headers.get("If-Range", server.tag) == server.tag
            if asked and same:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(data):
                    return self.send_error(416)
                wrong = 7 * ("wrong" in path)
                headers["Content-Range"] = f"bytes {start + wrong}-{len(data) - 1}/{len(data)}"
                data = data[start:]
        if "liar" in path:
            headers["Content-Length"] = str(len(data) + 1000)
        if "unsized" in path:
            headers["Content-Length"] = ""
        self._send(data, headers, cut=server.cut if "cut" in path else 0, stall="stall" in path)
        return None

    def _send(
        self, data: bytes, headers: dict[str, str] | None = None, kind: str = "application/octet-stream", cut: int = 0,
        stall: bool = False,
    ) -> None:  # fmt: skip
        headers = {"Content-Length": str(len(data)), "Content-Type": kind, **(headers or {})}
        self.send_response(206 if "Content-Range" in headers else 200)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if stall:
            self.wfile.write(data[:1000])
            self.wfile.flush()
            self.server_ref.ended.wait()
            self.wfile.write(data[1000:])
        else:
            self.wfile.write(data[: cut or len(data)])


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: object) -> None:
        """A client that has gone is no news."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    handler = type("Handler", (_Handler,), {"server_ref": made})
    with _Quiet(("127.0.0.1", 0), handler) as http:
        made.http, made.port = http, http.server_address[1]
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.ended.set()
        http.shutdown()
        thread.join()


@dataclass
class Shelf:
    """A table of published weights in place of the package's, and a cache of its own."""

    folder: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    licences: dict[str, Licence] = field(
        default_factory=lambda: {
            "free": Licence("free to use", "https://x/free"),
            "strict": Licence("for research only", "https://x/strict", accept=True),
        }
    )

    def add(self, name: str, *addresses: str, known: bool = True, licence: str = "free", **keys: object) -> Entry:
        """Weights that are published at these addresses; `known`: with their size and hash."""
        values = {"bytes": len(WHOLE), "sha256": SHA256} if known else {}
        self.entries[name] = Entry(name, "nano", 320, licence, "a paper", addresses, **{**values, **keys})  # type: ignore[arg-type]
        return self.entries[name]

    @property
    def files(self) -> list[str]:
        """The names of all files in the cache but the lock, which stays."""
        return sorted(path.name for path in self.folder.glob("*") if not path.name.endswith(".lock"))


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    made = Shelf(tmp_path / "cache" / "weights")
    monkeypatch.setenv("RTSEG_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "RTSEG_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(table, "_read", lambda path: table.Table(made.entries, made.licences))
    monkeypatch.setattr(download, "WAIT_S", 0.0)
    for module in (download, failure):
        monkeypatch.setattr(module, "STALL_S", 0.3)
    return made
