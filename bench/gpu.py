"""What an NVIDIA GPU gives: rtseg's `cuda` runtime beside transformers' Sam2VideoModel, on the same random weights.

    python -m bench.gpu            # the cases of the goals: tiny at 512 and 1024 px, small at 512
    python -m bench.gpu --device cpu --cases nano:64 --frames 4 --warm 2 --rounds 2    # the script itself, anywhere

A time is that of one tracked frame, from a picture in host memory to the mask in host memory: upload, resize,
network, memory, download. One object; its memory is full before anything is counted; contenders take turns in blocks,
and ratios are those of blocks side by side. IoU is with our fp32 reference under the same policy. Writes gpu.json
into $OUT, or where --json says. Needs neither av nor zmq, and transformers only for its rows. Exits with 2 where
there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

import rtseg
from bench.contenders import Contender, Ours, Task, Transformers, pixels_of, randomize
from rtseg.benchmark.statistics import speedup, summary
from rtseg.benchmark.turns import SETTLE
from rtseg.config import MemoryPlan, Recipe
from rtseg.doctor import versions
from rtseg.engine import Engine
from rtseg.engine.cuda import CudaEngine
from rtseg.engine.cuda import open as open_cuda
from rtseg.engine.reference import TorchEngine
from rtseg.errors import RtsegError
from rtseg.machine import commit, facts
from rtseg.sam2 import Sam2, get_preset

CASES = ("sam2.1-tiny:512", "sam2.1-tiny:1024", "sam2.1-small:512")
GOALS_MS = {"sam2.1-tiny:512": 1.5, "sam2.1-tiny:1024": 3.0, "sam2.1-small:512": 2.0}  # p50
TAIL, FASTER = 1.2, 5.0  # p99 over p50; ours over transformers eager
REFERENCE, OURS, EAGER, COMPILED = "rtseg torch fp32", "rtseg cuda bf16", "transformers bf16", "transformers compiled"
SEED = 3  # of the random weights: with this one the object stays small, and moves
SHOWN = 24  # pictures, there and back again
HD = (720, 1280)


@dataclass(frozen=True, slots=True)
class Case:
    """A network at an image size, and how much of it is measured."""

    preset: str
    size: int
    device: str
    warm: int
    rounds: int
    frames: int

    @property
    def name(self) -> str:
        return f"{self.preset}:{self.size}"

    def recipe(self, runtime: str, precision: str, policy: str) -> Recipe:
        plan = MemoryPlan(policy)
        return Recipe(self.preset, "random", self.size, runtime, precision, max_objects=1, memory=plan)

    def network(self) -> Sam2:
        """A new one each time, with the same weights: engines change theirs."""
        network = Sam2(get_preset(self.preset), self.size).eval()
        randomize(network, SEED)
        return network


def make_task(case: Case, height: int, width: int) -> Task:
    """Enough pictures of the synthetic endoscope at this size, and the box of a tool on the first."""
    uri = f"synthetic:laparoscopy?seed=10000&width={width}&height={height}&seconds={SHOWN / 25}"
    seen = list(rtseg.open_source(uri))
    truth_hw = seen[0].truth_hw
    assert truth_hw is not None
    x, y, w, h = cv2.boundingRect((truth_hw == 1).astype(np.uint8))
    there_and_back = [*range(SHOWN), *range(SHOWN - 2, 0, -1)]
    count = case.warm + case.rounds * (case.frames + SETTLE)
    pictures = [seen[there_and_back[t % len(there_and_back)]].image_hwc for t in range(count)]
    network = case.network()
    return Task(network, pictures, pixels_of(pictures, network.image_size), (x, y, x + w, y + h), case.device)


def makers(case: Case) -> dict[str, Callable[[], Contender]]:
    """Each row of the table, as a way to make it."""
    square, hd = make_task(case, case.size, case.size), make_task(case, *HD)

    def cuda(precision: str, policy: str) -> Engine:
        recipe = case.recipe("cuda", precision, policy)
        if case.device == "cpu":
            return CudaEngine(case.network(), recipe, "", "cpu")
        return open_cuda(case.network(), recipe, "", None)

    def reference(policy: str) -> Engine:
        return TorchEngine(case.network(), case.recipe("torch", "fp32", policy), "", case.device)

    return {
        REFERENCE: lambda: Ours(REFERENCE, reference("fifo"), "fifo", square),
        f"{REFERENCE} efp": lambda: Ours(f"{REFERENCE} efp", reference("efp"), "efp", square),
        OURS: lambda: Ours(OURS, cuda("bf16", "fifo"), "fifo", square),
        "rtseg cuda fp16": lambda: Ours("rtseg cuda fp16", cuda("fp16", "fifo"), "fifo", square),
        f"{OURS} efp": lambda: Ours(f"{OURS} efp", cuda("bf16", "efp"), "efp", square),
        f"{OURS} 720p": lambda: Ours(f"{OURS} 720p", cuda("bf16", "fifo"), "fifo", hd),
        "transformers fp32": lambda: Transformers("transformers fp32", square),
        EAGER: lambda: Transformers(EAGER, square, cast=True),
        COMPILED: lambda: Transformers(COMPILED, square, cast=True, compiled=True),
    }


def prepare(case: Case) -> tuple[dict[str, Contender], dict[str, str]]:
    """The contenders that run, warm; and of the others, why not: what is not ours may fail in any way."""
    ready: dict[str, Contender] = {}
    absent: dict[str, str] = {}
    for name, make in makers(case).items():
        print(f"{case.name}: preparing {name}", file=sys.stderr, flush=True)
        try:
            contender = make()
            contender.warm_up(case.warm)
        except Exception as e:
            absent[name] = " ".join(f"{type(e).__name__}: {e}".split())[:300]
        else:
            ready[name] = contender
    return ready, absent


def agreement(row: Contender, reference: Contender) -> dict[str, float]:
    """IoU with the reference's masks on the frames that both saw; one that is empty in both counts as 1."""
    pairs = [((a & b).sum(), (a | b).sum()) for a, b in zip(row.masks, reference.masks, strict=False)]
    ious = [float(i / u) if u else 1.0 for i, u in pairs]
    return {"mean": round(float(np.mean(ious)), 4), "min": round(min(ious), 4)}


