"""What `rtseg segment` costs beside its network: its rate as a share of the engine's own, memory, and resuming.

    python -m bench.segment rate VIDEO --prompts P [--engine RECIPE.toml] [--frames 300] [--rounds 3]
    python -m bench.segment memory VIDEO --prompts P [--engine RECIPE.toml] [--loops 20]
    python -m bench.segment kills VIDEO --prompts P [--engine RECIPE.toml] [--loops 20] [--kills 10]

rate     The engine's own rate is that of the tracker's steps alone, on frames that are decoded already, with as many
         threads as in `segment`. The rate of `segment` is that of all its work, from its first step to its result under
         its final name: reading, network, drawing, encoding, files, checkpoints. Both in turn, and the median of the
         shares. Goal: 0.95.
memory   The video is looped by a concatenation without encoding again. Resident memory of the run at each tenth, and
         the growth from the third on. Goal: 1%.
kills    The looped video, killed with SIGKILL at random times, and run again each time. Goal: every mask, and every
         picture of the overlay, is that of a run that nobody stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.video.stream import VideoStream

from rtseg import Tracker, open_engine, open_source
from rtseg.base.files import file_sha256
from rtseg.base.prompt_files import load_prompts
from rtseg.base.types import Frame
from rtseg.engine import spare_core
from rtseg.engine.recipe import load_recipe
from rtseg.offline import segment

ENGINE = Path(__file__).parents[1] / "engines" / "nano-cpu.toml"
CHILD = "import sys; from bench.segment import child; child(*sys.argv[1:])"


def cut(video: Path, folder: Path, most: int | None, loops: int = 1) -> Path:
    """The first frames of a video (None: all), as often as asked, without encoding again."""
    out = folder / "clip.mkv"
    with av.open(str(out), "w") as made:
        stream: VideoStream | None = None
        start = Fraction(0)
        for _ in range(loops):
            with av.open(str(video)) as given:
                theirs = given.streams.video[0]
                stream = stream or made.add_stream_from_template(theirs)
                packets = [packet for packet in given.demux(theirs) if packet.dts is not None][:most]
                base = theirs.time_base or Fraction(1, 1000)
                shift = round(start / base) - (packets[0].dts or 0)
                for packet in packets:
                    packet.pts, packet.dts = (packet.pts or 0) + shift, (packet.dts or 0) + shift
                    packet.stream = stream
                    made.mux(packet)
                start += len(packets) / (theirs.average_rate or Fraction(25))
    return out


def own_seconds(args: argparse.Namespace, clip: Path) -> tuple[float, float]:
    """The time, and the processor time, that the tracker's steps take on frames that are decoded already."""
    with spare_core():
        tracker = Tracker(open_engine(load_recipe(args.engine)))
    prompts, spent, worked = load_prompts(args.prompts), 0.0, 0.0
    frames = iter(open_source(clip))
    while held := list(islice(frames, 50)):  # not all at once: an hour of pictures fits into no memory
        start, work = time.perf_counter(), time.process_time()
        for frame in held:
            step(tracker, frame, prompts)
        spent, worked = spent + time.perf_counter() - start, worked + time.process_time() - work
    return spent, worked


def step(tracker: Tracker, frame: Frame, prompts: Any) -> None:
    for prompt in prompts.get(frame.seq, ()):
        tracker.give(prompt)
    masks = tracker.step(frame)
    masks.id_map()  # the masks at the size of the picture are part of the answer


def whole_seconds(args: argparse.Namespace, clip: Path, out: Path) -> tuple[float, float, dict[str, Any]]:
    """The time, and the processor time, that `segment` takes without opening the engine; and its report."""
    with spare_core():
        engine = open_engine(load_recipe(args.engine))
    start, work = time.perf_counter(), time.process_time()
    document = segment(clip, load_prompts(args.prompts), out, engine)
    return time.perf_counter() - start, time.process_time() - work, document


def rate(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    clip = cut(args.video, folder, args.frames)
    shares, stages = [], {}
    for number in range(args.rounds):
        own, own_work = own_seconds(args, clip)
        whole, work, document = whole_seconds(args, clip, folder / f"out{number}")
        count = document["frames"]["shown"]
        shares.append(own / whole)
        stages = {name: told["p50"] for name, told in document["stages_ms"].items()}
        print(
            f"{count} frames: alone {count / own:.2f} a second, segment {count / whole:.2f}: {own / whole:.3f}; "
            f"processor time a frame: {1000 * own_work / count:.1f} and {1000 * work / count:.1f} ms"
        )
    return {"share": statistics.median(shares), "shares": shares, "stages_p50_ms": stages}


def child(clip: str, prompts: str, engine: str, out: str) -> None:
    """A run whose progress is printed: frames, and resident memory in bytes."""

    def progress(done: int, total: int | None) -> None:
        if done % 10 == 0:
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
            print(done, total or 0, resident, flush=True)

    segment(clip, load_prompts(prompts), out, engine, progress=progress, say=lambda line: print("#", line, flush=True))


def started(args: argparse.Namespace, clip: Path, out: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", CHILD, str(clip), str(args.prompts), str(args.engine), str(out)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def memory(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    clip = cut(args.video, folder, None, args.loops)
    run, told = started(args, clip, folder / "out"), list[tuple[int, int]]()
    assert run.stdout is not None
    for line in run.stdout:
        if not line.startswith("#"):
            done, _, resident = map(int, line.split())
            told.append((done, resident))
    tenths = [statistics.median(r for _, r in part) for part in _tenths(told)]
    print("resident, in MB, by tenths:", [round(v / 1e6) for v in tenths])
    return {"frames": told[-1][0], "tenths_mb": [v / 1e6 for v in tenths], "growth": tenths[-1] / tenths[2] - 1}


def _tenths(told: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    return [told[len(told) * i // 10 : max(1, len(told) * (i + 1) // 10)] for i in range(10)]


def kills(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    clip = cut(args.video, folder, None, args.loops)
    quiet = started(args, clip, folder / "quiet")
    quiet.communicate()
    frames = json.loads((folder / "quiet/run.json").read_text())["frames"]["shown"]
    random.seed(args.seed)
    done, lost, ends = 0, list[int](), sorted(random.sample(range(frames), args.kills))
    for at in [*ends, None]:
        run = started(args, clip, folder / "killed")
        assert run.stdout is not None
        begun = None
        for line in run.stdout:
            if line.startswith("#"):
                print(line.strip())
                continue
            seen = int(line.split()[0])
            begun = begun if begun is not None else seen - 10
            if at is not None and seen >= at:
                run.send_signal(signal.SIGKILL)
                break
        run.wait()
        lost.append(done - (begun if begun is not None else done))
        done = seen
    same = {
        name: file_sha256(folder / "quiet" / name) == file_sha256(folder / "killed" / name)
        for name in ("masks.json", "overlay.mp4")
    }
    masks = [sorted((folder / name / "masks").iterdir()) for name in ("quiet", "killed")]
    pngs = [a.name for a, b in zip(*masks, strict=True) if a.read_bytes() != b.read_bytes()]
    return {"frames": frames, "kills": args.kills, "most_done_twice": max(lost[1:]), "same": same, "other_pngs": pngs}


VERBS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "rate": rate, "memory": memory, "kills": kills,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=sorted(VERBS))
    parser.add_argument("video", type=Path)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--engine", default=ENGINE)
    for name, value in (("frames", 300), ("rounds", 3), ("loops", 20), ("kills", 10), ("seed", 7)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(VERBS[args.what](args, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
