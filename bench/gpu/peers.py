"""Ours beside transformers' `Sam2VideoModel`, eager and compiled: the same random weights, pictures and box, in turns.

Also what else may be there: EdgeTAM as transformers has it, our `tensorrt` runtime, and the frame kernels. What is not
ours may fail in any way, and what is not installed is said to be absent.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.contenders import Contender, Ours, Task, Transformers, pixels_of
from bench.gpu.case import Case, endoscope, get_ready, there_and_back
from rtseg.evaluate.speed.statistics import speedup, summary

FASTER = 5.0  # ours over transformers eager
REFERENCE, OURS, EAGER, COMPILED = "rtseg torch fp32", "rtseg cuda bf16", "transformers bf16", "transformers compiled"
MOST_FRAMES = 2000  # for which pictures are kept

Note = Callable[[dict[str, Any]], None]
Makers = dict[str, Callable[[], Contender]]


def makers(case: Case, other: str) -> Makers:
    """Ours, fp32 as a measure of masks, and transformers, `EAGER` or `COMPILED`, each as a way to make it.

    Compiled has a run of its own: it takes minutes, and may take too many.
    """
    task = make_task(case)

    def ours() -> Contender:
        engine = case.engine("bf16")
        get_ready(engine, case.size, case.size)
        return Ours(OURS, engine, "fifo", task)

    found: Makers = {OURS: ours, other: lambda: Transformers(other, task, cast=True, compiled=other == COMPILED)}
    if other == EAGER:
        return {REFERENCE: lambda: Ours(REFERENCE, case.reference(device=case.device), "fifo", task), **found}
    return found


def make_task(case: Case) -> Task:
    """Enough pictures of the synthetic endoscope, and the box of a tool on the first."""
    seen, box = endoscope(case.size, case.size)
    return Task(case.network(), _Repeated(seen), _Repeated(pixels_of(seen, case.size)), box, case.device)  # type: ignore[arg-type]


class _Repeated:
    """A few pictures there and back again for ever, by number: as many as are asked for, in the memory of a few."""

    def __init__(self, items: Any) -> None:
        self._items = items
        self._order = [*range(len(items)), *range(len(items) - 2, 0, -1)]

    def __len__(self) -> int:
        return MOST_FRAMES

    def __getitem__(self, t: int) -> Any:
        return self._items[self._order[t % len(self._order)]]


def compare(
    case: Case, warm: int, rounds: int, frames: int, deadline: float, note: Note, ways: Makers
) -> dict[str, Any]:
    """The table: for each row its times, its ratio to transformers, and its IoU with the reference; in turns."""
    ready: dict[str, Contender] = {}
    report: dict[str, Any] = {"case": case.name, "ok": True, "rows": {}, "not_run": {}, "warm_s": {}}
    for name, make in ways.items():
        start = time.monotonic()
        try:
            contender = make()
            contender.warm_up(warm)
        except Exception as e:
            report["not_run"][name] = " ".join(f"{type(e).__name__}: {e}".split())[:300]
            report["ok"] &= name not in (OURS, REFERENCE)
        else:
            ready[name] = contender
        report["warm_s"][name] = round(time.monotonic() - start, 1)
        note(report)
    done = 0
    while done < rounds and (done < 2 or time.monotonic() < deadline):
        for contender in ready.values():
            contender.block(frames)
        done += 1
        report["rounds"] = done
        report["rows"] = {name: row_of(name, row, ready) for name, row in ready.items()}
        report["goals"] = goals(report["rows"]) if case.device != "cpu" else {}
        note(report)
    return report


def row_of(name: str, row: Contender, ready: dict[str, Contender]) -> dict[str, Any]:
    reference = ready.get(REFERENCE)
    return {
        "ms": summary(np.concatenate(row.blocks_ms).tolist()),
        "engine": row.engine.description if isinstance(row, Ours) else "",
        "faster_than": {o: speedup(ready[o].blocks_ms, row.blocks_ms) for o in (EAGER, COMPILED) if o in ready},
        "iou": agreement(row, reference) if reference else None,
    }


def agreement(row: Contender, reference: Contender) -> dict[str, float]:
    """IoU with the reference's masks on the frames that both saw; one that is empty in both counts as 1."""
    pairs = [((a & b).sum(), (a | b).sum()) for a, b in zip(row.masks, reference.masks, strict=False)]
    ious = [float(i / u) if u else 1.0 for i, u in pairs]
    return {"mean": round(float(np.mean(ious)), 4), "min": round(min(ious), 4)}


