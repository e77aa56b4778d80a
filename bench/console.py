"""What a console costs a feed, and a machine: 720p25 with one page and with eight.

`python -m bench.console [--seconds 10]`. The feed publishes the synthetic endoscope without a network; the pages are
WebSocket clients in a process of their own, which take every picture. Rates and ages of 1 and of 8 pages alternate.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import struct
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import psutil
from websockets.sync.client import connect

from rtseg.base.types import Frame, ImageU8
from rtseg.grab import open_source
from rtseg.publish.publisher import Publisher


def _pictures(count: int = 25) -> list[ImageU8]:
    source = open_source("synthetic:laparoscopy?seconds=2&seed=7")
    return [frame.image_hwc for frame, _ in zip(source, range(count), strict=False)]


def _publish(publisher: Publisher, pictures: list[ImageU8], stop: threading.Event, sent: list[float]) -> None:
    due = time.monotonic()
    publisher.set_status({"state": "running"})
    seq = 0
    while not stop.is_set():
        publisher.publish_video(Frame(pictures[seq % len(pictures)], seq, "s1"))
        sent.append(time.monotonic())
        seq, due = seq + 1, due + 0.04
        time.sleep(max(0.0, due - time.monotonic()))


def _page(url: str, seconds: float, ages: list[float]) -> None:
    with connect(url, max_size=None, compression=None) as socket:
        socket.send('{"type":"hello"}')
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            message = socket.recv()
            if isinstance(message, bytes):
                (length,) = struct.unpack_from("<I", message)
                header = json.loads(message[4 : 4 + length])
                if header["type"] == "picture":
                    ages.append(header["captured_age_ms"])
                    painted = {key: header[key] for key in ("feed", "seq", "session")}
                    socket.send(json.dumps({"type": "painted", **painted}))


def _pages(url: str, count: int, seconds: float, results: Any) -> None:
    ages: list[list[float]] = [[] for _ in range(count)]
    threads = [threading.Thread(target=_page, args=(url, seconds, mine)) for mine in ages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(ages)


def _measure(url: str, count: int, seconds: float, console: psutil.Process, sent: list[float]) -> dict[str, float]:
    results: Any = multiprocessing.get_context("spawn").Queue()
    pages = multiprocessing.get_context("spawn").Process(target=_pages, args=(url, count, seconds, results))
    pages.start()
    before, start, frames = console.cpu_times(), time.monotonic(), len(sent)
    ages = results.get()
    took, after = time.monotonic() - start, console.cpu_times()
    shown = (len(sent) - frames) / took
    pages.join()
    used = after.user + after.system - before.user - before.system
    every = np.concatenate([np.array(mine) for mine in ages])
    return {
        "pages": count,
        "feed_fps": round(shown, 2),
        "page_fps": round(len(every) / count / seconds, 2),
        "age_p50_ms": round(float(np.percentile(every, 50)), 1),
        "age_p95_ms": round(float(np.percentile(every, 95)), 1),
        "console_cores": round(used / seconds, 3),
    }


def main() -> None:
    """Measure, and print one line of JSON for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each part")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--port", type=int, default=8190)
    args = parser.parse_args()
    stop, sent, pictures = threading.Event(), [], _pictures()
    with Publisher("tcp://127.0.0.1:*", "bench") as publisher:
        thread = threading.Thread(target=_publish, args=(publisher, pictures, stop, sent))
        thread.start()
        words = [sys.executable, "-m", "rtseg", "console", publisher.endpoint, "--bind", f"127.0.0.1:{args.port}"]
        console = subprocess.Popen(words)
        try:
            time.sleep(3)
            url, process = f"ws://127.0.0.1:{args.port}/ws", psutil.Process(console.pid)
            for _ in range(args.rounds):
                for count in (1, 8):
                    print(json.dumps(_measure(url, count, args.seconds, process, sent)), flush=True)
        finally:
            console.terminate()
            console.wait()
            stop.set()
            thread.join()


if __name__ == "__main__":
    main()
