"""One feed in a process of its own, and a display that sees all of it: what bench.faults and bench.soak look at."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import zmq

from rtseg.base.types import now_ns
from rtseg.live.control import Client
from rtseg.publish.keys import allow, new, present
from rtseg.publish.wire import decode

ROOT = Path(__file__).parents[1]
BOX = (40.0, 40.0, 600.0, 500.0)
PROFILE = """source = "{source}"
engine = "{engine}"
target_fps = 25
{more}
[publish]
bind = "ipc://{folder}/feed"
[control]
bind = "ipc://{folder}/control"
{tables}
[[object]]
id = 1
label = "tool"
box = {box}
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """One message as it came: when it was received, captured and published (ns), and what it said."""

    received_ns: int
    captured_ns: int
    published_ns: int
    seq: int
    state: str
    age_ms: float | None
    mask_seq: int | None
    pts_ms: float
    sha: bytes

    def shows(self, since_ns: int) -> bool:
        """Whether this overlay has fresh masks, and of a picture captured after this."""
        return self.state == "fresh" and self.captured_ns - (self.age_ms or 0.0) * 1e6 > since_ns


class Display(threading.Thread):
    """Takes in every message of a feed (a `Subscriber` takes the newest); keeps the last `most` of each topic."""

    def __init__(self, endpoint: str, *, hashes: bool = False, most: int = 400_000, keys: Path | None = None) -> None:
        super().__init__(daemon=True)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 100)
        self._socket.setsockopt(zmq.RCVTIMEO, 200)
        self._socket.setsockopt_string(zmq.SUBSCRIBE, "")
        if keys is not None:
            present(self._socket, keys)
        self._socket.connect(endpoint)
        self._hashes, self.most, self._over = hashes, most, False
        self.seen: dict[str, list[Seen]] = {kind: [] for kind in ("video", "overlay", "masks", "status")}
        self.status: dict[str, Any] = {}
        self.counts: Counter[str] = Counter()
        self.start()

    def run(self) -> None:
        while not self._over:
            try:
                parts = [part.buffer for part in self._socket.recv_multipart(copy=False)]
            except zmq.Again:
                continue
            received_ns = now_ns()
            message = decode(parts)
            head, kind = message.header, message.kind
            if kind == "status":
                self.status = message.status()
            sha = hashlib.blake2b(parts[2], digest_size=16).digest() if self._hashes and kind == "video" else b""
            times = received_ns, head["captured_ns"], head["published_ns"], head["seq"]
            pts_ms = 0.0 if kind == "status" else 1e3 * head["pts"] * head["time_base"][0] / head["time_base"][1]
            rows = self.seen[kind]
            rows.append(Seen(*times, head["state"], head["mask_age_ms"], head["mask_seq"], pts_ms, sha))
            del rows[: -self.most]
            self.counts[kind] += 1

    def close(self) -> None:
        self._over = True
        self.join()
        self._context.destroy(linger=0)

    def gap_ms(self, since_ns: int, until_ns: int, kind: str = "video") -> float:
        """The longest time between two messages of a topic, as they left, that touches this span."""
        sent = [m.published_ns for m in self.seen[kind] if m.published_ns >= since_ns - 200_000_000]
        sent = [n for n in sent if n <= until_ns]
        return float(np.diff(sent).max() / 1e6) if len(sent) > 1 else float("inf")

    def fresh_after(self, since_ns: int) -> bool:
        """Whether the last overlay has fresh masks of a picture captured after this, and the feed says it runs."""
        rows, status = self.seen["overlay"], self.seen["status"]
        return bool(rows and status) and rows[-1].shows(since_ns) and status[-1].state == "running"


