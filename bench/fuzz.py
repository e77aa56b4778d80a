"""Noise for every socket of a feed: random bytes, valid messages with bytes changed, msgpack that promises too much.

Each function sends `n` messages and asks something sensible in between, which has to be answered in time: an
`AssertionError` says where it was not. The same seed gives the same noise.
"""

from __future__ import annotations

import pickle
import random
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import msgpack
import numpy as np
import zmq

from rtseg.base.errors import OutputError
from rtseg.base.types import Frame, Prompt, now_ns
from rtseg.live.control import Add, Client, Correct, Get, Hold, Look, Memory, Preview, Rename, Set, Status
from rtseg.live.control.messages import pack_request
from rtseg.publish.keys import present
from rtseg.publish.overlay import draw_overlay
from rtseg.publish.subscriber import Subscriber
from rtseg.publish.wire import encode_overlay, encode_status, encode_video

CHECKS = 20  # sensible questions in between
ANSWER_S = 5.0  # and how long each may take


class _Danger:
    """What a pickle does to whoever loads it."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return _fail, ("a pickle was loaded",)


def _fail(text: str) -> None:
    raise SystemExit(text)


def bombs() -> list[bytes]:
    """Small messages that a careless reader takes for huge, deep or alive."""
    return [
        b"\x91" * 100_000, b"\x81\xa1a" * 50_000, b"\x81\xa1v" * 900 + b"\x01",  # deep
        b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",  # long
        (b"\xdd\x00\x00\x03\xff" * 20_000), b"\xc9\xff\xff\xff\xff\x01", b"\xc7\x05\x2ahello", b"\xd6\xff\0\0\0\0",
        msgpack.packb({"v": 1, "n": 2**64 - 1, "verb": "status", "args": {}}),
        msgpack.packb({"v": True, "n": -1, "verb": ["status"], "args": None}),
        msgpack.packb({"v": 1, "n": 1, "verb": "x" * 200_000}), msgpack.packb({1: 2, b"v": 1}),
        msgpack.packb({"v": 1, "n": 1, "verb": "add", "args": {"prompt": {"id": 1, "mask": "/etc/passwd"}}}),
        msgpack.packb({"v": 1, "n": 1, "verb": "add", "args": {"prompt": {"id": 1, "mask":
            {"rle": b"0" * 1000, "height": 16384, "width": 16384}}}}),
        msgpack.packb({"v": 1, "n": 1, "verb": "set", "args": {"opacity": float("nan")}}),
        pickle.dumps(_Danger()), pickle.dumps({"v": 1, "n": 1, "verb": "status"}, protocol=0), b"", b"\0",
    ]  # fmt: skip


def mutated(rng: random.Random, message: bytes) -> bytes:
    """A message with bytes changed, cut out, doubled, or cut off."""
    changed = bytearray(message)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0:
                changed[at : at + 1] = rng.randbytes(1)
            case 1:
                del changed[at : at + rng.randint(1, 8)]
            case 2:
                changed[at:at] = changed[at : at + rng.randint(1, 32)]
            case _:
                del changed[rng.randrange(len(changed) + 1) :]
    return bytes(changed)


def _requests() -> list[bytes]:
    mask_hw = np.zeros((48, 64), bool)
    mask_hw[8:40, 8:30] = True
    wanted = (
        Add(Prompt(250, ((10.0, 12.5, 1), (3.0, 4.0, 0)), (1.0, 2.0, 30.0, 40.0), label="noise"), 7),
        Correct(Prompt(250, mask=mask_hw)), Rename(250, "noise"), Set(0.5, 100.0), Get(), Status(),
        Preview(Prompt(250, box=(1.0, 2.0, 30.0, 40.0)), 7, "a session"), Look(250, (1, 2, 3), True), Hold(7), Memory(),
    )  # fmt: skip
    return [pack_request(number, request, "who" if number % 2 else None) for number, request in enumerate(wanted)]


def _noise(rng: random.Random, valid: list[bytes]) -> Iterator[bytes]:
    """Endless."""
    known = bombs()
    while True:
        match rng.randrange(8):
            case 0:
                yield rng.randbytes(rng.choice((0, 1, 5, 100, 3000)))
            case 1:
                yield rng.choice(known)
            case _:
                yield mutated(rng, rng.choice(valid))


def _port(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


def _shout(endpoint: str, message: bytes) -> None:
    """Bytes on a bare TCP connection, with no manners at all."""
    if endpoint.startswith("tcp://"):
        with suppress(OSError), socket.create_connection(("127.0.0.1", _port(endpoint)), timeout=1) as raw:
            raw.sendall(message[:4096])


def fuzz_control(endpoint: str, n: int, seed: int = 0, keys: Path | None = None) -> dict[str, float]:
    """Send `n` messages to a control socket that somebody serves; every status asked for in between is answered.

    Returns how many were sent, how many answers said no, how many said yes (a changed request may still be one), and
    the longest wait for a status. No message can be a shutdown or a reset.
    """
    rng = random.Random(seed)
    noise = _noise(rng, _requests())
    counts = {"sent": 0, "refused": 0, "done": 0, "checks": 0, "slowest_ms": 0.0}
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer, Client(endpoint, ANSWER_S, keys) as client:
        dealer.setsockopt(zmq.LINGER, 0)
        if keys is not None:
            present(dealer, keys)
        dealer.connect(endpoint)
        for number in range(n):
            message = next(noise)
            if number % 200 == 0:
                _shout(endpoint, message)
            if number % 5000 == 4999:
                message = bytes((1 << 20) + 1)  # too long: this connection is ended, and comes back
            parts = [message] if rng.random() < 0.9 else [rng.randbytes(3), message, b""][: rng.randint(1, 3)]
            _give(dealer, parts)
            counts["sent"] += 1
            _tally(dealer, counts)
            if number % max(1, n // CHECKS) == 0:
                start_ns = now_ns()
                client.status()  # an OutputError here means that noise kept a person from being heard
                counts["checks"] += 1
                counts["slowest_ms"] = max(counts["slowest_ms"], (now_ns() - start_ns) / 1e6)
        client.status()
        time.sleep(0.2)
        _tally(dealer, counts)
    return counts


def _give(dealer: zmq.Socket[bytes], parts: list[bytes]) -> None:
    """Send as fast as the other side reads; what it does not read within a second is noise that was not heard."""
    if dealer.poll(1000, zmq.POLLOUT):
        with suppress(zmq.Again):
            dealer.send_multipart(parts, zmq.NOBLOCK)


def _tally(dealer: zmq.Socket[bytes], counts: dict[str, float]) -> None:
    while dealer.poll(0):
        answer = msgpack.unpackb(dealer.recv_multipart()[-1])
        assert isinstance(answer, dict) and "\n" not in answer.get("error", ""), answer
        counts["done" if answer["ok"] else "refused"] += 1


def fuzz_wire(endpoint: str, n: int, seed: int = 0) -> dict[str, float]:
    """Send `n` messages of noise to a publisher without keys, and as many from a hostile publisher to a subscriber.

    The publisher's status has to come in between, and a good message has to get through to the subscriber.
    """
    return _fuzz_publisher(endpoint, n, seed) | _fuzz_subscriber(n, seed)


def talker(endpoint: str) -> socket.socket:
    """A connection that ZeroMQ (ZMTP 3.0, without security) takes for a subscriber, and that says what it likes."""
    if endpoint.startswith("ipc://"):
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(endpoint.removeprefix("ipc://"))
    else:
        raw = socket.create_connection(("127.0.0.1", _port(endpoint)))
    raw.settimeout(5)
    raw.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    _take(raw, 64)
    ready = b"\x05READY\x0bSocket-Type" + (3).to_bytes(4, "big") + b"SUB"
    raw.sendall(bytes([4, len(ready)]) + ready)
    _take(raw, _take(raw, 2)[1])
    return raw


def _take(raw: socket.socket, count: int) -> bytes:
    taken = b""
    while len(taken) < count:
        more = raw.recv(count - len(taken))
        if not more:
            raise ConnectionError("hung up on")
        taken += more
    return taken


def framed(message: bytes) -> bytes:
    return (bytes([0, len(message)]) if len(message) < 256 else b"\2" + len(message).to_bytes(8, "big")) + message


def _subscriptions(rng: random.Random, stream: str) -> Iterator[bytes]:
    """Endless: what a subscriber may say, of topics that are there and that are not, and what it may not."""
    topics = [f"{stream}/{kind}".encode() for kind in ("video", "overlay", "masks", "status")]
    while True:
        topic = rng.choice(topics)
        yield rng.choice((
            b"\0" + topic, b"\0", b"\1" + rng.randbytes(rng.choice((1, 60, 400))), b"\0" + rng.randbytes(20),
            b"\1" + topic[: rng.randint(0, len(topic))], rng.randbytes(rng.choice((0, 1, 8, 300))),
            *([] if rng.random() < 0.999 else [bytes(600)]),
        ))  # fmt: skip


def _babble(line: socket.socket, rng: random.Random, noise: Iterator[bytes], burst: int) -> None:
    """A burst of noise; half the time nothing more, and the answer awaited: the end of the line."""
    if rng.random() < 0.1:
        line.sendall(rng.randbytes(burst))
    else:
        line.sendall(b"".join(framed(next(noise)) for _ in range(burst)))
    if rng.random() < 0.5:
        line.shutdown(socket.SHUT_WR)
        while line.recv(65536):
            pass


def _fuzz_publisher(endpoint: str, n: int, seed: int) -> dict[str, float]:
    rng = random.Random(seed)
    counts = {"sent": 0, "statuses": 0, "connections": 0, "slowest_ms": 0.0}
    with Subscriber(endpoint, ["status"]) as watching:
        first = watching.get("status", ANSWER_S)
        assert first is not None, f"{endpoint}: no status, even before the noise"
        noise, last_ns = _subscriptions(rng, first.stream), now_ns()
        lines: deque[socket.socket] = deque()
        while counts["sent"] < n:
            counts["connections"] += 1
            burst = min(n - counts["sent"], rng.choice((1, 20, 500, 3000)))
            counts["sent"] += burst
            with suppress(OSError):  # being hung up on is right
                lines.append(talker(endpoint))
                _babble(lines[-1], rng, noise, burst)
            while len(lines) > rng.choice((0, 6)):  # some stay, and are thrown out; the others go as soon as heard
                lines.popleft().close()
            while (message := watching.get("status", 0)) is not None:
                waited_ms = (now_ns() - last_ns) / 1e6
                counts["slowest_ms"], last_ns = max(counts["slowest_ms"], waited_ms), now_ns()
                counts["statuses"] += message.status() is not None
            assert now_ns() - last_ns < ANSWER_S * 1e9, f"no status for {ANSWER_S} s after {counts['sent']} messages"
        for line in lines:
            line.close()
        assert watching.get("status", ANSWER_S) is not None, "no status after the noise"
    return {f"publisher_{key}": value for key, value in counts.items()}


def _fuzz_subscriber(n: int, seed: int) -> dict[str, float]:
    rng = random.Random(seed + 1)
    frame = Frame(np.zeros((24, 32, 3), np.uint8), 0, "fuzz", 0, Fraction(1, 25))
    good = [encode_video(frame, "demo"), encode_overlay(frame, draw_overlay(frame, None), "demo")]
    good.append(encode_status({"state": "fuzz"}, "demo", session="fuzz", seq=0, stated_ns=0))
    parts = [[bytes(part) for part in message] for message in good]
    counts, known = {"sent": 0, "good": 0}, bombs()
    with zmq.Context() as context, context.socket(zmq.XPUB) as hostile:
        hostile.setsockopt(zmq.LINGER, 0)
        hostile.bind("tcp://127.0.0.1:*")
        with Subscriber(hostile.getsockopt_string(zmq.LAST_ENDPOINT), ["status"], "demo") as reading:
            assert hostile.poll(5000), "no subscription"
            while counts["sent"] < n:
                for _ in range(min(200, n - counts["sent"])):
                    _, *rest = rng.choice(parts)
                    changed = [mutated(rng, part) if rng.random() < 0.5 else part for part in rest]
                    if rng.random() < 0.1:
                        changed = [rng.choice(known), *changed[: rng.randrange(3)]]
                    hostile.send_multipart([b"demo/status" + rng.choice((b"", b"x", rng.randbytes(3))), *changed])
                    counts["sent"] += 1
                counts["good"] += _good_one(hostile, reading, f"check {counts['sent']}")
    return {f"subscriber_{key}": value for key, value in counts.items()} | {"subscriber_bad": reading.bad}


def _good_one(hostile: zmq.Socket[bytes], reading: Subscriber, session: str) -> bool:
    """A good message gets through, in a session of its own, so that no changed one can make it old news."""
    until_ns, seq = now_ns() + int(ANSWER_S * 1e9), 0
    while now_ns() < until_ns:
        seq += 1
        hostile.send_multipart(encode_status({"state": "ok"}, "demo", session=session, seq=seq, stated_ns=now_ns()))
        message = reading.get("status", 0.05)
        with suppress(OutputError):
            if message is not None and message.header["session"] == session and message.status() == {"state": "ok"}:
                return True
    raise AssertionError(f"{session}: a good message did not get through")
