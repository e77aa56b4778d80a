"""How fast a tracked frame can be on a GPU: bytes and FLOP of each verb, and what a card makes of them.

    python -m bench.roofline                                        # the cases of the goals on the cards below
    python -m bench.roofline --cases nano:320 --objects 4 --cards L4

Nothing is measured and no GPU is needed: the static network is run on tensors without numbers (`bench/counting.py`),
and the cards' rates are those of their data sheets. Two times come of it:

- `floor`: for each verb the larger of FLOP over the card's rate and least bytes over its bandwidth. Nothing is faster.
- `p50`: kernel by kernel (pointwise work fused in what inductor compiles, and as launched elsewhere) the larger of FLOP
  and bytes over the rates that such kernels are expected to reach, and one gap each between kernels of a graph; then
  the transfers, and the host's own work. `plain`: the same if nothing were compiled, as without triton. What this
  rests on is in `Expected`, and was written down before anything ran on a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from bench.counting import Cost, CountedAttention, Counter, cost, nothing_computed
from rtseg.base.errors import RtsegError
from rtseg.base.prompt_schema import MAX_ID
from rtseg.engine.cuda.fuse import MOST_OBJECTS
from rtseg.engine.picture.torch_resize import TorchResize
from rtseg.engine.policy import POLICIES
from rtseg.engine.recipe import MemorySettings
from rtseg.engine.static.memory import PaddedRead
from rtseg.engine.static.network import StaticNetwork
from rtseg.sam2 import Sam2, get_preset

CASES = ("sam2.1-tiny:512", "sam2.1-tiny:1024", "sam2.1-small:512", "sam2.1-small:1024", "nano:320")
OBJECTS = (1, 2, 4, 8)
VERBS = ("encode", "attend", "decode", "remember")
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU by its data sheet: dense products in bf16 in TFLOP/s, memory in GB/s, its link to the host in GB/s.

    `gap_us`: between two kernels of a graph; `host`: how many times longer the host beside it takes than a server's
    core; `source` says where the numbers are from.
    """

    name: str
    tflops: float
    gbps: float
    link_gbps: float
    gap_us: float
    source: str
    host: float = 1.0


