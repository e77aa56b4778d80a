"""`rtseg train CONFIG`: a training from its first step, or from where it was stopped, to weights that an engine opens.

The folder holds `last.pt`, saved every two minutes and when it is stopped, `log.jsonl`, and in the end
`weights.safetensors`. One training at a time works in it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..base.errors import ConfigError, EngineError
from ..base.files import unwritable
from ..sam2 import Sam2
from .config import TrainConfig
from .trainer import Trainer
from .validate import held_out, validate
from .workshop import Workshop

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
SAVE_S, LOG_STEPS, VALIDATIONS = 120.0, 20, 8
Report = Callable[[Sam2], dict[str, float]]
Record = dict[str, Any]


def train(config: TrainConfig, data: Path, out: Path, device: str = "auto", threads: int | None = None) -> Record:
    """Train to the end (resuming if `out` holds a checkpoint); returns the last loss and the validation."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    on = torch.device(device)
    if on.type == "cuda" and not torch.cuda.is_available():
        raise EngineError(f"device {device}: torch sees no GPU here; leave --device out")
    if on.type == "cuda" and (on.index or 0) >= torch.cuda.device_count():
        raise EngineError(f"device {device}: torch sees {torch.cuda.device_count()} GPUs, the first is cuda:0")
    if threads:
        torch.set_num_threads(threads)
    judges = held_out(config, data)
    if device == "cpu":
        _keep_memory()
    with _owned(out):
        trainer = Trainer(config, Workshop(config, data, on).maker, out, on)
        return run(trainer, out, lambda net: validate(net, judges, on))


def run(trainer: Trainer, out: Path, report: Report) -> Record:
    """Train to the end of the last phase; `report` judges the averaged network now and then, and at the end.

    What stops it, a signal or an error, leaves a checkpoint of the last whole step.
    """
    with _log(out / "log.jsonl", trainer.step) as log:

        def write(record: Record) -> None:
            log.write(json.dumps(record) + "\n")

        def judge() -> dict[str, float]:
            found = report(trainer.averaged())
            write({"step": trainer.step, "minutes": round(trainer.elapsed / 60, 2), "val": found})
            return found

        trainer.note = write
        try:
            last = _loop(trainer, write, judge)
        finally:
            trainer.close()
            if trainer.whole:
                trainer.save()
        trainer.export(out / "weights.safetensors")
        return {"weights": str(out / "weights.safetensors"), **last, "mean J from one mask": judge()}


def _loop(trainer: Trainer, write: Callable[[Record], None], judge: Callable[[], object]) -> Record:
    """All steps that are left; returns the last loss, if there was one."""
    records: list[dict[str, float]] = []
    saved, steps, last = trainer.elapsed, trainer.config.steps, {}
    often = max(1, steps // VALIDATIONS)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("train", total=steps, completed=trainer.step)
        while trainer.step < steps:
            records.append(trainer.run_step())
            if len(records) == LOG_STEPS or trainer.step == steps:
                summary = _summary(records, trainer)
                write(summary)
                last = {"loss": summary.get("loss")}
                said = f"loss {last['loss']}, {summary['frames_s']:.0f} frames/s"
                bar.update(task, completed=trainer.step, description=said)
                records.clear()
            if trainer.elapsed - saved > SAVE_S:
                trainer.save()
                saved = trainer.elapsed
            if trainer.step % often == 0 and trainer.step < steps:
                judge()
    return last


def _summary(records: list[dict[str, float]], trainer: Trainer) -> Record:
    keys = dict.fromkeys(k for r in records for k in r)
    numbers = {k: [r[k] for r in records if k in r and math.isfinite(r[k])] for k in keys}
    means = {k: float(f"{np.mean(found):.4g}") for k, found in numbers.items() if found}
    return {**means, "step": trainer.step, "minutes": round(trainer.elapsed / 60, 2)}


def _keep_memory() -> None:
    """Let glibc keep what is freed: a step asks for the same gigabytes again, and new pages have to be cleared."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


@contextmanager
def _owned(out: Path) -> Iterator[None]:
    """The folder is this training's alone; `ConfigError` if it is another's, `OutputError` if it cannot be had."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as e:
        raise unwritable(out / ".lock", e) from e
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise ConfigError(f"{out}: another training is at work in it; wait for it, or choose another --out") from e
        yield


@contextmanager
def _log(path: Path, step: int) -> Iterator[TextIO]:
    """The log, without what a kill left in it of later steps than `step`."""
    try:
        lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
        path.write_text("".join(line for line in lines if line.endswith("\n") and _step(line) <= step), "utf-8")
        log = path.open("a", buffering=1)
    except OSError as e:
        raise unwritable(path, e) from e
    with log:
        yield log


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError):
        return 0
