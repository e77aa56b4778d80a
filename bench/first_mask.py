"""From the start of a process to its first mask: one contender of `peers`, alone in a new process.

    python -m bench.first_mask < request.json

Importing, opening, and the whole first step count; what does not is bringing it the pictures and our network, whose
weights theirs are given in memory.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rtseg.base.types import now_ns

WEIGHTS, PICTURES, PIXELS = "weights.safetensors", "pictures.npy", "pixels.npy"


def ms(request: dict[str, Any]) -> float:
    """Milliseconds to the first mask, from the moment that the last argument names."""
    start_ns, folder = int(sys.argv[-1]), Path(request["folder"])
    if request["graphs"] is not None:
        return graphs_ms(start_ns, folder, request)
    from bench.field import read_task, their_makers

    loading_ns = now_ns()
    task = read_task(folder, request)
    start_ns += now_ns() - loading_ns
    their_makers(task, compiled=False)[request["name"]]().step()
    return (now_ns() - start_ns) / 1e6


def graphs_ms(start_ns: int, folder: Path, request: dict[str, Any]) -> float:
    """Of exported graphs, which need no torch."""
    import numpy as np

    from bench.exported_run import Runner

    loading_ns = now_ns()
    image_1chw = np.load(folder / PIXELS)[:1]
    start_ns += now_ns() - loading_ns
    Runner(Path(request["graphs"]), request["threads"], request["box"]).step(image_1chw)
    return (now_ns() - start_ns) / 1e6


def main() -> None:
    request = json.load(sys.stdin)
    try:
        answer = {"first_mask_ms": ms(request)}
    except Exception as e:  # foreign code fails in any way
        answer = {"error": " ".join(f"{type(e).__name__}: {e}".split())[:300]}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
