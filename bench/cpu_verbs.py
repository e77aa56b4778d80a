"""Each verb of a tracked frame on a CPU, run every way that there is: torch, the kernels, OpenVINO, int8 by NNCF.

    python -m bench.cpu_verbs [--preset sam2.1-tiny] [--size 512] [--slots 7] [--objects 1] [--rounds 15] [--json FILE]

"picture" is what comes before them: 720p to the network's square. Same random weights, same inputs, alternating; the
median of each, and how far its answer is from the reference in fp32 (relative, in the norm). It says why the `cpu`
runtime runs what it runs. OpenVINO and NNCF are needed here alone: pip install openvino nncf
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.contenders import randomize
from rtseg.base.errors import RtsegError
from rtseg.engine import cpu, to_input
from rtseg.engine.cpu.isa import PREFERRED, available_isas, why_not
from rtseg.engine.cpu.kernels import Kernels
from rtseg.engine.recipe import MemorySettings, Recipe
from rtseg.engine.tensorrt import onnx
from rtseg.sam2 import Recall, Sam2, get_preset

Run = Callable[[], list[Tensor]]
Cell = dict[str, float]
Table = dict[str, dict[str, Cell]]
VERBS = ("picture", "encode", "attend", "decode", "remember")
CALIBRATION = 8  # pictures for NNCF


class Inputs:
    """What the verbs are asked: noise with structure, every slot of every object full."""

    def __init__(self, network: Sam2, slots: int, objects: int) -> None:
        g, p = torch.Generator().manual_seed(0), network.preset
        grid = network.grid
        self.picture_hwc = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
        self.images = [smooth(1, 3, network.image_size, g) for _ in range(CALIBRATION)]
        self.maps = smooth(slots, p.memory_dim, grid, g)
        self.slots = (p.num_maskmem - 1, *range(slots - 1))
        self.pointers = torch.randn(16, p.dim, generator=g)
        self.ages = (40, *range(1, 16))
        self.objects = objects
        self.logits = 4 * smooth(objects, 1, 4 * grid, g)
        self.top, self.mid, self.fine = ours_in_fp32(network).encode(self.images[0])
        self.score, self.certain = torch.ones(objects), torch.zeros(objects, dtype=torch.bool)


def smooth(n: int, c: int, side: int, g: torch.Generator) -> Tensor:
    coarse = torch.randn(n, c, max(2, side // 8), max(2, side // 8), generator=g)
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")


def ours_in_fp32(network: Sam2) -> cpu.TorchVerbs:
    recipe = Recipe(image_size=network.image_size, precision="fp32")
    return cpu.CpuEngine(deepcopy(network), recipe, "", None)._verbs


def ours(network: Sam2, precision: str, kernels: Kernels | None, given: Inputs) -> dict[str, Run]:
    """Our verbs, in torch or on kernels."""
    recipe = Recipe(image_size=network.image_size, precision=precision)
    verbs: Any = cpu.CpuEngine(deepcopy(network), recipe, "", kernels)._verbs
    if kernels:
        kernels.use(torch.get_num_threads())
    half = kernels.half if kernels else torch.float32
    tokens = [m.flatten(1).T.to(half).contiguous() for m in given.maps]
    shape = network.preset.memory_shape(network.grid)
    memories = [cpu.remembered(t, verbs.keys_of(t), shape) for t in tokens]
    recall = Recall(memories, given.slots, given.pointers, given.ages)
    recalls = [recall] * given.objects
    conditioned = verbs.attend(given.top, recalls).float()
    return {
        "picture": lambda: [verbs.picture(given.picture_hwc)],
        "encode": lambda: list(verbs.encode(given.images[0])),
        "attend": lambda: [verbs.attend(given.top, recalls)],
        "decode": lambda: list(verbs.decode(conditioned, given.mid, given.fine)),
        "remember": lambda: [verbs.remember(given.top, given.logits, given.score, given.certain)],
    }


def openvino(network: Sam2, slots: int, given: Inputs, eight_bits: bool, conditioned: Tensor) -> dict[str, Run]:
    """The same graphs that TensorRT is given, in fp32, compiled by OpenVINO for bf16; or in int8 by NNCF."""
    import openvino as ov

    plan = MemorySettings("fifo")
    recipe = Recipe(image_size=network.image_size, precision="fp32", max_objects=1, memory=plan)
    shapes = replace(onnx.Shapes.for_recipe(network.preset, recipe), slots=(slots,), pointers=len(given.ages))
    static = onnx.typed(network, "fp32")
    asked = questions(static, given)
    asked["decode"] = [conditioned, given.mid, given.fine]
    found: dict[str, Run] = {"picture": lambda: [to_input(given.picture_hwc, network.image_size)]}
    with tempfile.TemporaryDirectory() as folder:
        paths = onnx.export(static, shapes, Path(folder))
        for name, path in paths.items():
            verb = shapes.graphs[name][0]
            model = ov.Core().read_model(path)
            model.reshape({i: ov.PartialShape(list(t.shape)) for i, t in zip(model.inputs, asked[verb], strict=True)})
            if eight_bits:
                model = in_int8(model, [asked[verb]] if verb != "encode" else [[image] for image in given.images])
            hints = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
            compiled = ov.Core().compile_model(model, "CPU", hints | {"INFERENCE_NUM_THREADS": torch.get_num_threads()})
            found[verb] = runner(compiled, [t.numpy() for t in asked[verb]])
    return found


def questions(static: Any, given: Inputs) -> dict[str, list[Tensor]]:
    tokens = given.maps.flatten(2).transpose(1, 2)
    yes = torch.ones(1, len(tokens), dtype=torch.bool), torch.ones(1, len(given.ages), dtype=torch.bool)
    slots, ages = torch.tensor([given.slots]), torch.tensor([given.ages], dtype=torch.float32)
    keys = static.attend.keys_of(tokens)[None]
    return {
        "encode": [given.images[0]],
        "attend": [given.top, keys, tokens[None], slots, yes[0], given.pointers[None], ages, yes[1]],
        "remember": [given.top, given.logits, given.score, given.certain],
    }


def in_int8(model: Any, samples: list[list[Tensor]]) -> Any:
    import nncf

    data = nncf.Dataset([[t.numpy() for t in sample] for sample in samples])
    return nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples))


def runner(compiled: Any, inputs: list[np.ndarray]) -> Run:
    request = compiled.create_infer_request()

    def run() -> list[Tensor]:
        request.infer(inputs, share_inputs=True)
        return [torch.from_numpy(request.get_output_tensor(i).data) for i in range(len(compiled.outputs))]

    return run


def error(answers: list[Tensor], reference: list[Tensor]) -> float:
    return max(
        float((a.float().flatten() - r.float().flatten()).norm() / r.float().norm())
        for a, r in zip(answers, reference, strict=False)
    )


@torch.inference_mode()
def measure(network: Sam2, slots: int, objects: int, rounds: int, vendor: bool) -> Table:
    """For each way and verb the median in ms and the error. `vendor`: OpenVINO, beside our kernels."""
    given = Inputs(network, slots, objects)
    reference = ours(network, "fp32", None, given)
    here = [] if why_not() else available_isas()
    pairs = [(isa, p) for isa in here for p, isas in PREFERRED.items() if isa in isas]
    ways = {f"{isa} {p}": ours(network, p, Kernels(isa, p), given) for isa, p in pairs}
    if vendor:
        conditioned = reference["attend"]()[0]
        ways["OpenVINO bf16"] = openvino(network, slots, given, False, conditioned)
        if importlib.util.find_spec("nncf"):
            ways["OpenVINO int8 (NNCF)"] = openvino(network, slots, given, True, conditioned)
    else:
        ways |= {"torch bf16": ours(network, "bf16", None, given), "torch fp32": reference}
    return dict(rows(ways, reference, rounds))


def rows(ways: dict[str, Any], reference: dict[str, Run], rounds: int) -> Iterator[tuple[str, dict[str, Cell]]]:
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds + 2):  # the first two warm up
        for verb in VERBS:
            for way, runs in ways.items():
                start = time.perf_counter()
                runs[verb]()
                times.setdefault((way, verb), []).append((time.perf_counter() - start) * 1e3)
    for way, runs in ways.items():
        errors = {verb: error(runs[verb](), reference[verb]()) for verb in VERBS}
        yield way, {v: {"ms": statistics.median(times[way, v][2:]), "error": errors[v]} for v in VERBS}


def show(table: Table) -> None:
    for way, verbs in table.items():
        cells = [f"{verb} {v['ms']:.1f} ({v['error']:.1e})" for verb, v in verbs.items()]
        print(f"{way:22}", *cells, f"all {sum(v['ms'] for v in verbs.values()):.1f}", sep="  ", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="sam2.1-tiny")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--slots", type=int, default=7, choices=range(1, 8), help="memories that attention sees")
    parser.add_argument("--objects", type=int, default=1, help="above 1: without OpenVINO")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--vendor", action="store_true", help="OpenVINO alone; it may end the process")
    args = parser.parse_args()
    if args.rounds < 1 or args.objects < 1:
        parser.error(f"--rounds {args.rounds}, --objects {args.objects}: expected 1 or more")
    return args


def main() -> int:
    args = arguments()
    try:
        network = Sam2(get_preset(args.preset), args.size).eval()
    except RtsegError as e:
        print(f"bench.cpu_verbs: {e}", file=sys.stderr)
        return 2
    randomize(network, 0)
    if not args.vendor:
        asked = f"{args.preset}, {args.size} px, {args.objects} x {args.slots} memories"
        print(f"{asked}, {torch.get_num_threads()} threads: ms (error)")
    found = measure(network, args.slots, args.objects, args.rounds, args.vendor)
    show(found)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    if not args.vendor and args.objects == 1 and importlib.util.find_spec("openvino"):
        # A process of its own: at some sizes OpenVINO crashes while it compiles. The kernels' row comes twice.
        again = [sys.executable, "-m", "bench.cpu_verbs", *sys.argv[1:], "--vendor"]
        without_json = [a for i, a in enumerate(again) if "--json" not in (a, again[i - 1])]
        if code := subprocess.run(without_json, check=False).returncode:
            print(f"OpenVINO: no rows, its process ended with {code}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
