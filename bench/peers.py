"""rtseg beside the other ways to run SAM 2 on video: same machine, weights, pictures and prompt, taking turns.

    python -m bench.peers --size 512 --json out/peers.json

Every contender tracks one object. The first frames fill its memory (7 spatial memories, 16 pointers) and are not
counted; then blocks of frames are timed, of all contenders in turn. A time is that of a whole step, picture to mask on
the host. Ratios are taken within a round, and their spread over the rounds is shown. Each row's masks are compared
with those of our fp32 reference under the same memory policy, so that the row is known to compute the same thing.
Without --weights the network is random, which makes no difference to its speed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import rtseg
from bench.contenders import Box, Contender, Meta, Ours, Task, Transformers, randomize
from bench.rates import TYPES, encoder_gflop, encoder_share, product_rate
from rtseg.benchmark.statistics import speedup, summary
from rtseg.clips import calibration
from rtseg.config import MemoryPlan, Recipe
from rtseg.doctor import versions
from rtseg.engine.reference import TorchEngine
from rtseg.engine.runtimes import device_of, runtime_module, settle
from rtseg.errors import ConfigError, EngineError
from rtseg.machine import Load, commit, facts
from rtseg.sam2 import Sam2, get_preset, load_weights
from rtseg.types import BoolMask

WARM = 18  # frames until the memory is full: the prompted one, and a pointer for each of the next fifteen, and more
SEED = 3  # of the random weights: with this one the object stays small, and moves
OURS = (
    ("torch", "fp32"), ("torch", "bf16"), ("cpu", "bf16"), ("cpu", "int8"), ("cuda", "bf16"), ("cuda", "fp16"),
    ("tensorrt", "bf16"), ("tensorrt", "fp16"), ("tensorrt", "fp8"),
)  # fmt: skip
POLICIES = ("fifo", "efp")
BASELINE, REFERENCE = "transformers fp32", "rtseg torch fp32"
# Looked for on the package index on 2026-11-21: `cutie` there is a terminal library, `xmem` a key-value store.
NOT_INSTALLABLE = {"Cutie, XMem": "on no package index: the packages of these names are other things"}
Makers = dict[str, Callable[[], Contender]]


def make_task(preset: str, size: int, weights: Path | None, frames: int) -> Task:
    """The network, with given or random weights, and square pictures of the synthetic endoscope with a tool's box."""
    network = Sam2(get_preset(preset), size).eval()
    if weights is None:
        randomize(network, SEED)
    else:
        load_weights(network, weights)
    uri = f"synthetic:laparoscopy?seed=10000&width={size}&height={size}&seconds={frames / 25}"
    seen = list(rtseg.open_source(uri))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Task(network, [frame.image_hwc for frame in seen], box_of(seen[0].truth_hw == 1), device)


def box_of(mask_hw: BoolMask) -> Box:
    x, y, width, height = cv2.boundingRect(mask_hw.astype(np.uint8))
    return x, y, x + width, y + height


def our_makers(task: Task, preset: str, folder: Path) -> Makers:
    """Each runtime and precision under each policy, whose number of memories an engine may be made for."""

    def opened(runtime: str, precision: str, policy: str) -> rtseg.Engine:
        recipe = Recipe(
            preset, image_size=task.size, runtime=runtime, precision=precision, max_objects=1, memory=MemoryPlan(policy)
        )
        return open_ours(task.network, recipe, folder / f"{runtime}-{precision}-{policy}")

    def maker(runtime: str, precision: str, policy: str) -> Callable[[], Contender]:
        return lambda: Ours(f"rtseg {runtime} {precision}", opened(runtime, precision, policy), policy, task)

    names = [(f"rtseg {runtime} {precision} {policy}", runtime, precision, policy)
             for runtime, precision in OURS for policy in POLICIES]  # fmt: skip
    return {name: maker(*words) for name, *words in names}


