"""`rtseg train CONFIG`: train from the first step, or resume, and write weights that an engine opens.

The output folder holds the checkpoint `last.pt`, saved every two minutes and on exit, the log `log.jsonl`, and in the
end `weights.safetensors`. Only one training at a time can use it.
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
from .training_data import TrainingData
from .validate import held_out, validate

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
SAVE_S, LOG_STEPS, VALIDATIONS = 120.0, 20, 8
Validate = Callable[[Sam2], dict[str, float]]
Record = dict[str, Any]


def train(config: TrainConfig, data: Path, out: Path, device: str = "auto", threads: int | None = None) -> Record:
    """Train to the end. Returns the path of the weights, the last loss and the result of the validation.

    Paths in `config` are relative to `data`. The training resumes if `out` has a checkpoint. `device` is auto, cpu,
    cuda, or cuda:N; `threads` are those of the CPU (None: torch's choice). Raises `ConfigError` if the configuration,
    the data or the checkpoint do not fit together, `EngineError` if the device cannot be used.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    on = torch.device(device)
    if on.type == "cuda" and not torch.cuda.is_available():
        raise EngineError(f"device {device}: torch finds no GPU; expected --device cpu, or none")
    if on.type == "cuda" and (on.index or 0) >= torch.cuda.device_count():
        raise EngineError(
            f"device {device}: torch finds {torch.cuda.device_count()} GPUs; expected cuda:0 to "
            f"cuda:{torch.cuda.device_count() - 1}"
        )
    if threads:
        torch.set_num_threads(threads)
    judges = held_out(config, data)
    if device == "cpu":
        _keep_freed_memory()
    with _locked(out):
        trainer = Trainer(config, TrainingData(config, data, on).sampler, out, on)
        return run(trainer, out, lambda net: validate(net, judges, on))


def run(trainer: Trainer, out: Path, validation: Validate) -> Record:
    """Train to the end of the last phase. `validation` is called with the averaged network at intervals and at the end.

    After a signal or an error there is a checkpoint of the last complete step.
    """
    with _log(out / "log.jsonl", trainer.step) as log:

        def write(record: Record) -> None:
            log.write(json.dumps(record) + "\n")

        def run_validation() -> dict[str, float]:
            found = validation(trainer.averaged())
            write({"step": trainer.step, "minutes": round(trainer.elapsed / 60, 2), "val": found})
            return found

        trainer.log = write
        try:
            last = _loop(trainer, write, run_validation)
        finally:
            trainer.close()
            if trainer.consistent:
                trainer.save()
        return {**trainer.export(out), **last, "mean J": run_validation()}


def _loop(trainer: Trainer, write: Callable[[Record], None], run_validation: Callable[[], object]) -> Record:
    """Run all remaining steps. Returns the last loss, if there is one."""
    records: list[dict[str, float]] = []
    saved, steps, last = trainer.elapsed, trainer.config.steps, {}
    interval = max(1, steps // VALIDATIONS)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("train", total=steps, completed=trainer.step)
        while trainer.step < steps:
            records.append(trainer.run_step())
            if len(records) == LOG_STEPS or trainer.step == steps:
                summary = _summary(records, trainer)
                write(summary)
                last = {"loss": summary.get("loss")}
                text = f"loss {last['loss']}, {summary['frames_s']:.0f} frames/s"
                bar.update(task, completed=trainer.step, description=text)
                records.clear()
            if trainer.elapsed - saved > SAVE_S:
                trainer.save()
                saved = trainer.elapsed
            if trainer.step % interval == 0 and trainer.step < steps:
                run_validation()
    return last


def _summary(records: list[dict[str, float]], trainer: Trainer) -> Record:
    keys = dict.fromkeys(k for r in records for k in r)
    numbers = {k: [r[k] for r in records if k in r and math.isfinite(r[k])] for k in keys}
    means = {k: float(f"{np.mean(found):.4g}") for k, found in numbers.items() if found}
    return {**means, "step": trainer.step, "minutes": round(trainer.elapsed / 60, 2)}


def _keep_freed_memory() -> None:
    """Make glibc reuse freed memory: each step allocates the same gigabytes, and the kernel would clear new pages."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Lock the folder. Raises `ConfigError` if another training uses it, `OutputError` if it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = (out / ".lock").open("w")
    except OSError as e:
        raise unwritable(out / ".lock", e) from e
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise ConfigError(f"{out}: another training is running in it; wait for it, or choose another --out") from e
        yield


@contextmanager
def _log(path: Path, step: int) -> Iterator[TextIO]:
    """Open the log file, and remove incomplete lines and records of steps after `step`, which a kill may have left."""
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
