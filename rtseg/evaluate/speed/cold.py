"""An engine in a process of its own: its time to start, and its memory.

    python -m rtseg.evaluate.speed.cold < request

The benchmark's own process cannot measure them, because many engines share it, and the libraries that the first one
loads are loaded for the second. `cold_start` pickles the request; the answer is one JSON document, the last line of
stdout.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base.errors import EngineError, RtsegError
from ...base.hardware.memory import peak_resident_bytes, resident_bytes
from ...base.types import now_ns

if TYPE_CHECKING:
    from ...engine.recipe import Recipe
    from .looped_clip import LoopedClip

ROOT = Path(__file__).parents[3]  # the folder of the package: a checkout, or site-packages
FRAMES = 8  # how many frames of the clip the process gets
TRACKED = 30  # frames after which the bank has been full for a while


def cold_start(recipe: Recipe, clip: LoopedClip, most_ms: float = 10_000.0) -> dict[str, Any]:
    """Open an engine in a new process and track one object. Returns times in ms and memory in MiB.

    `first_mask_ms` is from the start of the process to its first mask, without the transfer of the clip. 30 frames are
    tracked; fewer, but at least three, if that takes longer than `most_ms`. Raises `EngineError`, with the text of the
    process's error, if the engine cannot be opened or the process dies.
    """
    little = replace(clip, frames=clip.frames[:FRAMES])
    parts = [pickle.dumps(part) for part in (recipe, little, most_ms)]
    return in_process("rtseg.evaluate.speed.cold", b"".join(parts), ROOT)


def in_process(module: str, request: bytes, root: Path, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Run a module in a new process, with the start time (ns) as the last argument, and return its JSON answer."""
    places = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments, str(now_ns())],
        input=request, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": places},
    )  # fmt: skip
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no output"])[-1]
        raise EngineError(f"its process ended with code {done.returncode}: {last}") from None
    if "error" in answer:
        raise EngineError(answer["error"])
    return answer


def answer(start_ns: int, request: Any) -> dict[str, Any]:
    """Answer a request in the new process. `request` is the stream that `cold_start` has pickled."""
    from ...engine import open_engine
    from .timed_run import TimedRun

    recipe = pickle.load(request)
    loaded_ns, loaded_mib = now_ns(), _mib(resident_bytes())
    engine = open_engine(recipe)
    opened_ns = now_ns()
    clip, most_ms = pickle.load(request), pickle.load(request)
    run = TimedRun(engine, clip, 1)
    first_ms, tracked_ms = run.first_frame(), [run.step()]
    while len(tracked_ms) < TRACKED and (len(tracked_ms) < 3 or sum(tracked_ms) < most_ms):
        tracked_ms.append(run.step())
    return {
        "import_ms": round((loaded_ns - start_ns) / 1e6, 1),
        "open_ms": round((opened_ns - loaded_ns) / 1e6, 1),
        "first_frame_ms": round(first_ms, 2),
        "first_mask_ms": round((opened_ns - start_ns) / 1e6 + first_ms, 1),
        "first_tracked_ms": round(tracked_ms[0], 2),
        "tracked": len(tracked_ms),
        "resident_mib": {"before": loaded_mib, "steady": _mib(resident_bytes()), "peak": _mib(peak_resident_bytes())},
        "cuda_mib": _cuda_mib(engine.recipe.device),
    }


def _mib(size: int) -> float:
    return round(size / 2**20, 1)


def _cuda_mib(device: str) -> dict[str, float] | None:
    """The MiB that torch uses on the engine's GPU, and those in use on the whole device, by others, too."""
    torch = sys.modules.get("torch")  # loaded only by an engine that needs it
    if torch is None or not device.startswith("cuda") or not torch.cuda.is_initialized():
        return None
    cuda, (free, total) = torch.cuda, torch.cuda.mem_get_info(device)
    found = {
        "peak": cuda.max_memory_allocated(device), "reserved": cuda.memory_reserved(device), "device": total - free
    }  # fmt: skip
    return {name: round(size / 2**20, 1) for name, size in found.items()}


def main() -> None:
    try:
        result = answer(int(sys.argv[-1]), sys.stdin.buffer)
    except RtsegError as e:
        result = {"error": str(e)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
