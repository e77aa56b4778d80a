"""From the publisher to the painted pixel: coded pictures are read back from the canvas of a real page in Chromium.

    python -m bench.painted [--seconds 20] [--rounds 2] [--size 1280x720] [--fps 25] [--delay-ms 100] [--json FILE]

A publisher in a process of its own sends the synthetic endoscope with its frame number drawn into it, as black and
white blocks that survive JPEG; it notes when each was given to it. `rtseg console` serves it, and Chromium without a
head shows it. Before each frame of the screen a script in the page reads the number from the page's own canvas, and
takes the time again when that frame was painted. Its clock is compared with this machine's by questions and answers;
half the shortest of these is the error that is told. The control goes through a relay that delays every byte: what is
measured must grow by as much, else the measurement sees nothing. It exits with 1 if the p95 is above 60 ms, or the
control does not hold.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.relay import Relay
from rtseg.base.types import Frame, ImageU8, now_ns
from rtseg.grab import open_source
from rtseg.publish.publisher import Publisher

CHROMIUM = "/usr/bin/chromium"
MOST_MS = 60.0  # p95
BITS, BLOCK = 16, 16  # of a frame's number; pixels of a block's side
READ = """(() => {
  const [bits, block] = [BITS, BLOCK], seen = (window.seen = []);
  const small = document.createElement("canvas");
  Object.assign(small, { width: bits, height: 1 });
  const context = small.getContext("2d", { willReadFrequently: true });
  const painted = new MessageChannel();
  let before = -1, waiting = null;
  painted.port1.onmessage = () => {
    if (waiting) seen.push([waiting.seq, waiting.read, performance.now()]);
    waiting = null;
  };
  const look = () => {
    requestAnimationFrame(look);
    const canvas = document.querySelector(".over canvas.picture");
    if (!canvas?.width || canvas.width < bits * block) return;
    const read = performance.now();
    context.imageSmoothingEnabled = false;
    context.drawImage(canvas, 0, 0, bits * block, block, 0, 0, bits, 1);
    const pixels = context.getImageData(0, 0, bits, 1).data;
    let seq = 0;
    for (let bit = 0; bit < bits; bit++) if (pixels[4 * bit] > 127) seq |= 1 << bit;
    if (seq === before) return;
    before = seq;
    waiting = { seq, read };
    painted.port2.postMessage(0);
  };
  requestAnimationFrame(look);
})();""".replace("BITS", str(BITS), 1).replace("BLOCK", str(BLOCK), 1)


def coded(image_hwc: ImageU8, seq: int) -> ImageU8:
    """The picture with its number in the upper left corner."""
    found = image_hwc.copy()
    for bit in range(BITS):
        found[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (seq >> bit & 1)
    return found


def publish(size: tuple[int, int], fps: float, pipe: Any) -> None:
    """Publish until something comes through the pipe; then send when each frame was given to the publisher, in ns."""
    uri = f"synthetic:laparoscopy?seconds=2&seed=7&width={size[0]}&height={size[1]}"
    pictures = [frame.image_hwc for frame, _ in zip(open_source(uri), range(25), strict=False)]
    given_ns: list[int] = []
    with Publisher("tcp://127.0.0.1:*", "bench") as publisher:
        pipe.send(publisher.endpoint)
        due = time.monotonic()
        while not pipe.poll(0) and len(given_ns) < 1 << BITS:
            if len(given_ns) % 10 == 0:
                publisher.set_status({"state": "running"})
            image_hwc = coded(pictures[len(given_ns) % len(pictures)], len(given_ns))
            given_ns.append(now_ns())
            publisher.publish_video(Frame(image_hwc, len(given_ns) - 1, "s1", captured_ns=given_ns[-1]))
            due += 1 / fps
            time.sleep(max(0.0, due - time.monotonic()))
    pipe.send(given_ns)


@contextmanager
def feed(size: tuple[int, int], fps: float) -> Iterator[Any]:
    """The publisher's process: a pipe that has its address first, and its times at the end."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=publish, args=(size, fps, there))
    process.start()
    try:
        yield here
    finally:
        process.terminate()
        process.join()


