"""The ONNX graphs beside the network that they were made from: `python -m bench.onnx_check`.

Every verb, in fp32, on the CPU provider of ONNX Runtime, against `rtseg.sam2.Sam2` with the same random weights and the
same random inputs; what lies in absent slots is noise. Printed is the largest difference of each output over the
largest magnitude of the reference's. Ends with 1 where one is above the limit.

    python -m bench.onnx_check --model sam2.1-tiny --sizes 512,1024 --objects 1,4
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rtseg.base.errors import RtsegError
from rtseg.engine.recipe import Recipe
from rtseg.engine.tensorrt.onnx import VERBS, Shapes, export, typed
from rtseg.sam2 import Preset, PromptBatch, Recall, Sam2, certain, get_preset, upsample

LIMIT = 1e-3
Values = dict[str, Tensor]


def random_network(preset: Preset, size: int, seed: int = 0) -> Sam2:
    """Weights that make every path matter: no zero embeddings, no saturated softmax, objects present, no near ties."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # the network draws its code of positions itself
        network = Sam2(preset, size).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in network.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.1 * noise)
            elif p.ndim >= 2 and "embed" not in name and "token" not in name:
                p.copy_(noise / math.sqrt(p[0].numel()))
            else:
                p.copy_(0.2 * noise)
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(5.0)
        network.sam_mask_decoder.iou_prediction_head.layers[-1].bias.copy_(torch.tensor([0.0, 0.5, 0.0, -0.5]))
    return network.bake()


@torch.inference_mode()
def reference(network: Sam2, objects: int, slots: int, seed: int = 1) -> tuple[Values, list[Recall]]:
    """The verbs in a row on noise: every value of `VERBS` that the reference has, and the recalls that it saw."""
    p, g, draw = network.preset, network.grid, torch.Generator().manual_seed(seed)
    image = torch.randn(1, 3, network.image_size, network.image_size, generator=draw)
    f = network.encode_image(image)
    recalls = []
    for i in range(objects):
        # No two objects remember the same number of frames, as long as there are numbers left.
        t, k = max(1, slots - i), 3 + i
        rows = tuple(int(v) for v in torch.randperm(p.num_maskmem, generator=draw)[:t]) + (0,) * (t - p.num_maskmem)
        maps = torch.randn(t, p.memory_dim, g, g, generator=draw)
        recalls.append(Recall.from_maps(maps, rows, torch.randn(k, p.dim, generator=draw), tuple(range(1, k + 1))))
    conditioned = network.attend(f, recalls)
    d = network.decode(conditioned, f, PromptBatch.none(objects))
    sure = torch.arange(objects) % 2 == 1
    full = upsample(d.logits_b1hw, network.image_size)
    full = torch.where(sure[:, None, None, None], certain(full), full)
    maps = network.remember(f, full, d.score_b)
    values = {
        "image_1chw": image, "top": f.top, "mid": f.mid, "fine": f.fine, "conditioned_bdhw": conditioned,
        "logits_b1hw": d.logits_b1hw, "iou_b": d.iou_b, "score_b": d.score_b, "pointer_bd": d.pointer_bc,
        "certain_b": sure, "tokens_bnm": maps.flatten(2).transpose(1, 2),
    }  # fmt: skip
    return values, recalls


@torch.inference_mode()
def padded(keys_of: Any, shapes: Shapes, slots: int, recalls: list[Recall], seed: int = 2) -> Values:
    """The recalls as `attend` takes them; noise where there is no memory."""
    draw, ports = torch.Generator().manual_seed(seed), shapes.ports(slots)
    names = [name for name in VERBS["attend"][0] if name != "top"]
    values = {
        name: torch.randn(ports[name].shape_for(len(recalls)), generator=draw).to(ports[name].dtype) for name in names
    }
    values["present_bt"].zero_()
    values["real_bp"].zero_()
    values["slots_bt"].zero_()
    for i, recall in enumerate(recalls):
        t, k = len(recall.slots), len(recall.ages)
        tokens = torch.stack([m.map_chw for m in recall.memories]).flatten(2).transpose(1, 2)
        values["values_btnm"][i, :t], values["keys_btlnd"][i, :t] = tokens, keys_of(tokens)
        values["slots_bt"][i, :t], values["present_bt"][i, :t] = torch.tensor(recall.slots), True
        values["pointers_bpd"][i, :k], values["ages_bp"][i, :k] = recall.pointers_pc, torch.tensor(recall.ages).float()
        values["real_bp"][i, :k] = True
    return values


def session(path: Path) -> Any:
    """An ONNX Runtime session on the CPU, and certainly there."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # As it is written: fused, eight-bit products would become others, which TensorRT does not have.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert opened.get_providers() == ["CPUExecutionProvider"]
    return opened


def run(path: Path, verb: str, values: Mapping[str, Tensor]) -> Values:
    """One graph on these values."""
    inputs, outputs = VERBS[verb]
    answers = session(path).run(list(outputs), {name: values[name].numpy() for name in inputs})
    return {name: torch.from_numpy(np.asarray(a)) for name, a in zip(outputs, answers, strict=True)}


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest magnitude; infinite where something is no number."""
    worst = float((found - expected).abs().max() / expected.abs().max())
    return worst if math.isfinite(worst) else math.inf


def compare(network: Sam2, shapes: Shapes, paths: Mapping[str, Path], objects: int) -> Iterator[tuple[str, str, float]]:
    """(graph, output, difference) of every output of every graph, each fed with what the reference says."""
    keys_of = typed(network, "fp32").attend.keys_of
    for name, (verb, slots) in shapes.graphs.items():
        values, recalls = reference(network, objects, slots or shapes.slots[0])
        assert bool((values["score_b"] > 0).all()), "an absent object has an empty mask, which would prove nothing"
        if verb == "attend":
            values |= padded(keys_of, shapes, slots, recalls)
        if verb == "remember":
            values["written_blnd"] = keys_of(values["tokens_bnm"])
        for output, answer in run(paths[name], verb, values).items():
            yield name, output, difference(answer, values[output])


def main(arguments: list[str] | None = None) -> int:
    """Print every difference; 1 if one is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sam2.1-tiny")
    parser.add_argument("--sizes", type=numbers, help="pixels, separated by commas")
    parser.add_argument("--objects", type=numbers, help="how many, separated by commas")
    parser.set_defaults(sizes=[512, 1024], objects=[1, 4])
    args = parser.parse_args(arguments)
    try:
        return check(args)
    except RtsegError as e:
        print(f"bench.onnx_check: {e}", file=sys.stderr)
        return 2


def numbers(text: str) -> list[int]:
    """Whole numbers from 1, separated by commas."""
    found = [int(word) for word in text.split(",")]
    if min(found) < 1:
        raise ValueError
    return found


def check(args: argparse.Namespace) -> int:
    counts, worst = args.objects, 0.0
    for size in args.sizes:
        network = random_network(get_preset(args.model), size)
        recipe = Recipe(model=args.model, image_size=size, precision="fp32", max_objects=max(counts))
        shapes = Shapes.for_recipe(network.preset, recipe)
        with tempfile.TemporaryDirectory() as folder:
            paths = export(typed(network, "fp32"), shapes, Path(folder))
            for objects in counts:
                for graph, output, off in compare(network, shapes, paths, objects):
                    print(f"{args.model} {size} px, {objects} objects: {graph:9} {output:17} {off:.1e}", flush=True)
                    worst = max(worst, off)
    print(f"largest difference {worst:.1e}, limit {LIMIT:.0e}: {'agrees' if worst <= LIMIT else 'DOES NOT AGREE'}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
