"""rtseg beside the other ways to run SAM 2 on video: same machine, weights, pictures and prompt, taking turns.

    python -m bench.peers --size 512 --json out/peers.json

Every contender tracks one object. The first frames fill its memory (7 spatial memories, 16 pointers) and are not
counted; then blocks of frames are timed, of all contenders in turn, until every ratio is known to 3% or time is up. A
time is that of a whole step, picture to mask on the host. Ratios are taken within a round; with their median stands
its 95% interval. Each row's masks are compared with those of our fp32 reference under the same memory policy, so
that the row is known to compute the same thing (EdgeTAM is another network, and is compared with nobody). "first mask"
is from the start of a process of its own to its first mask: import, open, encode, decode.
Without --weights the network is random, which makes no difference to its speed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import rtseg
from bench.contenders import Contender, Ours, Task
from bench.edgetam import EdgeTam
from bench.field import BASELINE, REFERENCE, Makers, make_task, our_makers, their_makers, worth_while, write_task
from bench.peers_table import show
from bench.rates import TYPES, encoder_gflop, encoder_share, product_rate
from rtseg.base.hardware.facts import commit, facts
from rtseg.base.hardware.load import Load
from rtseg.base.terminal import clock_bar
from rtseg.base.types import BoolMask, Frame, Prompt
from rtseg.build.doctor import versions
from rtseg.evaluate.speed.alternation import SETTLE, take_turns
from rtseg.evaluate.speed.budget import Budget, Deadline
from rtseg.evaluate.speed.cold import cold_start, in_process
from rtseg.evaluate.speed.looped_clip import LoopedClip
from rtseg.evaluate.speed.statistics import speedup, summary

WARM = 18  # frames until the memory is full: the prompted one, and a pointer for each of the next fifteen, and more
SECONDS = 420.0
# Looked for on the package index on 2026-11-21: `cutie` there is a terminal library, `xmem` a key-value store.
NOT_INSTALLABLE = {"Cutie, XMem": "on no package index: the packages of these names are other things"}
ROOT = Path(__file__).parents[1]


def prepare(makers: Makers, budget: Budget) -> tuple[list[Contender], dict[str, str]]:
    """The contenders that run, their memories full; and of the others, why not: foreign code fails in any way."""
    ready: list[Contender] = []
    absent = dict(NOT_INSTALLABLE)
    deadline = budget.until(0.5)
    for i, (name, make) in enumerate(makers.items()):
        budget.say(f"preparing {name}")
        try:
            with redirect_stdout(sys.stderr):
                contender = make()
                fill(contender, deadline.share(len(makers) - i))
        except rtseg.RtsegError as e:
            absent[name] = str(e)
        except Exception as e:
            absent[name] = " ".join(f"{type(e).__name__}: {e}".split())[:300]
        else:
            ready.append(contender)
    return ready, absent


def fill(contender: Contender, deadline: Deadline) -> None:
    """Until its memory is full, or time is up."""
    contender.warm_up(3)
    while len(contender.masks) < WARM and not deadline.over:
        contender.warm_up(1)


def first_masks(ready: Sequence[Contender], task: Task, preset: str, folder: Path, budget: Budget) -> dict[str, str]:
    """Each in a process of its own; and why some have none."""
    failed: dict[str, str] = {}
    deadline = budget.until(0.4)
    first = Frame(task.pictures[0], seq=0)
    clip = LoopedClip("first", (first,), (Prompt(1, box=task.box),))
    request = {"folder": str(folder), "preset": preset, "size": task.size, "box": task.box, "device": task.device}
    for c in ready:
        budget.say(f"starting {c.name} in a process of its own")
        if deadline.over:
            failed[c.name] = "no time was left for its first mask"
            continue
        try:
            if isinstance(c, Ours):
                c.first_mask_ms = cold_start(c.engine.recipe, clip, 0.0)["first_mask_ms"]
            else:
                graphs = {"graphs": getattr(c, "folder", None), "threads": torch.get_num_threads()}
                words = json.dumps({**request, **graphs, "name": c.name}, default=str).encode()
                c.first_mask_ms = in_process("bench.first_mask", words, ROOT)["first_mask_ms"]
        except rtseg.RtsegError as e:
            failed[c.name] = f"no first mask: {e}"
    return failed


def mean_iou(masks: Sequence[BoolMask], others: Sequence[BoolMask]) -> float:
    """Mean over the frames that both have; a frame that is empty in both counts as 1."""
    pairs = [(np.count_nonzero(a & b), np.count_nonzero(a | b)) for a, b in zip(masks, others, strict=False)]
    return round(float(np.mean([both / either if either else 1.0 for both, either in pairs])), 4)


def rows(ready: Sequence[Contender]) -> list[dict[str, Any]]:
    """What was measured of each contender; where the baseline or the reference is absent, what needs it is None."""
    by_name = {(c.name, c.policy): c for c in ready}
    base = by_name.get((BASELINE, "fifo"))
    halves = [c for c in ready if c.name.startswith("transformers bf16") and not c.name.endswith("compiled")]
    best_half = min(halves, key=lambda c: np.median(c.blocks_ms), default=None)
    made = []
    for c in ready:
        reference = by_name.get((REFERENCE, c.policy))
        made.append({
            "name": c.name,
            "policy": c.policy,
            "ms": summary([ms for block in c.blocks_ms for ms in block]),
            "first_mask_ms": c.first_mask_ms,
            "memory_full": len(c.masks) - sum(map(len, c.blocks_ms)) >= WARM,
            "times_transformers_fp32": base and speedup(base.blocks_ms, c.blocks_ms),
            "times_transformers_bf16": best_half and speedup(best_half.blocks_ms, c.blocks_ms),
            "iou": None if isinstance(c, EdgeTam) else reference and mean_iou(c.masks, reference.masks),
            "blocks_ms": c.blocks_ms,
        })  # fmt: skip
    return made


def controls(ready: Sequence[Contender]) -> dict[str, float]:
    """The IoU of masks that are wrong: a frame late, and under the other policy. Right ones have to be closer."""
    masks = {c.policy: c.masks for c in ready if c.name == REFERENCE}
    found = {"a frame late": mean_iou(masks["fifo"][1:], masks["fifo"])} if "fifo" in masks else {}
    return {**found, "efp for fifo": mean_iou(masks["efp"], masks["fifo"])} if len(masks) == 2 else found


def encoders(ready: Sequence[Contender], task: Task, gflop: float, budget: Budget) -> list[dict[str, Any]]:
    """How near each of our engines' image encoders comes to the machine's rate of products in its precision."""
    engines = {c.name: c.engine for c in ready if isinstance(c, Ours)}
    found = []
    for name, engine in engines.items():
        if budget.left > 0:
            budget.say(f"encoder of {name}")
            found.append({"name": name, **encoder_share(engine, task.pictures[0], gflop, task.device, rounds=2)})
    return found


def measure(given: argparse.Namespace, budget: Budget) -> dict[str, Any]:
    """Everything, as one document."""
    per_round = -(-given.frames // given.rounds)
    budget.say("drawing the pictures")
    task = make_task(given.preset, given.size, given.weights, WARM + 2 * given.rounds * (per_round + SETTLE))
    load = Load()
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_task(task, folder)
        theirs = their_makers(task, given.compile or task.device == "cuda")
        ours = our_makers(task, given.preset, folder, given.policies.split(","))
        chosen, emulated_ = worth_while({**theirs, **ours}, task.device, given.only)
        ready, absent = prepare(chosen, budget)
        late = first_masks(ready, task, given.preset, folder, budget)
        base = next((c for c in ready if c.name == BASELINE), None)
        pairs = [(base, c) for c in ready if base is not None and c is not base]
        take_turns(ready, pairs, budget, budget.until(0.85), given.frames, given.rounds, 2 * given.rounds)
        gflop = encoder_gflop(task.network)
        found = {"controls": controls(ready), "encoders": encoders(ready, task, gflop, budget)}
        rates = {kind: product_rate(kind, task.device) for kind in TYPES}
    busy, warnings = load.report()
    machine = {**facts(), "load": busy}
    weights = "random weights" if given.weights is None else given.weights.name
    where = machine["gpu"]["name"] if machine["gpu"] else f"{machine['cpu']}, {machine['threads']} threads"
    title = (
        f"{given.preset}, {weights}, {given.size} px, one object: a whole step\n"
        f"{where}; {given.frames} frames in {given.rounds} rounds or more, while there was time"
    )
    return {
        "title": title, "rows": rows(ready), "absent": {**absent, **emulated_, **late}, **found,
        "product_rates_tera": rates, "encoder_gflop": gflop, "machine": machine, "versions": versions(),
        "commit": commit(), "warnings": warnings, "took_s": round(budget.spent, 1),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """`python -m bench.peers`."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=512, help="side of the network's square, in pixels")
    parser.add_argument("--preset", default="sam2.1-tiny", help="which network; a .toml for one of your own")
    parser.add_argument("--weights", type=Path, help="a weights file (default: random)")
    parser.add_argument("--frames", type=int, default=24, help="to time, of each contender, or more")
    parser.add_argument("--rounds", type=int, default=6, help="blocks these frames come in, or more")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="contenders whose name holds this; or one of several, with commas"
    )
    parser.add_argument("--policies", default="fifo", metavar="NAME,NAME", help="memory policies of ours")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that it takes at most")
    parser.add_argument("--compile", action="store_true", help="torch.compile theirs on a CPU too (minutes)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON document")
    given = parser.parse_args(arguments)
    if min(given.frames, given.rounds) < 1:
        print("error: --frames and --rounds: expected whole numbers from 1", file=sys.stderr)
        return 2
    try:
        with clock_bar("peers") as tell:
            result = measure(given, Budget(given.seconds, tell))
    except rtseg.RtsegError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    show(result)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0 if result["rows"] else 1


if __name__ == "__main__":
    sys.exit(main())
