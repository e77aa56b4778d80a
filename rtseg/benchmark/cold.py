"""An engine in a process of its own: how long it takes to start, and how much memory it holds.

    python -m rtseg.benchmark.cold < request.json

In the benchmark's own process neither could be told: many engines share it, and what the first one loads is there
for the second. The answer is one JSON document, the last line of stdout.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..config import MemoryPlan, Recipe
from ..errors import EngineError, RtsegError
from ..types import now_ns

ROOT = Path(__file__).parents[2]  # of the modules: a checkout, or site-packages
TRACKED = 30  # frames after which every memory is full, and has been for a while


def cold_start(recipe: Recipe, source: str, prompts: Path | None) -> dict[str, Any]:
    """Open an engine in a new process and track one object; times in ms and memory in MiB.

    `EngineError` if it cannot be opened or the process dies; the text is the error's own.
    """
    request = {"recipe": asdict(recipe), "source": source, "prompts": prompts}
    places = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "rtseg.benchmark.cold"],
        input=json.dumps(request, default=str), capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": places},
    )  # fmt: skip
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise EngineError(f"its process ended with code {done.returncode}: {last}") from None
    if "error" in answer:
        raise EngineError(answer["error"])
    return answer


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What the new process does; the keys of `request` are those that `cold_start` writes."""
    from .clip import load_clip

    clip = load_clip(request["source"], request["prompts"] and Path(request["prompts"]), TRACKED)
    start_ns = now_ns()
    from ..engine import open_engine
    from .lane import Lane

    loaded_ns, loaded_mib = now_ns(), resident_mib("VmRSS")
    engine = open_engine(_recipe(request["recipe"]))
    opened_ns = now_ns()
    lane = Lane(engine, clip, 1)
    first_ms, tracked_ms = lane.first_frame(), [lane.step() for _ in range(TRACKED)]
    return {
        "import_ms": round((loaded_ns - start_ns) / 1e6, 1),
        "open_ms": round((opened_ns - loaded_ns) / 1e6, 1),
        "first_frame_ms": round(first_ms, 2),
        "first_tracked_ms": round(tracked_ms[0], 2),
        "resident_mib": {"before": loaded_mib, "steady": resident_mib("VmRSS"), "peak": resident_mib("VmHWM")},
        "cuda_mib": _cuda_mib(),
    }


def resident_mib(which: str) -> float:
    """Memory of this process that is in RAM, now ("VmRSS") or at most ("VmHWM"); 0 where Linux does not say.

    Not `getrusage`: there a process begins with the peak of the one that started it.
    """
    path = Path("/proc/self/status")
    found = re.search(rf"^{which}:\s*(\d+) kB", path.read_text("utf-8"), re.M) if path.is_file() else None
    return round(int(found[1]) / 1024, 1) if found else 0.0


def _cuda_mib() -> dict[str, float] | None:
    """What torch holds on the GPU, and what the whole device has in use, by others too."""
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return None
    free, total = torch.cuda.mem_get_info()
    found = {
        "peak": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.memory_reserved(), "device": total - free
    }  # fmt: skip
    return {name: round(size / 2**20, 1) for name, size in found.items()}


def _recipe(values: dict[str, Any]) -> Recipe:
    path = None if values["path"] is None else Path(values["path"])
    return Recipe(**{**values, "memory": MemoryPlan(**values["memory"]), "path": path})


def main() -> None:
    try:
        result = answer(json.load(sys.stdin))
    except RtsegError as e:
        result = {"error": str(e)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
