"""What the host waits for in a tracked step, and what the device does in it: read from a profile of torch's.

Two ways to see a wait, for neither sees all: the calls of CUDA's runtime that wait, with copies from pageable memory,
in a profile (CUPTI); and torch's own warnings (`torch.cuda.set_sync_debug_mode`), which name the line.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

STEP = "rtseg: step"
# These return when the device has done something. cudaMemcpy and cudaMemset without "Async" wait; cudaFree waits too.
WAITING = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize", "cudaMemcpy", "cudaMemcpy2D",
           "cudaFree", "cudaFreeHost", "cudaHostAlloc", "cudaMalloc", "cudaEventQuery", "cuStreamSynchronize",
           "cuEventSynchronize", "cuCtxSynchronize")  # fmt: skip
PAGEABLE = "(Pageable -> Device)"  # the host waits until it is staged, behind all that is queued
MOST = 1  # waits a step: the one for its masks


@dataclass(frozen=True, slots=True)
class Event:
    """One thing in a profile: times in us; `on_device` for kernels and copies."""

    name: str
    start: float
    end: float
    on_device: bool


def count(events: Iterable[Event]) -> dict[str, Any]:
    """Per step: waits by name, launches from the host, kernels, copies, and how long the device worked in ms."""
    events = list(events)
    steps = [e for e in events if e.name == STEP and not e.on_device]
    if not steps:
        return {"steps": 0}
    inside = [e for e in events if any(s.start <= e.start <= s.end for s in steps)]
    calls, device = [e for e in inside if not e.on_device], [e for e in inside if e.on_device and e.name != STEP]
    # Device times of a step that had not begun when its range ended would be missed: a step ends with its wait.
    waits = Counter(e.name for e in calls if e.name in WAITING)
    waits.update("copy from pageable memory" for e in device if PAGEABLE in e.name)
    copies = Counter(e.name for e in device if e.name.startswith(("Memcpy", "Memset")))
    n = len(steps)
    return {
        "steps": n,
        "waits": round(sum(waits.values()) / n, 3),
        "waits_by_name": {name: round(times / n, 3) for name, times in waits.items()},
        "launches": round(sum("Launch" in e.name for e in calls) / n, 2),
        "kernels": round((len(device) - sum(copies.values())) / n, 1),
        "copies": {name: round(times / n, 2) for name, times in copies.items()},
        "device_ms": round(busy(device) / n / 1e3, 4),
        "longest": longest(device, n),
    }


def busy(device: Sequence[Event]) -> float:
    """How long at least one thing ran, in us."""
    total, reached = 0.0, -1.0
    for e in sorted(device, key=lambda e: e.start):
        total += max(0.0, e.end - max(e.start, reached))
        reached = max(reached, e.end)
    return total


def longest(device: Sequence[Event], steps: int, shown: int = 12) -> list[tuple[str, float, int]]:
    """The kernels that take most: name, us a step, times a step."""
    total: Counter[str] = Counter()
    times: Counter[str] = Counter()
    for e in device:
        total[e.name] += round(e.end - e.start)
        times[e.name] += 1
    return [(name[:100], round(us / steps, 1), times[name] // steps) for name, us in total.most_common(shown)]


def profiled(step: Callable[[], object], steps: int) -> dict[str, Any]:
    """`count` of so many steps on the GPU; one more goes before them, in which the profiler settles."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile, record_function

    step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        step()
        for _ in range(steps):
            with record_function(STEP):
                step()
    found = [
        Event(e.name, e.time_range.start, e.time_range.end, e.device_type == DeviceType.CUDA) for e in seen.events()
    ]
    return count(found)


def warned(step: Callable[[], object], steps: int) -> dict[str, Any]:
    """How often a step made torch warn that it waits, and the lines that did."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(steps):
                step()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    lines = Counter(f"{w.filename.rpartition('/')[2]}:{w.lineno}" for w in caught if "synchroniz" in str(w.message))
    return {"waits": round(sum(lines.values()) / steps, 3), "lines": dict(lines.most_common(8))}
