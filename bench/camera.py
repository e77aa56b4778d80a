"""A camera that does as it is told: the synthetic endoscope as MPEG-TS over TCP, in real time, with faults on command.

Each line on stdin is a command; S is in seconds:
    stall S    nothing is sent              freeze S   the same picture is sent again and again
    jump S     the times jump by S          corrupt S  bytes are flipped
    fast S     ten times the rate           cut S      connections are closed, and refused
    size WxH   another size, in the stream  quit
"""

from __future__ import annotations

import argparse
import io
import select
import socket
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np

from rtseg import open_source

LOOP = 50  # frames, drawn and coded before the first client comes, so that sending costs next to nothing
FAST = 10
START_PTS = 10 * 90_000
CLOCK = Fraction(1, 90_000)
CODECS = {
    # Every picture a key frame: a repeated packet is a repeated picture, and a new client sees one at once.
    "mpeg2video": {"g": "1", "qmin": "2", "qmax": "4"},
    "h264": {"g": "1", "bf": "0", "preset": "ultrafast", "tune": "zerolatency", "crf": "18"},
}


def coded_loop(size: tuple[int, int], fps: int, codec: str, seed: int = 0) -> tuple[Any, list[bytes]]:
    """The codec's context, and LOOP pictures of the synthetic endoscope as one packet each."""
    shown = f"width={size[0]}&height={size[1]}&fps={fps}&seconds={LOOP / fps}&seed={seed}"
    container = av.open(io.BytesIO(), "w", format="mpegts")
    stream: Any = container.add_stream({"h264": "libx264"}.get(codec, codec), rate=fps, options=CODECS[codec])
    stream.width, stream.height, stream.pix_fmt, stream.thread_count = *size, "yuv420p", 1
    packets = []
    for frame in open_source(f"synthetic:laparoscopy?{shown}"):
        picture = av.VideoFrame.from_ndarray(frame.image_hwc, "rgb24").reformat(format="yuv420p")
        picture.pts = frame.seq
        packets += [bytes(packet) for packet in stream.encode(picture)]
    packets += [bytes(packet) for packet in stream.encode()]
    return stream, packets


class _Wire(io.RawIOBase):
    """Where a client's muxer writes: its socket, or a damaged copy of the bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self.harm = connection, False
        self._rng = np.random.default_rng(0)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        sent = bytearray(data)
        if self.harm:
            for at in self._rng.integers(0, len(sent), max(1, len(sent) // 500)):
                sent[int(at)] ^= int(self._rng.integers(1, 256))
        self._connection.sendall(sent)
        return len(sent)


class _Client:
    """One connection and its muxer."""

    def __init__(self, connection: socket.socket, template: Any) -> None:
        connection.settimeout(1.0)  # a client that does not read is no concern of the others
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection, self.wire = connection, _Wire(connection)
        options = {"flush_packets": "1", "mpegts_flags": "+resend_headers"}
        self._container = av.open(self.wire, "w", format="mpegts", options=options)
        self._stream: Any = self._container.add_stream_from_template(template)

    def send(self, coded: bytes, pts: int) -> None:
        packet = av.Packet(coded)
        packet.pts = packet.dts = pts
        packet.time_base, packet.stream, packet.is_keyframe = CLOCK, self._stream, True
        self._container.mux_one(packet)

    def close(self) -> None:
        self._connection.close()


class _Server:
    """Sends the loop to every client; commands change what it does until a time."""

    def __init__(self, port: int, size: tuple[int, int], fps: int, codec: str) -> None:
        self._fps, self._codec = fps, codec
        self._template, self._packets = coded_loop(size, fps, codec)
        self._until = dict.fromkeys(("stall", "freeze", "corrupt", "fast", "cut"), 0.0)
        self._clients: list[_Client] = []
        self._jump = 0
        self.running = True
        self.port = port
        self._listener: socket.socket | None = None
        self._listen()

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        self.port, self._listener = listener.getsockname()[1], listener

    def obey(self, line: str) -> None:
        """Do what one line of stdin says; ValueError if it says nothing that is known."""
        verb, _, value = line.strip().partition(" ")
        if verb == "quit":
            self.running = False
        elif verb == "size":
            _, self._packets = coded_loop(_size(value), self._fps, self._codec)
        elif verb == "jump":
            self._jump += round(float(value) * 90_000)
        elif verb in self._until:
            self._until[verb] = time.monotonic() + float(value)
        else:
            raise ValueError(verb)

    def run(self) -> None:
        index, due, pts = 0, time.monotonic(), START_PTS
        while self.running:
            now = time.monotonic()
            on = {verb: now < until for verb, until in self._until.items()}
            self._admit(on["cut"])
            if not on["stall"]:
                for client in list(self._clients):
                    client.wire.harm = on["corrupt"]
                    try:
                        client.send(self._packets[index % LOOP], pts + self._jump)
                    except (OSError, av.FFmpegError):
                        self._clients.remove(client)
                        client.close()
            index += not on["freeze"]
            pts += 90_000 // self._fps
            due = max(due, now - 1) + 1 / self._fps / (FAST if on["fast"] else 1)
            time.sleep(max(0.0, due - time.monotonic()))

    def _admit(self, cut: bool) -> None:
        """Take new clients, or close everything while cut."""
        if cut:
            for client in self._clients:
                client.close()
            self._clients.clear()
            if self._listener:
                self._listener.close()
                self._listener = None
            return
        if self._listener is None:
            self._listen()
        assert self._listener is not None
        while select.select([self._listener], [], [], 0)[0]:
            self._clients.append(_Client(self._listener.accept()[0], self._template))


class Camera:
    """The same in a process of its own: `with Camera(size=(320, 240)) as camera: open(camera.url)`."""

    def __init__(
        self, *, size: tuple[int, int] = (320, 240), fps: int = 25, codec: str = "mpeg2video", port: int = 0
    ) -> None:
        command = [sys.executable, "-m", "bench.camera", "--port", str(port), "--size", f"{size[0]}x{size[1]}"]
        command += ["--fps", str(fps), "--codec", codec]
        root = Path(__file__).parents[1]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, bufsize=1
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise RuntimeError(f"the camera did not start: {' '.join(command)}")

    def say(self, command: str) -> None:
        """Give one command; it works from the next frame on."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")

    def kill(self) -> None:
        """End it as a power cut does."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    if width % 2 or height % 2 or min(width, height) < 64:
        raise ValueError(text)
    return width, height


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.camera", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--size", type=_size, default=(320, 240), metavar="WxH", help="even numbers from 64")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--codec", choices=sorted(CODECS), default="mpeg2video")
    given = parser.parse_args()
    server = _Server(given.port, given.size, given.fps, given.codec)
    print(f"tcp://127.0.0.1:{server.port}", flush=True)
    threading.Thread(target=server.run).start()
    for line in sys.stdin:
        try:
            server.obey(line)
        except ValueError:
            print(f"unknown command {line.strip()!r}; expected one of those in bench/camera.py", file=sys.stderr)
        if not server.running:
            return
    server.running = False  # whoever spoke is gone


if __name__ == "__main__":
    main()