def measure(case: Case) -> dict[str, Any]:
    """The table of one case: for each row its times, its ratio to transformers, and its IoU with the reference."""
    ready, absent = prepare(case)
    for _ in range(case.rounds):
        for contender in ready.values():
            contender.block(case.frames)
    rows = {}
    for name, row in ready.items():
        reference = ready.get(f"{REFERENCE} efp" if row.policy == "efp" else REFERENCE)
        rows[name] = {
            "ms": summary(np.concatenate(row.blocks_ms).tolist()),
            "engine": row.engine.description if isinstance(row, Ours) else "",
            "faster_than": {o: speedup(ready[o].blocks_ms, row.blocks_ms) for o in (EAGER, COMPILED) if o in ready},
            # Masks on another picture than the reference saw are not compared.
            "iou": agreement(row, reference) if reference and not name.endswith("720p") else None,
        }
    return {"case": case.name, "rows": rows, "absent": absent, "goals": goals(case.name, rows)}


def goals(name: str, rows: dict[str, Any]) -> dict[str, bool]:
    """Which of the goals for this case are reached; those that nothing was measured for are left out."""
    ours = rows.get(OURS)
    if ours is None or name not in GOALS_MS:
        return {}
    ms, ratio = ours["ms"], ours["faster_than"]
    reached = {
        f"p50 <= {GOALS_MS[name]} ms": ms["p50"] <= GOALS_MS[name],
        f"p99 <= {TAIL} x p50": ms["p99"] <= TAIL * ms["p50"],
    }
    if EAGER in ratio:
        reached[f">= {FASTER:g}x {EAGER}"] = ratio[EAGER]["median"] >= FASTER
    if COMPILED in ratio:
        reached[f"ahead of {COMPILED}"] = ratio[COMPILED]["median"] > 1
    return reached


def table(found: dict[str, Any]) -> str:
    """One case for people."""
    lines = [
        f"\n{found['case']}",
        f"{'':26}{'p50 ms':>9}{'p99 ms':>9}{'FPS':>8}{'x eager':>9}{'IoU mean':>10}{'min':>8}",
    ]
    for name, row in found["rows"].items():
        ms, iou = row["ms"], row["iou"] or {}
        ratio = row["faster_than"].get(EAGER, {}).get("median")
        cells = (f"{ms['p50']:.3f}", f"{ms['p99']:.3f}", f"{1000 / ms['mean']:.0f}", f"{ratio:.2f}" if ratio else "-")
        shown = [f"{iou[key]:.4f}" if iou else "-" for key in ("mean", "min")]
        widths = (9, 9, 8, 9, 10, 8)
        lines.append(f"{name:26}" + "".join(f"{c:>{w}}" for c, w in zip((*cells, *shown), widths, strict=True)))
    lines += [f"{name}: not run: {why}" for name, why in found["absent"].items()]
    lines += [f"{'reached' if ok else 'MISSED '} {goal}" for goal, ok in found["goals"].items()]
    return "\n".join(lines)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--cases", nargs="+", type=case_of, default=[case_of(c) for c in CASES], metavar="PRESET:SIZE")
    parser.add_argument("--warm", type=count, default=40, help="frames before anything is counted")
    parser.add_argument("--rounds", type=count, default=5)
    parser.add_argument("--frames", type=count, default=60, help="of each contender in a round")
    parser.add_argument("--json", type=Path, default=Path(os.environ.get("OUT", "out")) / "gpu.json")
    return parser.parse_args(argv)


def case_of(text: str) -> tuple[str, int]:
    """PRESET:SIZE as a pair."""
    preset, _, size = text.rpartition(":")
    return preset, int(size)


def count(text: str) -> int:
    """A whole number from 1."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every case, print its table, write the document; 2 where there is no GPU."""
    args = arguments(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print(f"bench.gpu: torch {torch.__version__} sees no CUDA device; see `rtseg doctor`", file=sys.stderr)
        return 2
    case = Case("", 0, args.device, args.warm, args.rounds, args.frames)
    document: dict[str, Any] = {"commit": commit(), "machine": facts(), "versions": versions(), "cases": []}
    for preset, size in args.cases:
        try:
            found = measure(replace(case, preset=preset, size=size))
        except RtsegError as e:
            print(f"bench.gpu: {preset}:{size}: {e}", file=sys.stderr)
            return 2
        print(table(found), flush=True)
        document["cases"].append(found)
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")  # each time: a run may be cut short
    return 0


if __name__ == "__main__":
    sys.exit(main())
