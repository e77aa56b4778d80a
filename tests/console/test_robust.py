"""The console under load, floods and signals: nobody delays anybody, nothing grows, and it ends in order."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from .publishing import Page, PlainFeed, console, plain_feed


@contextmanager
def process(feed: PlainFeed, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`rtseg console` as its own process, and its address."""
    where = feed.address
    words = ["console", where.publish, "--control", str(where.control), "--bind", f"127.0.0.1:{port}"]
    running = subprocess.Popen([sys.executable, "-m", "rtseg", *words], stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    up = threading.Event()

    def read() -> None:
        assert running.stderr is not None
        for line in running.stderr:
            lines.append(line)
            up.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        assert up.wait(30)
        yield running, lines[0].split()[-1] if "open http" in lines[0] else lines[0]
    finally:
        if running.poll() is None:
            running.kill()
        running.wait()


def _open(address: str) -> Page:
    page = Page(connect(address.replace("http", "ws", 1) + "/ws", max_size=None, compression=None))
    page.say(type="hello")
    return page


@pytest.mark.slow
def test_a_viewer_that_does_not_read_delays_nobody_and_holds_little():
    """Large pictures of noise, so that a socket's buffers are full after a few of them."""
    with plain_feed(fps=25, size=(720, 1280)) as feed, process(feed) as (running, address):
        with _open(address) as page:
            alone = _ages(page, 20)
            stuck = []
            for _ in range(6):
                idle = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])))
                idle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                stuck.append(_shake_hands(idle, address))
            time.sleep(0.5)
            before = psutil.Process(running.pid).memory_info().rss
            beside = _ages(page, 40)
            after = psutil.Process(running.pid).memory_info().rss
            for idle in stuck:
                idle.close()
        # A picture of noise has 1.5 MB: a queue would hold 6 viewers x 40 pictures of these.
        assert after - before < 60e6
        assert sorted(beside)[20] < 4 * sorted(alone)[10] + 20


def _ages(page: Page, count: int) -> list[float]:
    return [page.hear("picture", paint=True)["captured_age_ms"] for _ in range(count)]


def _shake_hands(idle: socket.socket, address: str) -> socket.socket:
    """A WebSocket that says hello, acknowledges pictures that it never reads, and reads nothing."""
    host = address.partition("//")[2]
    idle.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    for message in ({"type": "hello"},):
        idle.sendall(_frame(json.dumps(message).encode()))
    return idle


def _frame(payload: bytes, opcode: int = 1) -> bytes:
    assert len(payload) < 126
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + b"\0\0\0\0" + payload  # masked with zeros


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order_with_pages_open(number):
    with plain_feed() as feed, process(feed) as (running, address):
        with _open(address) as page:
            page.hear("picture")
            feed.mute = True
            page.order(1, "reset")  # is under way, and never answered
            running.send_signal(number)
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    page.hear()
            assert closed.value.rcvd is None or closed.value.rcvd.code in (1001, 1012)
        assert running.wait(20) == 0


def test_a_killed_console_comes_back_on_the_same_port_and_the_feed_does_not_notice():
    with plain_feed() as feed:
        port = 0
        for _ in range(3):
            with process(feed, port) as (running, address):
                port = int(address.rpartition(":")[2])
                with _open(address) as page:
                    picture, seq = page.hear("picture"), feed.seq
                    assert picture["seq"] <= seq
                    running.kill()
                    with pytest.raises(ConnectionClosed):
                        while True:
                            page.hear()
        while feed.seq < seq + 10:
            time.sleep(0.01)


def test_an_order_under_way_when_the_console_is_killed_is_done_once():
    with plain_feed() as feed:
        feed.delay_s, name = 0.3, feed.address.publish.rpartition("/")[2]
        order = {"type": "order", "client": "page", "n": 1, "feed": name, "verb": "undo", "args": {}}
        with process(feed) as (running, address), _open(address) as page:
            page.say(**order)
            end = time.monotonic() + 20
            while not (feed.busy or feed.done):  # the feed has it, and has not answered
                assert time.monotonic() < end
                time.sleep(0.005)
            running.kill()
        with process(feed) as (running, address), _open(address) as page:
            page.say(**order)  # the page gives it again
            assert page.hear("answer", n=1)["ok"]
            assert feed.done == ["undo"]
            page.say(**order | {"n": 2})  # negative control: another order
            assert page.hear("answer", n=2)["ok"]
            assert feed.done == ["undo", "undo"]


def test_a_port_in_use_costs_one_line():
    with plain_feed() as feed, console(feed) as running:
        port = int(running.address.rpartition(":")[2])
        with process(feed, port) as (second, line):
            assert second.wait(20) == 2
            assert f"127.0.0.1:{port}" in line


def test_a_feed_that_is_gone_is_silent_at_once_and_its_orders_are_stated_not_done():
    with plain_feed() as feed, console(feed) as running, running.open() as page:
        assert page.hear("status", link="up")
        feed.publisher.close()
        last = page.hear("status", link="silent")
        assert last["age_ms"] < 1400 and last["status"]["state"] == "running"  # before the silence alone would tell
        assert page.hear("status", link="silent")["age_ms"] > last["age_ms"]
        running.links[0]._client._timeout = 0.3
        feed.mute = True
        page.order(1, "reset")
        assert "no answer" in page.hear("answer")["error"]


def test_a_feed_that_hangs_is_silent(monkeypatch):
    monkeypatch.setattr("rtseg.console.feed._SILENT_MS", 300.0)
    with plain_feed() as feed, console(feed) as running, running.open() as page:
        assert page.hear("status", link="up")
        feed._stop.set()  # its publisher goes on, and repeats the last status
        assert page.hear("status", link="silent")["age_ms"] > 300
        assert running.links[0]._news.connected


