"""A feed that runs for hours: whether its memory, open files and clocks stay constant.

    python -m bench.soak [--minutes 120] [--every 10] [--json FILE]

A simulated camera sends 720p25 over TCP; the feed runs `nano`, and a display receives it over ipc. Samples every few
seconds: memory and open files of each process, and the time from a picture's pts to its capture. "Flat" means that the
median of the last tenth is within 1% of that of the tenth after the warm-up (the first tenth, or two minutes).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from .camera import Camera
from .room import Room

LIMIT = 0.01
WARM_UP_S = 120.0
Sample = dict[str, Any]


def soak(
    minutes: float, every_s: float, size: tuple[int, int] = (1280, 720), **room_options: Any
) -> tuple[list[Sample], dict[str, Any]]:
    """Samples over time, and the report of the feed."""
    folder = Path(tempfile.mkdtemp(prefix="rtseg-"))
    samples: list[Sample] = []
    try:
        with Camera(size=size) as camera, Room(camera.url, folder, **room_options) as room:
            room.display.most = 500
            start = time.monotonic()
            while (now := time.monotonic() - start) < 60 * minutes:
                time.sleep(every_s)
                sample = {"at_s": now, "memory": room.memory(), "counts": dict(room.display.counts)}
                samples.append({**sample, "offset_ms": offset_ms(room), "fps": room.display.status.get("fps")})
            return samples, room.finish()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def offset_ms(room: Room) -> float:
    """How much later than their pts the newest pictures were captured; its change over time is drift."""
    rows = room.display.seen["video"][-100:]
    return float(np.median([(m.captured_ns / 1e6 - m.pts_ms) for m in rows]))


def judge(samples: list[Sample], report: dict[str, Any]) -> dict[str, Any]:
    """The change from the tenth after the warm-up to the last tenth, by process."""
    at_s = np.array([s["at_s"] for s in samples])
    warm_s = max(min(WARM_UP_S, at_s[-1] / 5), at_s[-1] / 10)
    first = (at_s >= warm_s) & (at_s < warm_s + at_s[-1] / 10)
    first[np.argmax(at_s >= warm_s)] = True  # of few samples, none may lie in so short a time
    last = at_s >= at_s[-1] * 0.9
    rows: dict[str, Any] = {}
    for role in samples[0]["memory"]:
        columns = {key: np.array([s["memory"][role][key] for s in samples]) for key in ("own", "files")}
        before, after = (float(np.median(columns["own"][part])) for part in (first, last))
        files = sorted({int(n) for n in columns["files"][at_s >= warm_s]})
        rows[role] = {"own_mb": [before / 2**20, after / 2**20], "growth": after / before - 1, "files": files}
    offsets = np.array([s["offset_ms"] for s in samples])
    drift = float(np.median(offsets[last]) - np.median(offsets[first]))
    frames = report["frames"]
    lost = frames["in"] - frames["shown"] - sum(frames["dropped"].values())
    flat = all(abs(row["growth"]) < LIMIT and len(row["files"]) == 1 for row in rows.values())
    return {
        "minutes": at_s[-1] / 60, "processes": rows, "drift_ms": drift, "frames": frames, "unaccounted": lost,
        "restarts": report["restarts"], "stages_ms": report["stages_ms"], "fps": report["fps"],
        "ok": flat and abs(drift) < 40 and lost == 0 and not report["restarts"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--every", type=float, default=10.0, metavar="S")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    samples, report = soak(given.minutes, given.every)
    found = judge(samples, report)
    for role, row in found["processes"].items():
        own, files = row["own_mb"], "/".join(map(str, row["files"]))
        print(f"{role:12}{own[0]:9.1f} -> {own[1]:8.1f} MB ({row['growth']:+.2%}), files {files}")
    print(f"drift {found['drift_ms']:+.1f} ms in {found['minutes']:.0f} minutes; frames {found['frames']}")
    print(f"fps {found['fps']}; restarts {found['restarts'] or 'none'}; {'flat' if found['ok'] else 'NOT FLAT'}")
    if given.json:
        given.json.write_text(json.dumps({**found, "samples": samples}, indent=1))
    raise SystemExit(not found["ok"])


if __name__ == "__main__":
    main()
