"""The rate of matrix products of a machine, and how much of it an image encoder reaches."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rtseg.base.types import ImageU8, now_ns
from rtseg.build.timing import synchronise
from rtseg.engine import Engine, Prepares
from rtseg.evaluate.speed.statistics import spread
from rtseg.sam2 import Sam2

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}


def product_rate(kind: str, device: str, side: int | None = None) -> float:
    """Operations a second, in units of 10^12, of one large matrix product in a type; 0 where torch has none.

    An operation is a multiplication or an addition. `side` is that of the square matrices.
    """
    side = side or (8192 if device == "cuda" else 2048)
    # Not of ones: a GPU clocks higher where few bits change.
    values = torch.randn(side, side, generator=torch.Generator().manual_seed(0))
    a = (values.mul(32).clamp(-127, 127) if kind == "int8" else values).to(device, TYPES[kind])
    product = torch._int_mm if kind == "int8" else torch.mm
    try:
        return round(2 * side**3 / median_ms(lambda: product(a, a.t())) / 1e9, 4)
    except RuntimeError:
        return 0.0


def encoder_share(
    engine: Engine, picture_hwc: ImageU8, gflop: float, device: str, rounds: int = 3, runs: int = 3
) -> dict[str, Any]:
    """The share of the machine's product rate that the encoder reaches in its precision, both measured in each round.

    `ms` is the median of `encode_image`, which resizes and normalises the picture first; `to_input_ms` is what that
    takes the engine (0 if it is no separate step), and the share is of the rest. `share_of_rate` is None where torch
    cannot multiply in that precision.
    """
    kind, times, shares = engine.recipe.precision, [], []
    resize_ms = median_ms(lambda: engine.prepare(picture_hwc)) if isinstance(engine, Prepares) else 0.0
    for _ in range(rounds):
        rate = product_rate(kind, device) if kind in TYPES else 0.0
        times.append(median_ms(lambda: engine.encode_image(picture_hwc), runs))
        if rate:
            # GFLOP a millisecond are 10^12 a second.
            shares.append(gflop / max(times[-1] - resize_ms, 1e-6) / rate)
    ms = {"ms": round(float(np.median(times)), 3), "to_input_ms": round(resize_ms, 3)}
    return {**ms, "share_of_rate": spread(shares) if shares else None}


def emulated(kind: str, device: str) -> str:
    """Why a type is no faster than fp32 on this device; "" where it is."""
    rate, full = (product_rate(k, device, 8192 if device == "cuda" else 1024) for k in (kind, "fp32"))
    if rate > full:
        return ""
    return f"torch multiplies {kind} at {rate / full:.2f} of its rate for fp32 here; name it with --only to see it run"


def median_ms(function: Callable[[], object], runs: int = 7) -> float:
    """The median of `runs` runs in ms, after two that are not counted; waits for the GPU."""
    times = []
    for _ in range(runs + 2):
        start_ns = now_ns()
        function()
        synchronise()
        times.append((now_ns() - start_ns) / 1e6)
    return float(np.median(times[2:]))


def encoder_gflop(network: Sam2) -> float:
    """Operations, in units of 10^9, of our reference encoder on one picture: counted call by call, not asserted."""
    size, shapes = network.image_size, deepcopy(network).to("meta")
    # Attention as plain products: of the CPU's fused kernel the counter knows nothing.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        shapes.encode_image(torch.zeros(1, 3, size, size, device="meta"))
    return round(counter.get_total_flops() / 1e9, 4)
