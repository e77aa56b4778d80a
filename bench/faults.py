"""Injects every fault of an operating room, several times: how long the picture was away, and how long the masks.

    python -m bench.faults [--quick] [--times 20] [--only "kill segment,stop grab"] [--messages 100000] [--json FILE]

A simulated camera (bench/camera.py) sends 720p25 over TCP; the feed runs `nano`, and a display receives it over ipc. A
picture gap is the longest time between two original pictures when they were sent. Recovery is the time until a picture
captured after the fault (for faults of the source: after its end) is shown with fresh masks, and the feed is running.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rtseg.base.types import now_ns

from .camera import Camera
from .fuzz import fuzz_control, fuzz_wire
from .room import BOX, Display, Room, processes_of

PERIOD_MS = 40.0
GAP_MS = 2 * PERIOD_MS  # the longest gap of a fault that does not concern the picture


@dataclass(frozen=True, slots=True)
class Fault:
    """`do` injects it and returns when it was over (ns). Promised: seconds to recovery, and ms without a picture."""

    name: str
    do: Callable[[Setup], int]
    recovery_s: float
    gap_ms: float = float("inf")
    room: Mapping[str, Any] = field(default_factory=dict)  # options of `Room`, which starts the feed
    each: bool = False  # whether each trial has a new feed


@dataclass(slots=True)
class Setup:
    room: Room
    camera: Camera
    messages: int


def killed(role: str) -> Callable[[Setup], int]:
    def do(t: Setup) -> int:
        os.kill(t.room.child(role), signal.SIGKILL)
        return now_ns()

    return do


def stopped(role: str, seconds: float = 5.0) -> Callable[[Setup], int]:
    """Stop a worker. Recovery counts from the stop if it is replaced, else from when it continues."""

    def do(t: Setup) -> int:
        pid, since_ns = t.room.child(role), now_ns()
        os.kill(pid, signal.SIGSTOP)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.01)
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            return since_ns
        return now_ns()

    return do


def camera(command: str, seconds: float) -> Callable[[Setup], int]:
    def do(t: Setup) -> int:
        t.camera.say(command)
        time.sleep(seconds)
        return now_ns()

    return do


def resized(t: Setup) -> int:
    t.camera.say("size 640x360")
    time.sleep(1.0)
    t.camera.say("size 1280x720")
    time.sleep(0.2)
    return now_ns()


def network_raises(t: Setup) -> int:
    os.kill(t.room.child("segment"), signal.SIGUSR1)
    return now_ns()


NEVER_READS = "import sys, time, zmq; s = zmq.Context().socket(zmq.SUB); s.setsockopt(zmq.RCVHWM, 1); "
NEVER_READS += "s.subscribe(''); s.connect(sys.argv[1]); print('on', flush=True); time.sleep(60)"


def idle_subscriber(t: Setup) -> int:
    """A subscriber to everything that never reads, and is killed after two seconds."""
    idle = subprocess.Popen([sys.executable, "-c", NEVER_READS, t.room.endpoint], stdout=subprocess.PIPE)
    assert idle.stdout is not None
    idle.stdout.readline()
    time.sleep(2)
    idle.kill()
    idle.wait()
    idle.stdout.close()
    return now_ns()


def fuzz(which: Callable[..., Any], where: str) -> Callable[[Setup], int]:
    seeds = iter(range(10**6))

    def do(t: Setup) -> int:
        which(f"ipc://{t.room.folder}/{where}", t.messages, next(seeds))
        over_ns = now_ns()
        if where == "control":  # some of the fuzzed requests are still valid
            t.room.client.reset()
            t.room.client.set(opacity=0.28, budget_ms=120.0)
            t.room.client.add(1, box=BOX, label="tool")
        return over_ns

    return do


def supervisor_killed(t: Setup) -> int:
    """SIGKILL of the supervisor: its workers and memory must be gone, and the same feed can start again."""
    children, before = processes_of(t.room.pid), set(Path("/dev/shm").iterdir())
    since_ns = now_ns()
    t.room.kill()
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        if now_ns() - since_ns > 2e9:
            raise AssertionError(f"processes {children} outlive their supervisor")
        time.sleep(0.005)
    if set(Path("/dev/shm").iterdir()) - before:
        raise AssertionError("shared memory was left behind")
    for rows in t.room.display.seen.values():
        rows.clear()  # the new feed counts its frames from 0
    t.room.begin()
    return since_ns


def wrong_key(t: Setup) -> int:
    """A subscriber whose key is not on the allow list, and one without a key; neither may receive anything."""
    keys = t.room.folder / "keys"
    intruder = Display(t.room.endpoint, keys=keys / "eve.key_secret")
    without = Display(t.room.endpoint)
    time.sleep(2.0)
    for one in (intruder, without):
        one.close()
        if one.counts:
            raise AssertionError(f"a intruder received {dict(one.counts)}")
    return now_ns()


def disk_full(t: Setup) -> int:
    """The disk of the recordings is full; only the recorder may stop."""
    t.room.until(lambda: "record" in t.room.display.status.get("faults", {}), 30)
    return now_ns()


FAULTS = [
    Fault("kill grab", killed("grab"), 2.0),
    Fault("kill segment", killed("segment"), 3.0, GAP_MS),
    Fault("kill publish", killed("publish"), 2.0),
    Fault("stop grab 5 s", stopped("grab"), 5.0),
    Fault("stop segment 5 s", stopped("segment"), 8.0, GAP_MS),
    Fault("stop publish 5 s", stopped("publish"), 5.0),
    Fault("stop supervisor 5 s", stopped("supervisor"), 2.0, GAP_MS),
    Fault("network raises", network_raises, 3.0, GAP_MS),
    Fault("source stalls 2 s", camera("stall 2", 2.0), 2.0),
    Fault("source frozen 2 s", camera("freeze 2", 2.0), 2.0, GAP_MS),
    Fault("pts jump 30 s", camera("jump 30", 0.2), 2.0),
    Fault("resolution change", resized, 2.0),
    Fault("corrupt packets 1 s", camera("corrupt 1", 1.0), 2.0),
    Fault("connection cut 2 s", camera("cut 2", 2.0), 2.0),
    Fault("subscriber never reads", idle_subscriber, 1.0, GAP_MS),
    Fault("fuzzed control", fuzz(fuzz_control, "control"), 1.0, GAP_MS),
    Fault("fuzzed wire", fuzz(fuzz_wire, "feed"), 1.0, GAP_MS),
    Fault("wrong key", wrong_key, 1.0, GAP_MS, {"locked": True}),
    Fault("kill record", killed("record"), 1.0, GAP_MS, {"record": "recordings"}),
    Fault("disk full", disk_full, 1.0, GAP_MS, {"record": "disk"}, each=True),
    Fault("kill supervisor", supervisor_killed, 10.0, each=True),
]


def trial(t: Setup, fault: Fault) -> dict[str, float]:
    """Inject a fault once, and wait for the recovery, and a second longer."""
    begin_ns = now_ns()
    over_ns = fault.do(t)
    t.room.until(lambda: t.room.display.fresh_after(over_ns), 30)
    rows = list(t.room.display.seen["overlay"])
    recovered_ns = next(m.received_ns for m in rows if m.shows(over_ns))
    time.sleep(1.0)
    return {"recovery_s": (recovered_ns - over_ns) / 1e9, "gap_ms": t.room.display.gap_ms(begin_ns, now_ns())}


@contextmanager
def set_up(fault: Fault, messages: int) -> Iterator[Setup]:
    folder = Path(tempfile.mkdtemp(prefix="rtseg-"))
    options = dict(fault.room)
    try:
        if "record" in options:
            options["record"] = folder / options["record"]
            options["record"].mkdir()
        if fault.do is disk_full:
            tmpfs = ["mount", "-t", "tmpfs", "-o", "size=4m", "rtseg-bench", str(options["record"])]
            subprocess.run(tmpfs, check=True)
        with Camera(size=(1280, 720)) as camera, Room(camera.url, folder, **options) as room:
            yield Setup(room, camera, messages)
    finally:
        if fault.do is disk_full:
            subprocess.run(["umount", "-l", str(options["record"])], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def perform(fault: Fault, times: int, messages: int) -> dict[str, Any]:
    """All trials of a fault, with a verdict."""
    trials, frames, seen = [], Counter[str](), 0
    for _ in range(times if fault.each else 1):
        with set_up(fault, messages) as t:
            trials += [trial(t, fault) for _ in range(1 if fault.each else times)]
            found = t.room.finish()["frames"]
            frames.update({"in": found["in"], "shown": found["shown"], **found["dropped"]})
            seqs = [m.seq for m in t.room.display.seen["video"]]
            seen += len(t.room.display.seen["overlay"])
            if seqs != sorted(set(seqs)):
                raise AssertionError(f"{fault.name}: a frame's number came twice, or out of order")
    return judged(fault, trials, frames, seen)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="each fault three times, with 500 fuzzed messages")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--only", default="", help="names, comma-separated")
    parser.add_argument("--messages", type=int, default=5000, help="fuzzed, each time")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    times, messages = (3, 500) if given.quick else (given.times, given.messages)
    only = [name.strip() for name in given.only.split(",") if name.strip()]
    rows = []
    print(
        f"{'fault':36}{'n':>4}{'recovery s: median':>20}{'worst':>8}{'promised':>10}{'gap ms: median':>16}{'worst':>8}"
    )
    for fault in [f for f in FAULTS if not only or f.name in only]:
        rows.append(perform(fault, times, messages))
        print(line(rows[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))
    raise SystemExit(not all(row["ok"] for row in rows))


def judged(fault: Fault, trials: list[dict[str, float]], frames: Counter[str], seen: int) -> dict[str, Any]:
    """A fault's figures and promises, and whether every frame is accounted for.

    `not_received`: overlays that the feed counts as shown and the display did not get, such as those that a killed
    publisher was sending.
    """
    recovery, gap = ([t[key] for t in trials] for key in ("recovery_s", "gap_ms"))
    lost = 2 * frames["in"] - frames.total()
    kept = max(recovery) <= fault.recovery_s and max(gap) <= fault.gap_ms and lost == 0
    return {
        "fault": fault.name, "n": len(trials), "recovery_s": recovery, "gap_ms": gap, "promised_s": fault.recovery_s,
        "promised_gap_ms": fault.gap_ms, "unaccounted": lost, "frames": dict(frames),
        "not_received": frames["shown"] - seen, "ok": kept,
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    recovery, gap = row["recovery_s"], row["gap_ms"]
    text = f"{row['fault']:36}{row['n']:>4}{np.median(recovery):>20.2f}{max(recovery):>8.2f}{row['promised_s']:>10g}"
    text += f"{np.median(gap):>16.0f}{max(gap):>8.0f}   {'ok' if row['ok'] else 'BROKEN'}"
    text += f"   {row['not_received']:>4}"
    return text + (f"; {row['unaccounted']} frames unaccounted for" if row["unaccounted"] else "")


if __name__ == "__main__":
    main()
