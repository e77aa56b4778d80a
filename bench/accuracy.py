"""How well an engine follows what it was shown once: IoU through the real `Tracker`, for each memory policy.

    python -m bench.accuracy --weights rtseg/weights/nano.safetensors --data ../shared/data

Every object is given on the first frame, as its true mask or as --prompt says; the tracker does the rest, all objects
of a sequence together. IoU is the mean over the frames after the first one; a frame where mask and truth are both
empty counts as 1, and one where only one of them is as 0. What is followed is held out from training
(`rtseg.adapt.data.VALIDATION`): surgical tools, general objects, and synthetic endoscopes of held-out seeds at 25
fps, each at its own resolution.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import rtseg
from rtseg.adapt.data import HELD_OUT_SEED, VALIDATION, Sequence, read_sequence, render_sequence
from rtseg.adapt.validate import follow, mean_iou

DATA = Path(__file__).parents[2] / "shared" / "data"
ENGINE = Path(__file__).parents[1] / "engines" / "nano-cpu.toml"
POLICIES = ("fifo", "efp-window", "efp")
SCENES, SCENE_FRAMES, SCENE_FPS = 3, 75, 25.0
WHOLE = 10**6  # a short side that no video has: read it unshrunk


@dataclass(frozen=True, slots=True)
class Score:
    """What one policy did on one sequence; `iou_per_object` by id, `ms` for a frame with all of its objects."""

    group: str
    sequence: str
    policy: str
    frames: int
    width: int
    height: int
    iou_per_object: dict[int, float]
    ms: float

    @property
    def iou(self) -> float:
        """Mean over the objects."""
        return float(np.mean(list(self.iou_per_object.values())))


def sequences(data: Path, frames: int | None) -> Iterator[tuple[str, Sequence]]:
    """(group, sequence) of everything that is held out, one in memory at a time, each cut to `frames`."""
    for folder, names in VALIDATION.items():
        for name in names:
            yield folder, cut(read_sequence(data / folder, name, WHOLE), frames)
    for scene in range(SCENES):
        count = min(SCENE_FRAMES, frames or SCENE_FRAMES)
        yield "synthetic", render_sequence(HELD_OUT_SEED + scene, count, SCENE_FPS, 640, 480)


def cut(seq: Sequence, frames: int | None) -> Sequence:
    """The first `frames` of a sequence."""
    return Sequence(seq.name, seq.image_thwc[:frames], seq.ids_thw[:frames])


def score(engine: rtseg.Engine, group: str, seq: Sequence, policy: str, prompt: str) -> Score:
    """Follow every object of a sequence, and compare with the truth."""
    start = time.perf_counter()
    found = follow(engine, seq, policy, prompt)
    ms = (time.perf_counter() - start) * 1e3 / len(seq.image_thwc)
    ious = {i: round(mean_iou(mask_thw, seq.ids_thw == i), 4) for i, mask_thw in found.items()}
    frames, height, width = seq.ids_thw.shape
    return Score(group, seq.name, policy, frames, width, height, ious, round(ms, 1))


def report(engine: rtseg.Engine, scores: list[Score]) -> dict[str, Any]:
    """The scores, their means over the objects of each group, and what they were measured with."""
    means: dict[str, dict[str, float]] = {}
    for group in dict.fromkeys(s.group for s in scores):
        for policy in dict.fromkeys(s.policy for s in scores):
            ious = [v for s in scores if (s.group, s.policy) == (group, policy) for v in s.iou_per_object.values()]
            means.setdefault(group, {})[policy] = round(float(np.mean(ious)), 4)
    return {
        "version": rtseg.__version__,
        "model": engine.preset.name,
        "weights_sha256": engine.weights_hash,
        "image_size": engine.image_size,
        "engine": engine.description,
        "mean_iou": means,
        "sequences": [asdict(s) | {"iou": round(s.iou, 4)} for s in scores],
    }


def table(result: dict[str, Any], scores: list[Score]) -> Table:
    """One row a sequence and one a group, one column a policy."""
    policies = list(dict.fromkeys(s.policy for s in scores))
    title = (
        f"IoU of {result['model']} at {result['image_size']} px, weights {result['weights_sha256'][:12]}\n"
        f"{result['engine']}; first frame given as a {result['prompt']}, and not counted"
    )
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    made.add_column("sequence")
    for name in ("frames", "size", "objects", *policies, "ms/frame"):
        made.add_column(name, justify="right")
    for group, means in result["mean_iou"].items():
        for name in dict.fromkeys(s.sequence for s in scores if s.group == group):
            of = {s.policy: s for s in scores if s.sequence == name}
            one = of[policies[0]]
            cells = [str(one.frames), f"{one.width}x{one.height}", str(len(one.iou_per_object))]
            ms = f"{np.mean([s.ms for s in of.values()]):.0f}"
            made.add_row(name, *cells, *(f"{of[p].iou:.3f}" for p in policies), ms)
        made.add_row(f"[bold]{group}", "", "", "", *(f"[bold]{means[p]:.3f}" for p in policies), "")
    return made


def measure(
    engine: rtseg.Engine, found: Iterable[tuple[str, Sequence]], policies: Iterable[str], prompt: str
) -> list[Score]:
    """Every sequence under every policy; says on stderr what it is at."""
    policies = list(policies)
    scores = []
    for group, seq in found:
        for policy in policies:
            print(f"{group}: {seq.name}, {policy}", file=sys.stderr, flush=True)
            scores.append(score(engine, group, seq, policy, prompt))
    return scores


def main(arguments: list[str] | None = None) -> int:
    """`python -m bench.accuracy`."""
    parser = argparse.ArgumentParser(prog="python -m bench.accuracy", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--engine", type=Path, default=ENGINE, help="the recipe (default: engines/nano-cpu.toml)")
    parser.add_argument("--weights", help="a weights file, or package:NAME (default: the recipe's)")
    parser.add_argument("--size", type=int, help="image_size (default: the recipe's)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with robotic-tools and davis-subset")
    parser.add_argument("--policy", nargs="+", choices=POLICIES, default=POLICIES)
    parser.add_argument("--prompt", choices=("mask", "box", "click"), default="mask", help="what is said on frame 0")
    parser.add_argument("--frames", type=int, help="at most so many frames a sequence (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON document in place of the table")
    given = parser.parse_args(arguments)
    overrides = {"weights": given.weights, "image_size": given.size}
    try:
        engine = rtseg.open_engine(given.engine, **{key: value for key, value in overrides.items() if value})
        scores = measure(engine, sequences(given.data, given.frames), given.policy, given.prompt)
    except rtseg.RtsegError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    result = report(engine, scores) | {"prompt": given.prompt}
    if given.json:
        print(json.dumps(result, indent=1))
    else:
        Console().print(table(result, scores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