# Nonsense.

_ATOMS: list[Any] = [
    None, True, 0, -1, 1e308, 2**70, "", "x" * 300, "\0", "\ud800", "feed1", "reset", [], {}, [[]], {"a": {"b": []}},
    "hello", "painted", "order", "ping", {"rle": "x", "height": 10**9, "width": 1}, [[1, 2, 1]] * 80,
]  # fmt: skip
_KEYS = ["type", "feed", "seq", "session", "verb", "args", "n", "client", "t", "token", "feeds", "width", "prompt"]


def _nonsense(rng: random.Random) -> bytes:
    """Bytes, broken JSON, or messages with wrong keys and values."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    message = {rng.choice(_KEYS): rng.choice(_ATOMS) for _ in range(rng.randrange(8))}
    message["type"] = rng.choice(["hello", "painted", "order", "ping", rng.choice(_ATOMS)])
    found = json.dumps(message).encode()
    return found[: rng.randrange(len(found))] if kind == 1 else found


def _wrong_order(rng: random.Random, feed: str) -> bytes:
    """A whole message whose arguments are nonsense."""
    verbs = ["add", "correct", "rename", "look", "set", "preview", "snapshot", "seek", "\0", "memory"]
    prompt = {rng.choice(["id", "points", "box", "mask", "label"]): rng.choice(_ATOMS) for _ in range(3)}
    message: dict[str, Any] = {"type": "order", "n": rng.randrange(1, 99), "client": "f", "feed": feed}
    message |= {"verb": rng.choice(verbs), "args": {"prompt": prompt, rng.choice(_KEYS): rng.choice(_ATOMS)}}
    if rng.random() < 0.3:
        message = {"type": "painted", "feed": rng.choice(["", feed]), "seq": rng.randrange(99), "session": "s1"}
    return json.dumps(message).encode()


def _by_websocket(address: str, rng: random.Random, count: int) -> None:
    """Send nonsense; what is broken ends a connection, and another is opened."""
    sent, url = 0, address.replace("http", "ws", 1) + "/ws"
    feed = _name_of_feed(address)
    while sent < count:
        try:
            with connect(url, max_size=None, max_queue=None) as page:  # else it reads no end
                if rng.random() < 0.9:
                    page.send('{"type":"hello"}')
                for number in range(20):
                    message = _wrong_order(rng, feed) if number < 19 else _nonsense(rng)
                    sent += 1
                    page.send(message.decode("utf-8", "replace") if rng.random() < 0.98 else message)
        except (ConnectionClosed, OSError, TimeoutError):
            pass
        except InvalidHandshake:  # too many at once
            time.sleep(0.05)


def _name_of_feed(address: str) -> str:
    while "feeds" not in (found := httpx.get(f"{address}/api/feeds").json()):
        time.sleep(0.1)  # too many requests at once
    return str(found["feeds"][0]["feed"])


def _by_http(address: str, rng: random.Random, count: int) -> None:
    paths = ["/api/feeds", "/api/feeds/feed1", "/api/feeds/feed1/snapshot", "/api/feeds/feed1/orders", "/ws", "/"]
    with httpx.Client() as client:
        for _ in range(count):
            path = rng.choice(paths) if rng.random() < 0.8 else "/" + rng.randbytes(9).hex()
            query = rng.choice(["", "?format=png", "?format=\0&masks=2", "?seq=-1", "?seq=" + "9" * 400])
            headers = {"Content-Type": "application/json"} if rng.random() < 0.8 else {"Origin": "http://x"}
            with suppress(httpx.HTTPError, httpx.InvalidURL):
                found = client.request(
                    rng.choice(["GET", "POST", "PUT", "HEAD", "OPTIONS"]),
                    address + path + query,
                    content=_nonsense(rng),
                    headers=headers,
                )
                assert found.status_code < 500, (path, found.text)


def _raw(address: str, rng: random.Random, count: int) -> None:
    """Bytes that are no HTTP, and WebSocket frames that break its rules."""
    host, _, port = address.partition("//")[2].rpartition(":")
    for _ in range(count):
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as raw:
            if rng.random() < 0.5:
                _shake_hands(raw, address)
                raw.sendall(bytes([rng.randrange(256), rng.randrange(256)]) + rng.randbytes(rng.randrange(300)))
            else:
                raw.sendall(rng.randbytes(rng.randrange(1, 300)) + b"\r\n\r\n")
            raw.settimeout(0.005)
            with suppress(OSError):
                raw.recv(1 << 16)


def _fuzz(messages: int) -> None:
    with plain_feed() as feed, process(feed) as (running, address):
        rng = random.Random(7)
        memory = psutil.Process(running.pid)

        def storm(count: int) -> int:
            _by_websocket(address, rng, round(0.7 * count))
            _by_http(address, rng, round(0.2 * count))
            _raw(address, rng, round(0.1 * count))
            return int(memory.memory_info().rss)

        first = storm(messages // 2)
        second = storm(messages - messages // 2)
        assert running.poll() is None
        assert second - first < 0.1 * first + 4e6, (first, second)
        assert len(memory.net_connections()) < 40
        while "refused" not in (counts := httpx.get(f"{address}/api/feeds").json()):
            time.sleep(0.1)  # the limit on requests forgets
        counts = counts["refused"]
        time.sleep(1.0)
        assert counts["malformed"] >= messages / 100
        with _open(address) as page:
            assert page.hear("picture")
        os.kill(running.pid, signal.SIGTERM)
        assert running.wait(20) == 0


def test_nonsense_does_no_harm():
    _fuzz(150)


@pytest.mark.slow
def test_much_nonsense_does_no_harm():
    _fuzz(10_000)