def open_ours(network: Sam2, recipe: Recipe, folder: Path) -> rtseg.Engine:
    """An engine on a network that is in no file. What `rtseg build` would compile is compiled into `folder`.

    It is not proved as a build is: its row shows how its masks agree, whatever that is.
    """
    recipe = settle(recipe)
    if recipe.runtime == "torch":
        return TorchEngine(deepcopy(network), recipe, "", device_of("torch"))
    module, built = runtime_module(recipe.runtime), None
    if hasattr(module, "make"):
        folder.mkdir()
        pictures = calibration(recipe.image_size, None) if recipe.precision in ("int8", "fp8") else []
        try:
            module.make(deepcopy(network), recipe, folder, lambda line: print(line, file=sys.stderr), pictures)
            built = folder
        except EngineError:
            if recipe.runtime != "cpu":  # which runs without its kernels too, if more slowly
                raise
    engine: rtseg.Engine = module.open(deepcopy(network), recipe, "", built)
    return engine


def their_makers(task: Task, compiled: bool) -> Makers:
    """transformers' model and Meta's predictor, in fp32 and in bf16 each way it can be had."""
    makers: Makers = {
        BASELINE: lambda: Transformers(BASELINE, task),
        "transformers bf16 autocast": lambda: Transformers("transformers bf16 autocast", task, autocast=True),
        "transformers bf16 cast": lambda: Transformers("transformers bf16 cast", task, cast=True),
        "sam2 fp32": lambda: Meta("sam2 fp32", task),
        "sam2 bf16 autocast": lambda: Meta("sam2 bf16 autocast", task, autocast=True),
    }
    if compiled:
        name, other = "transformers bf16 cast compiled", "sam2 bf16 autocast compiled"
        makers[name] = lambda: Transformers(name, task, cast=True, compiled=True)
        makers[other] = lambda: Meta(other, task, autocast=True, compiled=True)
    return makers


def prepare(makers: Makers) -> tuple[list[Contender], dict[str, str]]:
    """The contenders that run, their memories full; and of the others, why not: foreign code fails in any way."""
    ready: list[Contender] = []
    absent = dict(NOT_INSTALLABLE)
    for name, make in makers.items():
        print(f"preparing {name}", file=sys.stderr, flush=True)
        try:
            with redirect_stdout(sys.stderr):
                contender = make()
                for _ in range(WARM):
                    contender.step()
        except rtseg.RtsegError as e:
            absent[name] = str(e)
        except Exception as e:
            absent[name] = " ".join(f"{type(e).__name__}: {e}".split())[:300]
        else:
            ready.append(contender)
    return ready, absent


def take_turns(ready: Sequence[Contender], rounds: int, frames: int) -> None:
    """A block of each, and again, so that noise hits them all alike."""
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        for contender in ready:
            contender.block(frames)


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
            "times_transformers_fp32": base and speedup(base.blocks_ms, c.blocks_ms),
            "times_transformers_bf16": best_half and speedup(best_half.blocks_ms, c.blocks_ms),
            "iou": reference and mean_iou(c.masks, reference.masks),
            "blocks_ms": c.blocks_ms,
        })  # fmt: skip
    return made


def controls(ready: Sequence[Contender]) -> dict[str, float]:
    """The IoU of masks that are wrong: a frame late, and under the other policy. Right ones have to be closer."""
    masks = {c.policy: c.masks for c in ready if c.name == REFERENCE}
    found = {"a frame late": mean_iou(masks["fifo"][1:], masks["fifo"])} if "fifo" in masks else {}
    return {**found, "efp for fifo": mean_iou(masks["efp"], masks["fifo"])} if len(masks) == 2 else found


def encoders(ready: Sequence[Contender], task: Task, gflop: float) -> list[dict[str, Any]]:
    """How near each of our engines' image encoders comes to the machine's rate of products in its precision."""
    engines = {c.name: c.engine for c in ready if isinstance(c, Ours)}
    return [
        {"name": name, **encoder_share(engine, task.pictures[0], gflop, task.device)}
        for name, engine in engines.items()
    ]


def table(result: dict[str, Any]) -> Table:
    """One row a contender, the slowest first."""
    made = Table(title=result["title"], title_justify="left", box=None, pad_edge=False)
    for name in ("", "policy"):
        made.add_column(name)
    for name in ("p50 ms", "p90 ms", "x transformers fp32", "least..largest", "x transformers bf16", "IoU"):
        made.add_column(name, justify="right")
    for row in sorted(result["rows"], key=lambda row: -row["ms"]["p50"]):
        full, half = row["times_transformers_fp32"], row["times_transformers_bf16"]
        cells = [f"{row['ms']['p50']:.2f}", f"{row['ms']['p90']:.2f}"]
        cells += [f"{full['median']:.2f}", f"{full['min']:.2f}..{full['max']:.2f}"] if full else ["", ""]
        cells += [f"{half['median']:.2f}" if half else "", "" if row["iou"] is None else f"{row['iou']:.4f}"]
        made.add_row(row["name"], row["policy"], *cells)
    return made


