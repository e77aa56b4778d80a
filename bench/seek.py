"""A recording in the console: how soon a ten-minute clip is open, and how soon a frame is on the screen after a seek.

    python -m bench.seek [--minutes 10] [--groups 25,250] [--seeks 60] [--size 1280x720] [--stills-s 600] [--json FILE]

A clip of the synthetic endoscope is written as H.264 with a key frame every 25, and every 250 frames (`--groups`); a
part of it is repeated, since only its length matters. Opening ends when its first picture is given to the page.
Seeks go to frames at random. Told is when the right frame was given to the page first, which may be its still, and when
its own pixels were; before the stills are made (`cold`), and then (`ready`). What is shown first is compared with the
frame's own pixels: a still has to be nearer to them than any other frame within two seconds is. It exits with 1 if
opening takes more than 2 s, or a seek more than 300 ms (p95), where stills are ready.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from bench.room import ROOT
from rtseg.console.recording_feed import RecordingFeed
from rtseg.engine.recipe import load_recipe
from rtseg.grab import open_source

MOST_OPEN_S, MOST_SEEK_MS = 2.0, 300.0
DRAWN = 100  # frames that are drawn; they run forward and back
PATIENCE_S = 30.0


def write_clip(path: Path, frames: int, group: int, size: tuple[int, int]) -> None:
    """Write a clip with a key frame every `group` frames: one stretch, repeated."""
    uri = f"synthetic:laparoscopy?width={size[0]}&height={size[1]}&fps=25&seconds=20&seed=7"
    pictures = [f.image_hwc for f, _ in zip(open_source(uri), range(DRAWN), strict=False)]
    options = {"preset": "veryfast", "g": str(group), "x264-params": f"keyint={group}:scenecut=0:open-gop=0"}
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=Fraction(25), options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        packets: list[tuple[bytes, int, int, bool]] = []
        for at in [*range(group), None]:  # type: ignore[list-item]
            picture = None if at is None else av.VideoFrame.from_ndarray(_drawn(pictures, at), format="rgb24")
            packets += [(bytes(p), p.pts, p.dts, p.is_keyframe) for p in stream.encode(picture) if p.size]
        assert stream.codec_context.time_base == Fraction(1, 25)
        for again in range(frames // group):
            for data, pts, dts, is_key in packets:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), is_key
                packet.pts, packet.dts = pts + again * group, dts + again * group
                out.mux(packet)


def _drawn(pictures: list[Any], at: int) -> Any:
    turn = at % (2 * DRAWN - 2)
    return pictures[turn if turn < DRAWN else 2 * DRAWN - 2 - turn]


class Screen:
    """A recording's feed, and when each picture was given to it."""

    def __init__(self, clip: Path, folder: Path) -> None:
        self.given: list[tuple[float, int, bytes]] = []
        self._news = threading.Condition()
        start = time.monotonic()
        self.feed = RecordingFeed(clip, load_recipe(ROOT / "engines" / "nano-cpu.toml"), folder)
        self.feed.offer_picture = self._take  # type: ignore[method-assign]
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        self.wait(lambda: self.given)
        self.open_s = self.given[0][0] - start

    async def _start(self) -> None:
        self.feed.start()

    def _take(self, raw: Any) -> None:
        with self._news:
            self.given.append((time.monotonic(), raw.seq, bytes(raw.pixels)))
            self._news.notify_all()

    def wait(self, true: Any) -> None:
        with self._news:
            end = time.monotonic() + PATIENCE_S
            while not self._news.wait_for(true, 0.01):
                if time.monotonic() > end:
                    raise TimeoutError("no picture came")

    @property
    def stills(self) -> Any:
        return self.feed._player._stills

    def seek(self, number: int) -> tuple[float, float, bool]:
        """Milliseconds to the first picture of this frame, and to its own pixels; whether they were the same."""
        with self._news:
            self.given.clear()
        start = time.monotonic()
        self.feed.ask("seek", {"frame": number}, "bench")
        player = self.feed._player
        self.wait(lambda: player._wanted is None and any(one[1] == number for one in self.given))
        own = [one for one in self.given if one[1] == number]
        return 1e3 * (own[0][0] - start), 1e3 * (own[-1][0] - start), own[0][2] == own[-1][2]

    def close(self) -> None:
        self.feed.close()
        self._loop.call_soon_threadsafe(self._loop.stop)


def seeks(screen: Screen, numbers: list[int], name: str) -> dict[str, Any]:
    """Seek to each of these frames."""
    rows = [screen.seek(number) for number in numbers]
    first, own = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found: dict[str, Any] = {"seeks": name, "stills": round(1 - float(np.mean([row[2] for row in rows])), 2)}
    for what, ms in (("shown", first), ("own pixels", own)):
        found |= {
            f"{what} {q}": round(float(np.percentile(ms, p)), 1) for q, p in (("p50", 50), ("p95", 95), ("max", 100))
        }
    return found


def right_stills(screen: Screen, numbers: list[int], group: int) -> int:
    """How many stills are nearer to their own frame than to those around it."""
    frames, right = screen.feed._session.frames, 0
    for number in numbers:
        still = screen.stills.frame(number)
        around = range(max(number - number % group, number - 50), number + 1, 7)
        unlike = {n: float(np.abs(still.image_hwc.astype(np.int16) - frames.frame(n).image_hwc).mean()) for n in around}
        unlike[number] = float(np.abs(still.image_hwc.astype(np.int16) - frames.frame(number).image_hwc).mean())
        right += min(unlike, key=unlike.__getitem__) == number
    return right


def measure(folder: Path, args: argparse.Namespace, group: int) -> list[dict[str, Any]]:
    size = tuple(int(side) for side in args.size.split("x"))
    clip, frames = folder / f"group{group}.mp4", int(args.minutes * 60 * 25) // group * group
    write_clip(clip, frames, group, (size[0], size[1]))
    numbers = random.Random(5).sample(range(frames), args.seeks)
    screen = Screen(clip, folder / f"session{group}")
    try:
        about = {"key frame every": group, "frames": frames}
        rows = [about | {"open_s": round(screen.open_s, 2)}, about | seeks(screen, numbers, "cold")]
        start = time.monotonic()
        while not screen.stills.done and time.monotonic() - start < args.stills_s:
            time.sleep(0.1)
        made = {
            "stills_s": round(time.monotonic() - start, 1),
            "bytes": screen.stills._bytes,
            "done": screen.stills.done,
        }
        rows += [about | made, about | seeks(screen, random.Random(6).sample(range(frames), args.seeks), "ready")]
        far = [number for number in numbers if screen.stills.frame(number)][:8]
        rows.append(about | {"stills looked at": len(far), "right": right_stills(screen, far, group)})
    finally:
        screen.close()
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--groups", default="25,250", help="frames from key frame to key frame")
    parser.add_argument("--seeks", type=int, default=60)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--stills-s", type=float, default=600.0, help="how long to wait for the stills")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for group in map(int, args.groups.split(",")):
            for row in measure(Path(folder), args, group):
                print(json.dumps(row), flush=True)
                rows.append(row)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    slow = [row for row in rows if row.get("open_s", 0.0) > MOST_OPEN_S]
    slow += [row for row in rows if row.get("seeks") == "ready" and row["shown p95"] > MOST_SEEK_MS]
    return 1 if slow or any(row["right"] < row["stills looked at"] for row in rows if "right" in row) else 0


if __name__ == "__main__":
    sys.exit(main())
