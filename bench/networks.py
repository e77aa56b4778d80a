"""Networks beside one another: whole steps of EdgeTAM, of transformers' EdgeTAM and of other presets, in turns.

    RTSEG_ISA=avx2 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=2 \
        python -m bench.networks --size 1024

The weights are random, which makes no difference to the speed. Memories are full (7 spatial memories, 16 pointers)
under policy `fifo`. Ratios are those of neighbouring blocks, against the first network, with a 95% interval.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import rtseg
from bench.contenders import Contender, Ours
from bench.edgetam import EdgeTam
from bench.field import make_task, open_ours
from bench.first_mask import WEIGHTS
from bench.peers import WARM
from rtseg.base.hardware.facts import commit, facts
from rtseg.base.hardware.load import Load
from rtseg.base.terminal import clock_bar
from rtseg.engine.recipe import MemorySettings, Recipe
from rtseg.evaluate.speed.alternation import SETTLE, take_turns
from rtseg.evaluate.speed.budget import Budget
from rtseg.evaluate.speed.statistics import speedup, summary
from rtseg.sam2 import save_weights

NETWORKS = ("edgetam", "sam2.1-tiny")
THEIRS = "EdgeTAM, transformers fp32"


def contenders(given: argparse.Namespace, folder: Path, budget: Budget) -> list[Contender]:
    """Ours in the order given, then transformers' EdgeTAM, all with full memories."""
    frames = WARM + given.rounds * (given.frames + SETTLE)
    found: list[Contender] = []
    for preset in given.networks:
        budget.say(f"preparing {preset}")
        task = make_task(preset, given.size, None, frames)
        (folder / preset).mkdir()
        save_weights(task.network, folder / preset / WEIGHTS, half=False)
        recipe = Recipe(
            preset, str(folder / preset / WEIGHTS), image_size=given.size, runtime=given.runtime,
            precision=given.precision, max_objects=1, memory=MemorySettings("fifo"),
        )  # fmt: skip
        engine = open_ours(task.network, recipe, folder / preset / "built")
        found.append(Ours(f"{preset}: {engine.description.partition(' (')[0]}", engine, "fifo", task))
    budget.say(f"preparing {THEIRS}")
    found.append(EdgeTam(THEIRS, task))
    for i, one in enumerate(found):
        budget.say(f"filling the memory of {one.name}", 30.0 * (len(found) - i))
        one.warm_up(WARM)
    return found


def measure(given: argparse.Namespace, budget: Budget) -> dict[str, Any]:
    """All in turns, as one document."""
    load = Load()
    with TemporaryDirectory() as name:
        found = contenders(given, Path(name), budget)
        pairs = [(found[0], one) for one in found[1:]]
        take_turns(found, pairs, budget, budget.until(1.0), given.frames * given.rounds, given.rounds, given.rounds)
    busy, warnings = load.report()
    rows = [
        {"name": c.name, "ms": summary([ms for block in c.blocks_ms for ms in block]),
         "as_long": speedup(c.blocks_ms, found[0].blocks_ms)}
        for c in found
    ]  # fmt: skip
    return {
        "size": given.size,
        "rows": rows,
        "machine": {**facts(), "load": busy},
        "warnings": warnings,
        "commit": commit(),
    }


def show(document: dict[str, Any]) -> str:
    """The table, for people."""
    lines = [f"one object at {document['size']} px, a whole step; times of the first, with a 95% interval"]
    for row in document["rows"]:
        low, high = row["as_long"]["low"], row["as_long"]["high"]
        interval = f" ({low:.2f} to {high:.2f})" if low and high else ""
        lines.append(f"{row['ms']['p50']:9.1f} ms {row['as_long']['median']:7.2f}{interval}  {row['name']}")
    return "\n".join([*lines, *document["warnings"]])


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m bench.networks`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS, help=f"presets (default: {' '.join(NETWORKS)})")
    parser.add_argument("--size", type=int, default=1024, help="side of the network's square, in pixels")
    parser.add_argument("--runtime", default="cpu", help="of ours (default: cpu)")
    parser.add_argument("--precision", default="int16", help="of ours (default: int16)")
    parser.add_argument("--frames", type=int, default=2, help="in a block")
    parser.add_argument("--rounds", type=int, default=6, help="blocks of each")
    parser.add_argument("--seconds", type=float, default=420.0, help="that it takes at most")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON document")
    given = parser.parse_args(arguments)
    try:
        with clock_bar("networks") as tell:
            document = measure(given, Budget(given.seconds, tell))
    except rtseg.RtsegError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    print(show(document))
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
