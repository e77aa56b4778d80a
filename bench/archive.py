"""An archive on a local Ray cluster whose workers are killed at random, beside the same archive left in peace.

    python -m bench.archive [--videos 100] [--workers 2] [--every 10] [--frames 50] [--engine engines/micro-cpu.toml]

Makes short videos, segments them twice with `rtseg archive`, and kills (SIGKILL) one of the second run's workers at
random, `--every` so many seconds on average. Then it compares the masks of both runs byte for byte. `--node` kills the
cluster's machine once, too: the raylet with all its workers; the verb is then run again on a new cluster. As a
negative control the same comparison is made after one bit of one mask was changed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MARK = "RTSEG_BENCH_ARCHIVE"  # in the environment of all processes that this one starts
PROMPTS = '[{"frame": 0, "id": 1, "label": "tool", "box": [40, 30, 120, 90]}]'


def department(folder: Path, videos: int, frames: int) -> Path:
    """Videos that differ, a prompt file and a manifest."""
    folder.mkdir(parents=True)
    (folder / "p.json").write_text(PROMPTS)
    lines = ["source,prompts,out,options"]
    for number in range(videos):
        picture = f"testsrc2=size=160x120:rate=25,hue=h={number * 37 % 360},rotate={number % 7}/10"
        target = folder / f"v{number:03d}.mp4"
        words = [
            "-f",
            "lavfi",
            "-i",
            picture,
            "-frames:v",
            str(frames + number % 5),
            "-pix_fmt",
            "yuv420p",
            str(target),
        ]
        subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *words], check=True)
        lines.append(f"{target.name},p.json,,")
    (folder / "videos.csv").write_text("\n".join(lines))
    return folder / "videos.csv"


def masks(folder: Path) -> dict[str, bytes]:
    """The masks of all results, byte for byte: the pictures, and masks.json."""
    found = [path for path in folder.rglob("*") if path.parent.name == "masks" or path.name == "masks.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found if ".partial" not in str(path)}


def command(manifest: Path, out: Path, args: argparse.Namespace) -> subprocess.Popen[str]:
    words = ["archive", str(manifest), "--out", str(out), "--engine", args.engine, "--json"]
    words += ["--workers", str(args.workers), "--gpus-per-worker", "0", "--retries", str(args.retries)]
    return subprocess.Popen(
        [sys.executable, "-m", "rtseg", *words], env={**os.environ, MARK: str(os.getpid())}, text=True,
        stdout=subprocess.PIPE, stderr=None if args.verbose else subprocess.DEVNULL,
    )  # fmt: skip


def of_ours(name: str) -> list[int]:
    """The processes that this one started, directly or not, whose command line has `name`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                ours = f"{MARK}={os.getpid()}".encode() in (entry / "environ").read_bytes().split(b"\0")
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it ended meanwhile
                continue
            if ours and name in words:
                found.append(int(entry.name))
    return found


def run(manifest: Path, out: Path, args: argparse.Namespace, draw: random.Random | None) -> tuple[dict, int]:
    """The verb's account, and how many workers were killed."""
    verb, kills = command(manifest, out, args), 0
    due = time.monotonic() + (draw.expovariate(1 / args.every) if draw else 1e9)
    node = bool(draw and args.node)
    while verb.poll() is None:
        time.sleep(0.1)
        if time.monotonic() < due or draw is None:
            continue
        due = time.monotonic() + draw.expovariate(1 / args.every)
        half = len(list(out.glob("v*/run.json"))) > args.videos / 2
        victims = of_ours("raylet/raylet") if node and half else of_ours("ray::Worker")
        if victims:
            node = node and not half
            kills += 1
            os.kill(draw.choice(victims), signal.SIGKILL)
    text = verb.stdout.read() if verb.stdout else ""
    return json.loads(text.strip().splitlines()[-1]), kills


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=int, default=100)
    parser.add_argument("--frames", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=float, default=10.0, help="mean seconds between two kills")
    parser.add_argument("--retries", type=int, default=10)
    parser.add_argument("--engine", default="engines/micro-cpu.toml")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--node", action="store_true", help="kill the machine once, too")
    parser.add_argument("--verbose", action="store_true", help="show what the verb prints")
    args = parser.parse_args(words)
    folder = Path(tempfile.mkdtemp(prefix="rtseg-archive-"))
    try:
        manifest = department(folder / "ward", args.videos, args.frames)
        began = time.monotonic()
        quiet, _ = run(manifest, folder / "quiet", args, None)
        quiet_s = time.monotonic() - began
        draw, kills, runs = random.Random(args.seed), 0, 0
        began = time.monotonic()
        while True:
            harmed, more = run(manifest, folder / "harmed", args, draw)
            kills, runs = kills + more, runs + 1
            if harmed.get("ok") or runs == 5:
                break
        harmed_s = time.monotonic() - began
        one, other = masks(folder / "quiet"), masks(folder / "harmed")
        same = one == other and bool(quiet.get("ok")) and bool(harmed.get("ok"))
        print(f"{args.videos} videos, {len(one)} files of masks: {'equal' if same else 'DIFFERENT'} byte for byte")
        print(f"{kills} kills in {runs} runs; {harmed_s / quiet_s:.2f} times as long as in peace ({quiet_s:.0f} s)")
        name = next(iter(sorted(other)))
        spoilt = {**other, name: other[name][:-1] + bytes([other[name][-1] ^ 1])}
        print(f"negative control, one bit changed: {'noticed' if spoilt != one else 'NOT NOTICED'}")
        return 0 if same and spoilt != one else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
