"""How long a person waits for the mask that a prompt would give, and what that costs those who watch.

    python -m bench.preview [--rounds 4] [--seconds 5] [--pause 0.5] [--clip FILE]

A feed with the default network plays a 720p clip. In turn it is left alone for some seconds, and asked for previews on
the frame that is shown, for a new object and for a correction. Compared are the time to an answer with the time of a
step of the network, and, with previews and without, the delay of the original picture and the rate of the masks.
Before that the network is timed alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.room import BOX, ROOT, Display, Room, Seen, clip
from rtseg.base.types import now_ns

START_S = 20.0  # of the clip, until the feed runs and has full banks
MOST_MS = 300.0  # to an answer


def asked(room: Room, seconds: float, pause_s: float) -> list[tuple[float, float]]:
    """Ask for previews for so long, two on each frame; milliseconds to their answers."""
    took_ms, until, number = list[tuple[float, float]](), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        start_ns, number, seq = now_ns(), number + 1, room.display.seen["video"][-1].seq
        prompt = {"points": [(400.0 + 40 * (number % 5), 300.0, 1)], "seq": seq}
        room.client.preview(1 + number % 2, **prompt)
        first_ns = now_ns()
        room.client.preview(1 + number % 2, **prompt)
        took_ms.append(((first_ns - start_ns) / 1e6, (now_ns() - first_ns) / 1e6))
        time.sleep(max(0.0, pause_s - (now_ns() - start_ns) / 1e9))
    return took_ms


def between(display: Display, kind: str, since_ns: int, until_ns: int) -> list[Seen]:
    return [one for one in list(display.seen[kind]) if since_ns <= one.captured_ns < until_ns]


def figures(
    took_ms: list[tuple[float, float]],
    step_ms: float,
    alone: list[list[Seen]],
    beside: list[list[Seen]],
    masks: tuple[int, int],
) -> dict[str, Any]:
    """What is told: `alone` and `beside` are the original pictures of each turn, `masks` how many came in all."""
    p50, p95 = np.percentile(took_ms, 50, axis=0), np.percentile(took_ms, 95, axis=0)
    delays = [
        [(one.received_ns - one.captured_ns) / 1e6 for turn in turns for one in turn] for turns in (alone, beside)
    ]
    rates = [sum(map(len, turns)) for turns in (alone, beside)]
    found = {
        "previews": 2 * len(took_ms), "step ms p50": step_ms,
        "answer ms p50": p50[0], "answer ms p95": p95[0], "answer p50 / step p50": p50[0] / step_ms,
        "again, ms p50": p50[1], "again, ms p95": p95[1], "again p50 / step p50": p50[1] / step_ms,
        "video delay ms p95 alone": float(np.percentile(delays[0], 95)),
        "video delay ms p95 with previews": float(np.percentile(delays[1], 95)),
        "video frames, with / without": rates[1] / rates[0], "masks, with / without": masks[1] / max(1, masks[0]),
    }  # fmt: skip
    rounded = {name: round(float(value), 3) for name, value in found.items()}
    return rounded | {"ok": bool(p95[0] <= MOST_MS) and rates[1] >= 0.98 * rates[0]}


def network(source: Path, frames: int = 30) -> dict[str, float]:
    """In this process alone, in turn on each frame: a step, the first preview on it, and another one; ms p50."""
    from rtseg import Prompt, Tracker, open_engine, open_source
    from rtseg.track import Proposals

    tracker, proposals = Tracker(open_engine(ROOT / "engines" / "nano-cpu.toml")), Proposals()
    tracker.give(Prompt(1, box=BOX))
    rows: list[list[float]] = []
    for frame in islice(open_source(source), 10 + frames):
        at_ns = [now_ns()]
        tracker.step(frame)
        at_ns.append(now_ns())
        for x in (400.0, 420.0):
            proposals.propose(tracker, [Prompt(1 + frame.seq % 2, points=[(x, 300.0, 1)])], frame)
            at_ns.append(now_ns())
        rows.append([(b - a) / 1e6 for a, b in pairwise(at_ns)])
    step, first, again = (float(ms) for ms in np.median(rows[10:], axis=0))
    found = {"step ms p50": step, "first / step": first / step, "again / step": again / step}
    return {name: round(value, 3) for name, value in found.items()}


def measure(source: Path, folder: Path, rounds: int, seconds: float, pause_s: float) -> dict[str, Any]:
    """Play the clip and measure."""
    took_ms: list[tuple[float, float]] = []
    turns: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
    with Room(str(source), folder) as room:
        asked(room, 1.0, pause_s)  # what is done once
        for _ in range(rounds):
            for busy in (False, True):
                since_ns = now_ns()
                if busy:
                    took_ms += asked(room, seconds, pause_s)
                else:
                    time.sleep(seconds)
                turns[busy].append((since_ns, since_ns + int(seconds * 1e9)))
        step_ms = room.client.status()["stages_ms"]["segment"]["p50"]
        pictures = [[between(room.display, "video", *turn) for turn in turns[busy]] for busy in (False, True)]
        masks = [sum(len(between(room.display, "masks", *turn)) for turn in turns[busy]) for busy in (False, True)]
    return figures(took_ms, step_ms, pictures[0], pictures[1], (masks[0], masks[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--pause", type=float, default=0.5, help="from one preview to the next; 0: as fast as it goes")
    parser.add_argument("--clip", type=Path, help="a 720p clip that is long enough; without it one is drawn")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = args.clip or Path(folder) / "clip.mp4"
        if args.clip is None:
            clip(source, START_S + 2 * args.rounds * args.seconds)
        alone = {"the network alone": network(source)}
        print(json.dumps(alone | measure(source, Path(folder), args.rounds, args.seconds, args.pause), indent=1))


if __name__ == "__main__":
    main()