CARDS = {
    card.name: card
    for card in (
        Card("H200", 989, 4800, 50, 1.3, "H200 SXM data sheet: 1,979 TFLOPS bf16 with sparsity, 4.8 TB/s; PCIe 5"),
        Card("A100", 312, 2039, 25, 1.5, "A100 80GB SXM data sheet: 312 TFLOPS bf16, 2,039 GB/s; PCIe 4"),
        Card("RTX 4090", 165, 1008, 25, 1.3, "Ada white paper: 165.2 TFLOPS bf16 with fp32 sums, 1,008 GB/s; PCIe 4"),
        Card("L4", 121, 300, 25, 1.5, "L4 data sheet: 242 TFLOPS bf16 with sparsity, 300 GB/s; PCIe 4"),
        Card("AGX Orin", 42.5, 204.8, 20, 3.0, "AGX Orin 64GB: 170 TOPS int8 with sparsity on the GPU, a quarter of"
             " that in fp16; 204.8 GB/s, shared with the CPU", host=3.0),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Expected:
    """What kernels are expected to reach of a card, and what the host does beside it."""

    products: float = 0.35  # of the rate: at these sizes a product seldom fills a card
    bandwidth: float = 0.6  # of the memory's, by pointwise kernels and reductions
    least_us: float = 2.0  # that any kernel takes, however small
    # Tracker.step beside the engine. `bench.gpu --device cpu` gives 0.17 ("host ms"), and 0.06 for each
    # object more, on a Zen 5 core; on a GPU some fifteen launches are added.
    host_ms: float = 0.3
    object_ms: float = 0.06
    answers_ms: float = 0.05  # copies of the answers, one launch each, and the wait's return


@dataclass(frozen=True, slots=True)
class Work:
    """A tracked frame: network, size, objects, precision, how much each object remembers, and the picture's size."""

    preset: str
    size: int
    objects: int = 1
    precision: str = "bf16"
    policy: str = "fifo"
    picture: tuple[int, int] | None = None  # None: a square of the network's size

    @property
    def name(self) -> str:
        return f"{self.preset}:{self.size}"


@lru_cache(maxsize=64)
def costs(work: Work) -> dict[str, Cost]:
    """The cost of each verb, and of `resize`, with full memory, in the order in which they run."""
    with nothing_computed():
        preset, products = get_preset(work.preset), TYPES[work.precision]
        stream = torch.bfloat16 if work.precision == "bf16" else torch.float32
        attention = CountedAttention(products)
        with torch.device("cpu"):  # tables are made of real weights, and are what is moved
            static = StaticNetwork(Sam2(preset, work.size).eval(), attention).join()
        static = static.precise(products, stream).to("meta")
        weights = [*static.parameters(), *static.buffers()]
        plan, b, n = MemorySettings(work.policy), work.objects, static.grid**2
        slots, pointers = plan.full_bank(preset.num_maskmem), plan.pointers
        height, width = work.picture or (work.size, work.size)
        with torch.device("cpu"):
            to_image = TorchResize(height, width, work.size).to("meta")
        picture = torch.zeros(height, width, 3, dtype=torch.uint8)
        found = {"resize": cost(lambda: [to_image(picture)], [picture, *to_image.buffers()], attention)}

        image = torch.zeros(1, 3, work.size, work.size)
        top, mid, fine = static.encoder(image)
        found["encode"] = cost(lambda: static.encoder(image), [image, *weights], attention)

        keys = torch.zeros(b, slots, preset.attention_layers, n, preset.dim, dtype=products)
        values, own = torch.zeros(b, slots, n, preset.memory_dim), torch.zeros(b, pointers, preset.dim)
        rows, ages = torch.zeros(b, slots, dtype=torch.int64), torch.ones(b, pointers)

        def attend() -> list[Tensor]:
            read = PaddedRead(
                static.attend, keys, values.to(products), rows, rows.bool(), own, ages, ages.bool(), whole=True
            )
            return [static.attend(top, read)]

        (conditioned,) = attend()
        found["attend"] = cost(attend, [top, keys, values, own, rows, ages, *weights], attention)
        logits, _, score, _ = static.decode(conditioned, mid, fine)
        given = [conditioned, mid, fine, *weights]
        found["decode"] = cost(lambda: static.decode(conditioned, mid, fine), given, attention)
        untouched = torch.zeros(b, dtype=torch.bool)

        def remember() -> list[Tensor]:
            tokens = static.remember(top, logits, score, untouched)
            return [tokens.float(), static.attend.keys_of(tokens).to(products)]

        found["remember"] = cost(remember, [top, logits, score, *weights], attention)
    return found


def floor_ms(spent: Cost, card: Card, precision: str = "bf16") -> float:
    """What no version of a verb can be faster than on this card."""
    return max(spent.flop / rate(card, precision), spent.least / (card.gbps * 1e6))


def rate(card: Card, precision: str) -> float:
    """FLOP a millisecond: fp32 products, which are exact here, run beside the tensor cores at about a fifteenth."""
    return card.tflops * 1e9 / (15 if precision == "fp32" else 1)


def kernels_ms(spent: Cost, card: Card, e: Expected, fuse: bool, precision: str = "bf16") -> tuple[float, int]:
    """A verb as its kernels are expected to run in a graph, and how many there are."""
    kernels = spent.groups if fuse else spent.kernels
    total = 0.0
    for kernel in kernels:
        by_flop = kernel.flop / (rate(card, precision) * e.products)
        by_bytes = kernel.bytes / (card.gbps * 1e6 * e.bandwidth)
        total += max(by_flop, by_bytes, e.least_us / 1e3) + card.gap_us / 1e3
    return total, len(kernels)


def compiled(objects: int) -> frozenset[str]:
    """The verbs that the engine compiles, where triton is installed."""
    return frozenset({"resize", *VERBS} if objects <= MOST_OBJECTS else {"resize", "encode"})


def predict(work: Work, card: Card, e: Expected | None = None, fuse: Collection[str] | None = None) -> dict[str, Any]:
    """The expected time of a tracked frame, from a picture in host memory to masks there.

    `fuse`: the verbs that are compiled; None: those of the engine.
    """
    e, found = e or Expected(), costs(work)
    fuse = compiled(work.objects) if fuse is None else fuse
    verbs = {}
    for verb, spent in found.items():
        ms, kernels = kernels_ms(spent, card, e, verb in fuse, work.precision)
        verbs[verb] = {
            "gflop": round(spent.flop / 1e9, 2), "least_mb": round(spent.least / 1e6, 1),
            "fused_mb": round(spent.fused / 1e6, 1), "launched_mb": round(spent.launched / 1e6, 1),
            "floor_ms": round(floor_ms(spent, card, work.precision), 4), "kernels": kernels, "ms": round(ms, 3),
        }  # fmt: skip
    height, width = work.picture or (work.size, work.size)
    side = work.size // 4
    moved = height * width * 3 + work.objects * side * side * 4
    link = moved / (card.link_gbps * 1e6) + e.answers_ms
    device = sum(v["ms"] for v in verbs.values())
    floor = sum(v["floor_ms"] for v in verbs.values())
    host = card.host * (e.host_ms + e.object_ms * (work.objects - 1))
    return {
        "work": asdict(work), "card": card.name, "verbs": verbs,
        "gflop": round(sum(v["gflop"] for v in verbs.values()), 1),
        "least_mb": round(sum(v["least_mb"] for v in verbs.values()), 1), "floor_ms": round(floor, 3),
        "kernels": sum(v["kernels"] for v in verbs.values()), "device_ms": round(device, 3),
        "link_ms": round(link, 3), "host_ms": round(host, 2), "p50_ms": round(device + link + host, 2),
    }  # fmt: skip


def table(works: Sequence[Work], cards: Sequence[Card]) -> str:
    """The prediction for people: of each verb what it costs, then of each card the times."""
    lines = ["", "bf16, full memory (fifo); least: bytes that must move; fused, launched: see bench/counting.py"]
    head = ("case", "objects", "verb", "GFLOP", "least MB", "fused MB", "launched MB", "kernels", "fused")
    lines += [_row(head)]
    for work in (w for w in works if w.objects == 1):
        for verb, c in costs(work).items():
            numbers = (f"{c.flop / 1e9:.2f}", *(f"{n / 1e6:.1f}" for n in (c.least, c.fused, c.launched)))
            lines.append(_row((work.name, "1", verb, *numbers, str(len(c.kernels)), str(len(c.groups)))))
    lines += [
        "",
        _row(("case", "objects", "card", "floor ms", "device ms", "p50 ms", "frames/s", "kernels", "plain")),
    ]
    for work in works:
        for card in cards:
            p, plain = predict(work, card), predict(work, card, fuse=())
            cells = (f"{p['floor_ms']:.3f}", f"{p['device_ms']:.2f}", f"{p['p50_ms']:.2f}", f"{1000 / p['p50_ms']:.0f}")
            lines.append(
                _row((work.name, str(work.objects), card.name, *cells, str(p["kernels"]), f"{plain['p50_ms']:.2f}"))
            )
    lines += ["", *(f"{card.name}: {card.source}" for card in cards)]
    return "\n".join(lines)


def eager(preset: str, steps: int = 20) -> str:
    """What transformers asks of torch in one tracked step: each operation is a launch by the host, whatever the size.

    Counted on a small picture on the CPU, with full memory; the host's time for one is 5 to 8 us, for a view 1.5.
    """
    from bench.contenders import Transformers
    from bench.gpu.case import Case
    from bench.gpu.peers import make_task

    contender = Transformers("eager", make_task(Case(preset, 128, "cpu")), cast=True)
    contender.warm_up(steps)
    with Counter() as counter:
        contender.step()
    kernels, views = len(counter.kernels), counter.views
    low, high = ((kernels * us + views * 1.5) / 1e3 for us in (5, 8))
    launched = f"{kernels} launches and {views} views a step: {low:.1f} to {high:.1f} ms of the host"
    return f"transformers eager, {preset}: {launched}, or the device's time where that is longer"


def _row(cells: Sequence[str]) -> str:
    widths = (18, 8, 10, 10, 11, 11, 13, 9, 10)
    return "".join(f"{c:<{w}}" if i < 3 else f"{c:>{w}}" for i, (c, w) in enumerate(zip(cells, widths, strict=False)))


def a_case(text: str) -> str:
    """PRESET:SIZE of a command line, once there is such a network."""
    preset, _, size = text.rpartition(":")
    try:
        get_preset(preset)
    except RtsegError as e:
        raise argparse.ArgumentTypeError(f"{text!r}: {e}" if preset else f"{text!r}; expected PRESET:SIZE") from e
    if not size.isdecimal() or int(size) % 32 or not 64 <= int(size) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a SIZE of 64 to 4096, a multiple of 32")
    return text


def _objects(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_ID:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number, 1 to {MAX_ID}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the prediction, or write it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.roofline", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="+", type=a_case, default=list(CASES), metavar="PRESET:SIZE")
    parser.add_argument("--objects", nargs="+", type=_objects, default=list(OBJECTS))
    parser.add_argument("--cards", nargs="+", choices=sorted(CARDS), default=list(CARDS))
    parser.add_argument("--policy", choices=tuple(POLICIES), default="fifo")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--eager", action="store_true", help="count what transformers launches; needs it installed")
    args = parser.parse_args(argv)
    works = [
        Work(c.rpartition(":")[0], int(c.rpartition(":")[2]), b, policy=args.policy)
        for c in args.cases
        for b in args.objects
    ]
    cards = [CARDS[name] for name in args.cards]
    if args.json:
        print(json.dumps([predict(work, card) for work in works for card in cards], indent=1))
    else:
        print(table(works, cards))
    if args.eager:
        print("\n".join(eager(name) for name in dict.fromkeys(work.preset for work in works)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
