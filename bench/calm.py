"""A feed without faults: the delay that it adds to the picture, its jitter, and the delay of its masks.

    python -m bench.calm [--seconds 60] [--overlay latest|sync] [--json FILE]

A clip of the synthetic endoscope (720p25, H.264) is played at its own rate with `nano`; a display receives every
message over ipc. The hash of every original picture is compared with that of the decoded clip. The annotation delay
runs from the capture of the frame that a mask belongs to until the overlay that shows it is sent.
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

from .room import Room, Seen, clip

PERIOD_MS = 40.0
ASKED = {
    "added delay p99": 5.75, "annotation delay p99": 120.0, "jitter p99": 8.0, "fps error %": 1.0, "not identical": 0.0,
}  # fmt: skip


def play(seconds: float, overlay: str) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="rtseg-"))
    try:
        hashes = clip(folder / "clip.mp4", seconds)
        with Room(str(folder / "clip.mp4"), folder, more=f'overlay = "{overlay}"', hashes=True) as room:
            room.until(lambda: room.display.status.get("state") == "ended", seconds + 30)
            time.sleep(0.5)
            return {**figures(room.display.seen, hashes), "report": room.finish()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def figures(seen: dict[str, list[Seen]], hashes: list[bytes]) -> dict[str, Any]:
    """Percentiles in ms; the first second is not counted."""
    video, overlay = (sorted(seen[kind], key=lambda m: m.seq)[25:] for kind in ("video", "overlay"))
    captured = {m.seq: m.captured_ns for m in seen["video"]}
    added = [(m.published_ns - m.captured_ns) / 1e6 for m in video]
    received = [(m.received_ns - m.captured_ns) / 1e6 for m in video]
    masked = [m for m in overlay if m.mask_seq in captured and m.state == "fresh"]
    annotation = [(m.published_ns - captured[m.mask_seq]) / 1e6 for m in masked]
    sent = np.array([m.published_ns for m in overlay]) / 1e6
    jitter = np.abs(np.diff(sent) - np.diff([m.seq for m in overlay]) * PERIOD_MS)
    fps = 1e3 * (len(sent) - 1) / (sent[-1] - sent[0])
    found = {
        "added delay": spread(added), "added delay, as received": spread(received),
        "annotation delay": spread(annotation), "jitter": spread(jitter),
    }  # fmt: skip
    return {
        **found, "fps": fps, "fps error %": abs(fps - 25) / 25 * 100, "pictures": len(seen["video"]),
        "missing": len(hashes) - len({m.seq for m in seen["video"]}),
        "not identical": sum(m.sha != hashes[m.seq] for m in seen["video"]), "fresh": len(masked),
        "shown": len(overlay),
    }  # fmt: skip


def spread(values: Any) -> dict[str, float]:
    points = {f"p{p}": float(np.percentile(values, p)) for p in (50, 95, 99)}
    return {**points, "max": float(np.max(values))}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.calm", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--overlay", choices=("latest", "sync"), default="latest")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = play(given.seconds, given.overlay)
    for name, value in found.items():
        if isinstance(value, dict) and "p50" in value:
            print(f"{name:28}" + "".join(f"{key} {ms:7.2f}   " for key, ms in value.items()) + "ms")
        elif name != "report":
            print(f"{name:28}{value:g}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    broken = [name for name, most in ASKED.items() if _value(found, name) > most or found["missing"]]
    print("as asked" if not broken else f"not as asked: {', '.join(broken)}")
    raise SystemExit(bool(broken))


def _value(found: dict[str, Any], name: str) -> float:
    return float(found[name.removesuffix(" p99")]["p99"] if name.endswith(" p99") else found[name])


if __name__ == "__main__":
    main()
