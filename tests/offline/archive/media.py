"""Small recordings, prompts and an engine for tests of archives, and a cluster of threads."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from rtseg.offline.archive.jobs import Cluster, Died, Ended, Event, Job, Ready, State
from rtseg.offline.archive.run import Settings
from rtseg.offline.archive.worker import Setup, Worker

WIDTH, HEIGHT, FRAMES = 64, 48, 4
PROMPTS = [{"frame": 0, "id": 1, "label": "tool", "box": [10, 8, 40, 36]}]


def video(path: Path, seed: int, frames: int = FRAMES) -> Path:
    """A video of noise that is its seed's own."""
    draw = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(frames):
            image = np.kron(draw.integers(0, 255, (6, 8, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        file.mux(stream.encode())
    return path


def department(folder: Path, count: int) -> Path:
    """Videos, their prompts and a manifest; returns the manifest."""
    (folder / "p.json").write_text(json.dumps(PROMPTS))
    lines = ["source,prompts,out,options"]
    for number in range(count):
        video(folder / f"v{number}.avi", number)
        lines.append(f"v{number}.avi,p.json,,")
    manifest = folder / "videos.csv"
    manifest.write_text("\n".join(lines))
    return manifest


def masks(folder: Path) -> dict[str, bytes]:
    """The masks of all results in a folder: pictures byte for byte, and masks.json without what names the source."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if ".partial" in name:
            continue
        if path.parent.name == "masks":
            found[name] = path.read_bytes()
        elif path.name == "masks.json":
            document = json.loads(path.read_bytes())
            found[name] = json.dumps({key: value for key, value in document.items() if key != "info"}).encode()
    return found


class Threads:
    """Workers in threads of this process, for what clouds in memory, and quick tests, need."""

    def __init__(self, setup: Setup) -> None:
        self._setup, self._events = setup, queue.Queue[Event]()
        self._pool = ThreadPoolExecutor(8)
        self.workers: list[Worker] = []
        self.clock = 0.0

    def start(self) -> int:
        number = len(self.workers)
        self.workers.append(Worker(self._setup))
        self._pool.submit(self.workers[-1].open).add_done_callback(partial(self._opened, number))
        return number

    def _opened(self, number: int, opened: Future[dict[str, Any]]) -> None:
        about = opened.result()
        self._events.put(Died(number, about["error"]) if about["error"] else Ready(number, about["node"]))

    def submit(self, worker: int, job: Job) -> None:
        self._pool.submit(self.workers[worker].run, job).add_done_callback(
            lambda ended: self._events.put(Ended(worker, ended.result()))
        )

    def wait(self, timeout_s: float) -> list[Event]:
        self.clock += timeout_s
        try:
            return [self._events.get(timeout=0.05)]
        except queue.Empty:
            return []

    def states(self) -> dict[int, State]:
        return {line: state for worker in self.workers for line, state in worker.states().items()}

    def stop(self, worker: int) -> None:
        pass

    def now(self) -> float:
        return self.clock

    def lacking(self) -> str:
        return ""

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


@contextmanager
def on_threads(settings: Settings, setup: Setup, depth: int) -> Iterator[tuple[Cluster, int]]:
    """The cluster of `archive`, in this process."""
    cluster = Threads(setup)
    try:
        yield cluster, settings.workers or 2
    finally:
        cluster.close()