@contextmanager
def console(endpoint: str, port: int) -> Iterator[None]:
    words = [sys.executable, "-m", "rtseg", "console", endpoint, "--bind", f"127.0.0.1:{port}"]
    running = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr is not None and "open" in running.stderr.readline()
        yield
    finally:
        running.terminate()
        running.wait()


def clock(page: Any) -> tuple[float, float]:
    """What to add to the page's clock for ours, and by how much that may be wrong; ms."""
    found = []
    for _ in range(200):
        asked = now_ns()
        theirs = page.evaluate("performance.now()")
        answered = now_ns()
        found.append(((answered - asked) / 2e6, (answered + asked) / 2e6 - theirs))
    error, offset = min(found)
    return offset, error


def watch(browser: Any, port: int, seconds: float) -> dict[str, Any]:
    """Let a page show the feed for so long: what it saw (number, read and painted in our ms), and the clock's error."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.add_init_script(READ)
    page.goto(f"http://127.0.0.1:{port}/")
    page.wait_for_selector(".view[data-word='Ready']")
    time.sleep(1.0)
    first, error = clock(page)
    page.evaluate("window.seen.length = 0")
    time.sleep(seconds)
    seen = page.evaluate("window.seen")
    last, second = clock(page)
    words = page.locator(".view .figures").text_content()
    page.close()
    offset = (first + last) / 2
    rows = [(int(seq), read + offset, painted + offset) for seq, read, painted in seen]
    return {"rows": rows, "clock_error_ms": round(max(error, second) + abs(first - last) / 2, 2), "words": words}


def delays(found: dict[str, Any], given_ns: list[int], fps: float, seconds: float) -> dict[str, Any]:
    """Delays from the publisher to the canvas, and to the painted pixel, and how many pictures were painted."""
    rows = [row for row in found["rows"] if row[0] < len(given_ns)]
    read = np.array([at - given_ns[seq] / 1e6 for seq, at, _ in rows])
    painted = np.array([at - given_ns[seq] / 1e6 for seq, _, at in rows])
    p50, p95, p99 = np.percentile(painted, (50, 95, 99))
    return {
        "pictures": len(rows),
        "painted / published": round(len(rows) / (fps * seconds), 3),
        "canvas_p50_ms": round(float(np.percentile(read, 50)), 1),
        "painted_p50_ms": round(float(p50), 1),
        "painted_p95_ms": round(float(p95), 1),
        "painted_p99_ms": round(float(p99), 1),
        "within_60_ms": round(float(np.mean(painted <= MOST_MS)), 3),
        "clock_error_ms": found["clock_error_ms"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each part")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--delay-ms", type=float, default=100.0, help="of the control")
    parser.add_argument("--port", type=int, default=8510)
    parser.add_argument("--json", type=Path, help="write all figures there")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    width, height = (int(side) for side in args.size.split("x"))
    parts: list[tuple[str, dict[str, Any]]] = []
    with feed((width, height), args.fps) as pipe, console(pipe.recv(), args.port), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(args.rounds):
            parts.append(("straight", watch(browser, args.port, args.seconds)))
            with Relay(args.port, args.delay_ms / 1000) as relay:
                parts.append(("delayed", watch(browser, relay.port, args.seconds)))
        browser.close()
        pipe.send("end")
        given_ns = pipe.recv()
    rows = [{"part": name} | delays(found, given_ns, args.fps, args.seconds) for name, found in parts]
    added = _median(rows, "delayed") - _median(rows, "straight")
    good = [row["painted_p95_ms"] <= MOST_MS for row in rows if row["part"] == "straight"]
    held = abs(added - args.delay_ms) < args.delay_ms / 4
    result = {"rows": rows, "control": {"delay_ms": args.delay_ms, "seen_ms": round(added, 1), "held": held}}
    for row in rows:
        print(json.dumps(row))
    print(json.dumps(result["control"] | {"ok": all(good) and held}))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    return 0 if all(good) and held else 1


def _median(rows: list[dict[str, Any]], part: str) -> float:
    return float(np.median([row["painted_p50_ms"] for row in rows if row["part"] == part]))


if __name__ == "__main__":
    sys.exit(main())
