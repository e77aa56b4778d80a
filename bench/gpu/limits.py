"""What limits a tracked frame: the two ceilings of this device, and each verb beside its floor of bytes and FLOP.

The ceilings are measured: a large copy on the device (bytes read plus bytes written), and a large product in the
precision. A verb is the static network's own, captured as a graph of its own, and timed by replays on random data; its
floor is the larger of its FLOP over the one ceiling and its least bytes over the other (`bench/roofline.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.gpu.case import Case
from bench.roofline import CARDS, TYPES, Card, Work, compiled, costs, floor_ms, predict
from rtseg.engine.cuda.attention import CudaAttention, device_ms
from rtseg.engine.cuda.fuse import Verb, exact_fp32, fused
from rtseg.engine.static.memory import PaddedRead
from rtseg.engine.static.network import StaticNetwork

COPIED, SIDE = 2**30, 8192  # bytes; rows and columns of the large product
REPEATS = 50


def ceilings(device: str, precision: str = "bf16", copied: int = COPIED, side: int = SIDE) -> dict[str, float]:
    """GB/s of a large copy and TFLOP/s of a large product, on random data."""
    source = torch.randint(0, 255, (copied,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a, b = (torch.randn(side, side, device=device, dtype=TYPES[precision]) for _ in range(2))
    out = torch.empty_like(a)
    with exact_fp32():
        copy_ms = median_ms(lambda: target.copy_(source), device, 20)
        product_ms = median_ms(lambda: torch.mm(a, b, out=out), device, 20)
    return {"gbps": round(2 * copied / copy_ms / 1e6, 3), "tflops": round(2 * side**3 / product_ms / 1e9, 4)}


def median_ms(call: Callable[[], object], device: str, repeats: int = REPEATS) -> float:
    """The median time of a call on the device."""
    for _ in range(3):
        call()
    if device != "cpu":
        return device_ms(call, repeats)
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - begin))
    return sorted(times)[len(times) // 2]


@torch.inference_mode()
def verbs_ms(case: Case, work: Work, fuse: bool) -> dict[str, Any]:
    """The device's time for each verb, and which kernel attention took where its widths differ."""
    products = TYPES[work.precision]
    stream = torch.bfloat16 if work.precision == "bf16" else torch.float32
    attention = CudaAttention(products)
    # Made on the CPU, moved once: what the engine does.
    static = StaticNetwork(case.network().bake(), attention).join().to(case.device).precise(products, stream)
    p, b, n = static.preset, work.objects, static.grid**2
    slots, pointers = p.num_maskmem, p.max_pointers

    def noise(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, device=case.device).to(dtype)

    image = noise(1, 3, case.size, case.size)
    keys, values = noise(b, slots, p.attention_layers, n, p.dim, dtype=products), noise(b, slots, n, p.memory_dim)
    own, ages = noise(b, pointers, p.dim), torch.ones(b, pointers, device=case.device)
    rows = torch.arange(slots, device=case.device).expand(b, -1)
    untouched = torch.zeros(b, dtype=torch.bool, device=case.device)
    with exact_fp32():
        given: dict[str, Sequence[Tensor]] = {"encode": [image]}
        top, mid, fine = static.encoder(image)

        def attend(top: Tensor, keys: Tensor, values: Tensor, own: Tensor, ages: Tensor) -> Sequence[Tensor]:
            read = PaddedRead(
                static.attend, keys, values.to(products), rows, rows >= 0, own, ages, ages > 0, whole=True
            )
            return [static.attend(top, read)]

        given["attend"] = [top, keys, values, own, ages]
        given["decode"] = [*attend(*given["attend"]), mid, fine]
        logits, _, score, _ = static.decode(*given["decode"])

        def remember(top: Tensor, logits: Tensor, score: Tensor) -> Sequence[Tensor]:
            tokens = static.remember(top, logits, score, untouched)
            return [tokens.float(), static.attend.keys_of(tokens).to(products)]

        given["remember"] = [top, logits, score]
        plain: dict[str, Verb] = {
            "encode": static.encoder, "attend": attend, "decode": static.decode, "remember": remember
        }  # fmt: skip
        verbs = {name: fused(verb, lambda _, name=name: given[name]) if fuse and name in compiled(b) else verb  # type: ignore[misc]
                 for name, verb in plain.items()}  # fmt: skip
        steps = {name: partial(verb, *given[name]) for name, verb in verbs.items()}
        times = {verb: median_ms(graph(step, case.device), case.device) for verb, step in steps.items()}
    return {"ms": times, "attention": sorted({k.name for k in attention.chosen.values()})}


def graph(step: Callable[[], Sequence[Tensor]], device: str) -> Callable[[], object]:
    """A verb as one launch, as it is in a tracked frame."""
    if device == "cpu":
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # libraries choose kernels, and take their workspaces
            step()
    torch.cuda.current_stream().wait_stream(side)
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        answers = step()

    def replay() -> object:
        recorded.replay()
        return answers

    return replay


def measure(case: Case, work: Work, ceiling: dict[str, float], fuse: bool) -> dict[str, Any]:
    """Each verb: measured, its floor, their ratio, and which of the two it is that limits it."""
    card = Card("this device", ceiling["tflops"], ceiling["gbps"], 25, 1.3, "measured")
    found = verbs_ms(case, work, fuse)
    verbs = {}
    for verb, ms in found["ms"].items():
        spent = costs(work)[verb]
        floor = floor_ms(spent, card, "bf16")  # the product's rate was measured in this precision
        by_flop = spent.flop / (card.tflops * 1e9)
        verbs[verb] = {
            "ms": round(ms, 4), "floor_ms": round(floor, 4), "over_floor": round(ms / floor, 2),
            "gflop": round(spent.flop / 1e9, 2), "least_mb": round(spent.least / 1e6, 1),
            "limit": "products" if by_flop >= floor else "memory",
            "kernels": len(spent.groups if fuse and verb in compiled(work.objects) else spent.kernels),
        }  # fmt: skip
    predicted = {verb: v["ms"] for verb, v in predict(work, CARDS["H200"])["verbs"].items()}
    return {
        "ok": True, "case": case.name, "ceilings": ceiling, "verbs": verbs, "attention": found["attention"],
        "predicted_on_h200": predicted,
    }  # fmt: skip
