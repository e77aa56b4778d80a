"""The parts of a run in their order, each with a share of the time: is it right, how fast, beside whom, what limits it.

On a CPU the same parts run on a tiny network, so that CI runs all that is not a GPU's own.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.gpu import clip, fuzz, limits, peers, speed, verbs
from bench.gpu.case import Case, case_of
from bench.roofline import Work
from rtseg.base.hardware.facts import facts
from rtseg.build.doctor import versions

CASES = ("sam2.1-tiny:512", "sam2.1-tiny:1024", "sam2.1-small:512", "nano:320")
TINY = "micro:64"  # on a CPU
OBJECTS = (1, 2, 4, 8)
SPARE = 0.75  # of its time after which a part begins nothing more

Note = Callable[[dict[str, Any]], None]
Work_ = Callable[["Job"], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """What a part is given: the device, a seed for what is random, when to begin nothing more, and who hears of it."""

    device: str
    seed: int
    deadline: float
    note: Note


@dataclass(frozen=True, slots=True)
class Part:
    """One part: seconds it may take, and needs to be worth beginning; `judges`: it says whether the engine is right."""

    name: str
    share_s: float
    least_s: float
    work: Work_
    judges: bool = False


def parts(device: str, cases: tuple[str, ...]) -> list[Part]:
    """All parts for a device, in the order in which they run."""
    return _on_cpu() if device == "cpu" else _on_gpu(cases)


def _on_gpu(cases: tuple[str, ...]) -> list[Part]:
    first = cases[0]
    found = [
        Part("machine", 20, 5, machine, judges=True),
        Part(
            "verbs nano:256", 35, 10, partial(check_verbs, "nano:256", ("fp32", "bf16", "fp16"), False, 3), judges=True
        ),
        Part(f"verbs {first}", 70, 20, partial(check_verbs, first, ("bf16",), True, 2), judges=True),
        Part("parity nano:320", 60, 20, partial(check_parity, "nano:320", "bf16", None), judges=True),
        Part("fuzz fp32", 25, 8, partial(check_fuzz, "fp32", 10**6), judges=True),
        Part("fuzz bf16", 20, 8, partial(check_fuzz, "bf16", 10**6), judges=True),
        Part("sanitizer", 75, 20, partial(check_sanitizer, TINY), judges=True),
    ]
    # What is compiled for the first time takes most of a part; the next ones find it in inductor's cache.
    found += [Part(f"speed {c}", 150, 15, partial(time_case, c, 1000, OBJECTS)) for c in cases[:2]]
    found += [Part(f"peers {c}", 50, 20, partial(beside_peers, c, peers.EAGER, 25, 8, 60)) for c in cases[:2]]
    found += [Part(f"limits {c}", 60, 10, partial(find_limits, c, True)) for c in cases[:2]]
    found += [Part(f"compiled {c}", 90, 40, partial(beside_peers, c, peers.COMPILED, 25, 8, 60)) for c in cases[:2]]
    found += [Part(f"speed {c}", 60, 15, partial(time_case, c, 500, OBJECTS)) for c in cases[2:]]
    found += [
        Part(f"variants {first}", 90, 30, partial(time_case, first, 500, ())),
        Part("frame kernels", 25, 8, partial(frame_kernels, first)),
        Part("EdgeTAM", 30, 12, partial(edgetam, "sam2.1-tiny:512")),
        Part("TensorRT", 240, 90, partial(tensorrt, first)),
    ]
    return found


def _on_cpu() -> list[Part]:
    return [
        Part("machine", 30, 1, machine, judges=True),
        Part(f"verbs {TINY}", 60, 1, partial(check_verbs, TINY, ("fp32", "bf16"), False, 1), judges=True),
        Part("parity micro:64", 60, 1, partial(check_parity, TINY, "fp32", 6), judges=True),
        Part("fuzz fp32", 60, 1, partial(check_fuzz, "fp32", 2), judges=True),
        Part("sanitizer", 60, 1, partial(check_sanitizer, TINY), judges=True),
        Part(f"speed {TINY}", 60, 1, partial(time_case, TINY, 5, OBJECTS[:2])),
        Part(f"peers {TINY}", 60, 1, partial(beside_peers, TINY, peers.EAGER, 2, 2, 2)),
        Part(f"limits {TINY}", 60, 1, partial(find_limits, TINY, False)),
        Part("frame kernels", 60, 1, partial(frame_kernels, TINY)),
        Part("EdgeTAM", 60, 1, partial(edgetam, TINY)),
        Part("TensorRT", 60, 1, partial(tensorrt, TINY)),
    ]


def machine(job: Job) -> dict[str, Any]:
    """What it is measured on. No GPU where one was asked for ends the run."""
    import torch

    if job.device != "cpu" and not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        return {"ok": False, "missing": f"torch {torch.__version__} ({built}) sees no CUDA device; see `rtseg doctor`"}
    found: dict[str, Any] = {"ok": True, "facts": facts(), "versions": versions()}
    if job.device != "cpu":
        found |= {
            "bf16": torch.cuda.is_bf16_supported(False),
            "smi": smi(),
            "free_gib": round(torch.cuda.mem_get_info()[0] / 2**30, 1),
        }
    return found


def smi() -> dict[str, str]:
    """Driver, clocks, power and temperature, as the driver's tool says; none where it is not there."""
    keys = (
        "driver_version",
        "clocks.sm",
        "clocks.max.sm",
        "power.limit",
        "temperature.gpu",
        "utilization.gpu",
        "mig.mode.current",
    )
    try:
        command = ["nvidia-smi", f"--query-gpu={','.join(keys)}", "--format=csv,noheader"]
        output = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(keys, (word.strip() for word in output.splitlines()[0].split(",")), strict=False))