def goals(rows: dict[str, Any]) -> dict[str, bool]:
    """Which of the goals are reached; those that nothing was measured for are left out."""
    ratio = rows[OURS]["faster_than"] if OURS in rows else {}
    reached = {}
    if EAGER in ratio:
        reached[f">= {FASTER:g} x {EAGER}"] = ratio[EAGER]["median"] >= FASTER
    if COMPILED in ratio:
        reached[f"ahead of {COMPILED}"] = ratio[COMPILED]["median"] > 1
    return reached


def edgetam(case: Case, warm: int, rounds: int, frames: int, deadline: float, note: Note) -> dict[str, Any]:
    """EdgeTAM of transformers with random weights: rtseg has no such preset."""
    from bench.edgetam import EdgeTam

    missing = [name for name in ("transformers", "timm") if importlib.util.find_spec(name) is None]
    if missing:
        return {"absent": f"{' and '.join(missing)} not installed; rtseg itself has no EdgeTAM"}
    ways: Makers = {"EdgeTAM transformers fp32": lambda: EdgeTam("EdgeTAM transformers fp32", make_task(case))}
    return compare(case, warm, rounds, frames, deadline, note, ways)


def tensorrt(case: Case, warm: int, rounds: int, frames: int, deadline: float, note: Note) -> dict[str, Any]:
    """Our `tensorrt` runtime, built on the spot beside the `cuda` one."""
    missing = [name for name in ("tensorrt", "onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing or case.device == "cpu":
        return {"absent": f"{' and '.join(missing)} not installed" if missing else "needs a GPU"}
    from rtseg.engine.tensorrt import make, open

    with tempfile.TemporaryDirectory() as folder:
        recipe = replace(case.recipe("tensorrt", "bf16"), path=Path(folder) / "bench.toml")
        said: list[str] = []
        start = time.monotonic()
        (Path(folder) / "built").mkdir()
        make(case.network(), recipe, Path(folder) / "built", said.append)
        built_s = round(time.monotonic() - start, 1)
        name = "rtseg tensorrt bf16"

        def ours() -> Contender:
            engine = open(case.network(), recipe, "", Path(folder) / "built")
            get_ready(engine, case.size, case.size)
            return Ours(name, engine, "fifo", make_task(case))

        ways = makers(case, EAGER)
        report = compare(
            case, warm, rounds, frames, deadline, note, {REFERENCE: ways[REFERENCE], OURS: ways[OURS], name: ours}
        )
    return {**report, "built_s": built_s, "ok": report["ok"] and name in report["rows"]}


def frame_kernels(case: Case) -> dict[str, Any]:
    """The fused frame kernels beside the same in torch operations: are they right, and how long do they take?"""
    from rtseg.base.errors import EngineError
    from rtseg.engine.cuda.attention import device_ms
    from rtseg.engine.picture.torch_resize import TorchResize

    if case.device == "cpu":
        return {"absent": "needs a GPU"}
    from rtseg.engine.picture.frame_kernels import FrameKernels

    try:
        kernels = FrameKernels()
    except EngineError as e:
        return {"absent": str(e)}
    pictures, _ = endoscope(720, 1280)
    picture = torch.from_numpy(np.ascontiguousarray(there_and_back(pictures, 2)[1])).cuda()
    planes = torch.full((1, 3, case.size, case.size), float("nan"), device="cuda")
    plain = TorchResize(720, 1280, case.size).cuda()
    expected, found = plain(picture), kernels.picture_to_input(picture, planes)
    off = float((expected - found).abs().max() * 255 * 0.229)
    both = {
        "torch_ms": device_ms(lambda: plain(picture)),
        "kernel_ms": device_ms(lambda: kernels.picture_to_input(picture, planes)),
    }
    return {"ok": off < 1.01, "grey_levels_off": off, **{k: round(v, 4) for k, v in both.items()}}