class Room:
    """A feed that plays until it is left.

    `more` is further lines of its profile; `record`: a folder for recordings; `locked`: it asks for keys, and the key
    of `anna` is let in; `hashes`: of every original picture.
    """

    def __init__(
        self, source: str, folder: Path, *, more: str = "", hashes: bool = False, record: Path | None = None,
        locked: bool = False, engine: Path = ROOT / "engines" / "nano-cpu.toml",
    ) -> None:  # fmt: skip
        keys = folder / "keys" if locked else None
        tables = "" if record is None else f'[record]\nfolder = "{record}"\n'
        if keys is not None:
            for name in ("server", "anna", "eve"):
                new(keys, name)
            allow(keys, "anna")
            tables += f'[security]\nkeys = "{keys}"\n'
        self.folder, self.endpoint = folder, f"ipc://{folder}/feed"
        profile = folder / "room.toml"
        profile.write_text(
            PROFILE.format(source=source, engine=engine, folder=folder, more=more, box=list(BOX), tables=tables)
        )
        self._profile, self._log = profile, (folder / "log").open("w")
        self.begin()
        anna = None if keys is None else keys / "anna.key_secret"
        self.display = Display(self.endpoint, hashes=hashes, keys=anna)
        self.client = Client(f"ipc://{folder}/control", timeout=30.0, keys=anna)

    def __enter__(self) -> Self:
        try:
            self.until(lambda: self.display.fresh_after(0), 60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.display.close()
        self.kill()
        self._log.close()

    def begin(self) -> None:
        """Start the feed."""
        command = [sys.executable, "-m", "bench.faulty", str(self._profile), str(os.getpid())]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=self._log)
        self.pid = self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def child(self, role: str) -> int:
        """The process of a role, as soon as it works."""
        if role == "supervisor":
            return self.pid
        self.until(lambda: self.client.status()["processes"][role]["up"], 60)
        return int(self.client.status()["processes"][role]["pid"])

    def until(self, true: Callable[[], Any], seconds: float) -> float:
        """Seconds until something is true; `TimeoutError` if it does not become so."""
        start = time.monotonic()
        while not true():
            if time.monotonic() - start > seconds or self._process.poll() is not None:
                raise TimeoutError(f"not within {seconds:g} s; {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.002)
        return time.monotonic() - start

    def finish(self) -> dict[str, Any]:
        """End the feed in order, unless its source has; its report."""
        if self.display.status.get("state") != "ended":
            self._process.send_signal(signal.SIGTERM)
        out, _ = self._process.communicate(timeout=60)
        if not out:
            raise RuntimeError(f"the feed said nothing; {(self.folder / 'log').read_text()[-2000:]}")
        return dict(json.loads(out.splitlines()[-1]))

    def memory(self) -> dict[str, dict[str, int]]:
        """Of each process: resident bytes, of them not shared with others, and open files."""
        pids = {"supervisor": self.pid, **{role: self.child(role) for role in ("grab", "segment", "publish")}}
        return {role: held(pid) for role, pid in pids.items()}


def processes_of(pid: int) -> list[int]:
    """The children of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def held(pid: int) -> dict[str, int]:
    pages = [int(n) * os.sysconf("SC_PAGE_SIZE") for n in Path(f"/proc/{pid}/statm").read_text().split()]
    return {"resident": pages[1], "own": pages[1] - pages[2], "files": len(list(Path(f"/proc/{pid}/fd").iterdir()))}


def clip(
    path: Path, seconds: float, *, size: tuple[int, int] = (1280, 720), fps: int = 25, seed: int = 7
) -> list[bytes]:
    """Write a clip of the synthetic endoscope as H.264; the hash of each picture as it decodes."""
    from rtseg import open_source
    from rtseg.publish import Mp4Writer

    uri = f"synthetic:laparoscopy?width={size[0]}&height={size[1]}&fps={fps}&seconds={seconds:g}&seed={seed}"
    with Mp4Writer(path, *size, fps) as recorder:
        for frame in open_source(uri):
            recorder.write(frame.image_hwc)
    return [hashlib.blake2b(f.image_hwc.data, digest_size=16).digest() for f in open_source(path)]