def check_verbs(name: str, precisions: tuple[str, ...], fuse: bool, draws: int, job: Job) -> dict[str, Any]:
    case, report = case_of(name, job.device, fuse), {"ok": True, "checks": []}
    for precision in precisions:
        for objects in (1, 3) if job.device != "cpu" else (2,):
            if report["checks"] and time.monotonic() > job.deadline:
                report.setdefault("left", []).append(f"{precision}, {objects} objects")
                continue
            found = verbs.check(case, precision, objects, draws, job.seed)
            report["checks"].append({"precision": precision, **found})
            report["ok"] &= found["ok"]
            job.note(report)
    return report


def check_parity(name: str, precision: str, frames: int | None, job: Job) -> dict[str, Any]:
    return clip.check(case_of(name, job.device, shipped=True), precision, "efp", frames)


def check_fuzz(precision: str, scripts: int, job: Job) -> dict[str, Any]:
    case = case_of(TINY, job.device, fuse=False, shipped=True)
    return fuzz.check(case, precision, job.seed, job.deadline, scripts, note=job.note)


def check_sanitizer(name: str, job: Job) -> dict[str, Any]:
    if job.device == "cpu":
        return {"absent": "needs a GPU"}
    return clip.sanitized(case_of(name, job.device), (job.deadline - time.monotonic()) / SPARE)


def time_case(name: str, frames: int, objects: tuple[int, ...], job: Job) -> dict[str, Any]:
    """By number of objects; of none of them, the variants of one object."""
    rows = speed.rows(objects) if objects else list(speed.VARIANTS)
    return speed.measure(case_of(name, job.device), rows, frames, job.deadline, job.note)


def beside_peers(name: str, other: str, warm: int, rounds: int, frames: int, job: Job) -> dict[str, Any]:
    case = case_of(name, job.device)
    return peers.compare(case, warm, rounds, frames, job.deadline, job.note, peers.makers(case, other))


def find_limits(name: str, fuse: bool, job: Job) -> dict[str, Any]:
    case = case_of(name, job.device)
    large = {} if job.device != "cpu" else {"copied": 2**22, "side": 256}
    ceiling = limits.ceilings(job.device, **large)
    return limits.measure(case, Work(case.preset, case.size), ceiling, fuse)


def frame_kernels(name: str, job: Job) -> dict[str, Any]:
    return peers.frame_kernels(case_of(name, job.device))


def edgetam(name: str, job: Job) -> dict[str, Any]:
    if job.device == "cpu":
        return {"absent": "on a CPU: `python -m bench.peers` has it"}
    return peers.edgetam(case_of(name, job.device), 20, 4, 30, job.deadline, job.note)


def tensorrt(name: str, job: Job) -> dict[str, Any]:
    return peers.tensorrt(case_of(name, job.device), 25, 5, 60, job.deadline, job.note)


__all__ = ["CASES", "Case", "Job", "Part", "parts"]
