"""Whole clips: the parity check on its own; and a short one under compute-sanitizer, which watches every access."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu.case import Case, boxes, endoscope, get_ready
from rtseg.build.clips import Clip, synthetic_clip
from rtseg.build.parity import check_parity, explain
from rtseg.engine import Engine
from rtseg.track import Tracker

ROOT = Path(__file__).parents[2]
SANITIZER = "compute-sanitizer"
FOUND = 77  # how it is told to end where it has found something
SUMMARY = re.compile(r"ERROR SUMMARY: (\d+) error")
OBJECTS = 4  # of the parity check's clip


def check(
    case: Case, precision: str, policy: str, frames: int | None, candidate: Engine | None = None
) -> dict[str, Any]:
    """The parity check's report on an engine, on its own clip or the beginning of it.

    The reference is fp32 on the same device, as for `rtseg build`: the parity check hands its tensors to both.
    """
    clip = synthetic_clip(case.size, OBJECTS)
    if frames is not None:
        clip = beginning(clip, frames)
    engine = candidate or case.engine(precision, policy, OBJECTS)
    report = check_parity(case.reference(policy, OBJECTS, case.device), engine, clip)
    kept = ("ok", "frames", "least", "mean", "failures", "telling_masks", "verbs")
    found = {key: report[key] for key in kept} | {"engine": engine.description}
    return found if report["ok"] else {**found, "why": explain(report)}


def beginning(clip: Clip, frames: int) -> Clip:
    """The first frames of a clip."""
    prompts = {t: given for t, given in clip.prompts.items() if t < frames}
    return replace(clip, frames=lambda: islice(clip.frames(), frames), prompts=prompts, count=frames)


def sanitizer() -> str | None:
    """compute-sanitizer on the PATH, in a CUDA toolkit, or in one of NVIDIA's packages."""
    on_path = shutil.which(SANITIZER)
    if on_path:
        return on_path
    output = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    homes = [*map(Path, output), *sorted(Path("/usr/local").glob("cuda*"))]
    homes += [p for entry in sys.path for p in Path(entry).glob("nvidia/*") if entry]
    places = [home / folder / SANITIZER for home in homes for folder in ("bin", "compute-sanitizer")]
    return next((str(place) for place in places if place.is_file()), None)


def sanitized(case: Case, seconds: float, run: Callable[..., Any] = subprocess.run) -> dict[str, Any]:
    """A short tracked clip under its memcheck; `absent`: it is not installed; `unfinished`: it takes longer."""
    program = sanitizer()
    if program is None:
        return {"absent": f"{SANITIZER} is neither on the PATH nor in CUDA_HOME"}
    command = [program, "--tool", "memcheck", "--error-exitcode", str(FOUND), sys.executable, "-m", "bench.gpu.clip"]
    command += [case.preset, str(case.size), case.device]
    try:
        done = run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"unfinished": f"{SANITIZER}: not through in {seconds:.0f} s"}
    return verdict(done.returncode, done.stdout + done.stderr)


def verdict(code: int, output: str) -> dict[str, Any]:
    """What its report comes to. Without a summary, or a clip that ran to its end, nothing was proved."""
    found = SUMMARY.search(output)
    ran = "tracked" in output
    lines = [line for line in output.splitlines() if line.strip()]
    if found is None or (not ran and found[1] == "0"):
        return {"ok": False, "exit": code, "last": lines[-6:]}
    report: dict[str, Any] = {"ok": found[1] == "0" and code == 0, "errors": int(found[1]), "exit": code}
    return report if report["ok"] else {**report, "first": [line for line in lines if line.startswith("=====")][:12]}


def track(case: Case, frames: int) -> None:
    """What runs under it: two objects, the encoder as it is, graphs captured and replayed."""
    pictures, _ = endoscope(case.size, case.size, frames)
    engine = case.engine("bf16", objects=2)
    get_ready(engine, case.size, case.size)
    tracker = Tracker(engine, "fifo")
    tracker.cuts = False  # with random weights, any two masks may come to cover one thing
    for i, box in enumerate(boxes(case.size, case.size, 2), 1):
        tracker.prompt(i, box=box)
    shown = [tracker.step(picture).mask_logits_bhw for picture in pictures]
    print(f"tracked {len(shown)} frames, {sum(int(np.isfinite(s).all()) for s in shown)} of numbers", flush=True)


if __name__ == "__main__":
    # Without the encoder compiled: its compiler takes minutes under the sanitizer, and is not what is looked at.
    track(Case(sys.argv[1], int(sys.argv[2]), sys.argv[3], fuse=False), 4)