def by_reason(absent: dict[str, str]) -> dict[str, list[str]]:
    """The names that share a reason, together."""
    return {reason: [name for name in absent if absent[name] == reason] for reason in absent.values()}


def show(result: dict[str, Any]) -> None:
    """The table, and the lines that it cannot be read without."""
    console = Console()
    if not console.is_terminal:
        console.width = 140
    console.print(table(result))
    lines = [f"absent: {', '.join(names)}: {reason}" for reason, names in by_reason(result["absent"]).items()]
    lines += [f"IoU where masks are wrong, {name}: {iou:.4f}" for name, iou in result["controls"].items()]
    rates = ", ".join(f"{name} {rate:g}" for name, rate in result["product_rates_tera"].items())
    lines += [f"matrix products, 10^12 operations a second: {rates}; image encoder: {result['encoder_gflop']:g} GFLOP"]
    for row in result["encoders"]:
        near = row["share_of_rate"]
        percents = near and f"{near['median']:.0%} ({near['min']:.0%}..{near['max']:.0%})"
        share = f"; the rest at {percents} of the product rate" if near else ""
        resize = f"of which {row['to_input_ms']:.2f} resize the picture"
        lines.append(f"encode_image, {row['name']}: {row['ms']:.2f} ms, {resize}{share}")
    for line in (*lines, *(f"warning: {text}" for text in result["warnings"])):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Everything, as one document."""
    per_round = -(-given.frames // given.rounds)
    task = make_task(given.preset, given.size, given.weights, WARM + per_round * given.rounds)
    load = Load()
    with TemporaryDirectory() as folder:
        compiled = given.compile or task.device == "cuda"
        makers = {**their_makers(task, compiled), **our_makers(task, given.preset, Path(folder))}
        chosen = {name: make for name, make in makers.items() if any(word in name for word in given.only.split(","))}
        if not chosen:
            raise ConfigError(f"--only {given.only!r}: no contender's name holds it; there are: {', '.join(makers)}")
        ready, absent = prepare(chosen)
        take_turns(ready, given.rounds, per_round)
        gflop = encoder_gflop(task.network)
        found = {"controls": controls(ready), "encoders": encoders(ready, task, gflop)}
        rates = {kind: product_rate(kind, task.device) for kind in TYPES}
    busy, warnings = load.report()
    machine = {**facts(), "load": busy}
    weights = "random weights" if given.weights is None else given.weights.name
    where = machine["gpu"]["name"] if machine["gpu"] else f"{machine['cpu']}, {machine['threads']} threads"
    title = (
        f"{given.preset}, {weights}, {given.size} px, one object, full memory: a whole step\n"
        f"{where}; {given.rounds} rounds of {per_round} frames"
    )
    return {
        "title": title, "rows": rows(ready), "absent": absent, **found, "product_rates_tera": rates,
        "encoder_gflop": gflop, "machine": machine, "versions": versions(), "commit": commit(), "warnings": warnings,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """`python -m bench.peers`."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", type=int, default=512, help="side of the network's square, in pixels")
    parser.add_argument("--preset", default="sam2.1-tiny", help="which network; a .toml for one of your own")
    parser.add_argument("--weights", type=Path, help="a weights file (default: random)")
    parser.add_argument("--frames", type=int, default=24, help="to time, of each contender")
    parser.add_argument("--rounds", type=int, default=3, help="blocks these frames come in")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="contenders whose name holds this; or one of several, with commas"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile theirs on a CPU too (minutes)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON document")
    given = parser.parse_args(arguments)
    if min(given.frames, given.rounds) < 1:
        print("error: --frames and --rounds: expected whole numbers from 1", file=sys.stderr)
        return 2
    try:
        result = measure(given)
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
