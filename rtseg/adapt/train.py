"""`rtseg train CONFIG`: makes weights, or goes on from given ones, on short clips with memory unrolled.

What a step sees and asks is a pure function of the training's file, its data and its seed; on one CPU with as many
threads so is what comes out. The state is saved every two minutes; running again with the same folder goes on after
the last step saved.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..config import file_sha256
from ..engine import find_weights
from ..errors import ConfigError, EngineError, OutputError
from ..sam2 import Sam2, get_preset, load_weights
from .checkpoint import Average, Checkpoint, export
from .clips import Ahead, ClipMaker
from .config import Phase, TrainConfig
from .losses import LOSSES
from .objective import clip_loss
from .optimizer import Optimizer
from .validate import held_out, validate
from .workshop import Workshop

SAVE_S, LOG_STEPS, VALIDATIONS = 120.0, 20, 8
MOST_SKIPPED = 20  # steps in a row whose gradients are not numbers
Make = Callable[[Phase], ClipMaker]  # the clips of a phase: its image size decides how large the material is kept
Report = Callable[[Sam2], dict[str, float]]


class Trainer:
    """A network in training: its optimizer, its average, and how far it is. Owns the folder `out`."""

    def __init__(self, config: TrainConfig, make: Make, out: Path, device: torch.device, bf16: bool = True) -> None:
        torch.manual_seed(config.seed)
        self.config, self.path, self.device = config, out / "last.pt", device
        self._make, self._bf16 = make, bf16
        self.step, self.elapsed, self._skipped = 0, 0.0, 0
        self.phase, _ = config.at(0)
        self.net = Sam2(get_preset(config.preset), self.phase.image_size)
        if config.weights is not None and not self.path.exists():
            load_weights(self.net, find_weights(config.weights))
        self._settle(self.net)
        self.average = Average(self.net, config.average_decay)
        if self.path.exists():
            self._resume()
        self.clips = self._maker(self.phase)

    def _settle(self, net: Sam2) -> None:
        """Make `net` the one that is trained."""
        self.net = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        net.tokenizer.cells = net.tokenizer.cells.to(self.device)
        self.optimizer = Optimizer(self.net, self.config.optimizer, self.config.weight_decay)

    def _resume(self) -> None:
        state = Checkpoint.read(self.path)
        if state.preset != self.config.preset:
            raise ConfigError(f"{self.path}: it is a {state.preset}, not a {self.config.preset}; choose another --out")
        if state.config != self.config.fingerprint(state.step):
            raise ConfigError(f"{self.path}: its {state.step} steps were another training's; choose another --out")
        self.step, self.elapsed = state.step, state.elapsed
        self.phase, _ = self.config.at(self.step)
        self._settle(Sam2(get_preset(self.config.preset), self.phase.image_size))
        self.net.load_state_dict(state.model)
        self.average.weights = {k: v.to(self.device) for k, v in state.average.items()}
        self.optimizer.load_state_dict(state.optimizer)

    def save(self) -> None:
        """Write the checkpoint that `_resume` reads."""
        Checkpoint(
            self.config.preset,
            self.phase.image_size,
            self.step,
            self.elapsed,
            self.config.fingerprint(self.step),
            self.net.state_dict(),
            self.average.weights,
            self.optimizer.state_dict(),
        ).write(self.path)

    def averaged(self) -> Sam2:
        """The averaged network, on the CPU, as it would be shipped."""
        net = Sam2(get_preset(self.config.preset), self.config.phases[-1].image_size)
        net.load_state_dict(self.average.weights)
        return net.eval()

    def provenance(self) -> dict[str, str]:
        """What the weights file says of its making."""
        file = self.config.path
        return {"config": file.name, "config_sha256": file_sha256(file)} if file else {}

    def _maker(self, phase: Phase) -> ClipMaker | Ahead:
        return Ahead(self._make(phase)) if self.device.type == "cuda" else self._make(phase)

    def _enter(self, phase: Phase) -> None:
        """Go on with another phase. Nothing in the weights depends on the image size."""
        if phase.image_size != self.phase.image_size:
            weights, moments = self.net.state_dict(), self.optimizer.state_dict()
            self._settle(Sam2(get_preset(self.config.preset), phase.image_size))
            self.net.load_state_dict(weights)
            self.optimizer.load_state_dict(moments)
            self.clips = self._maker(phase)
        self.phase = phase

    def run_step(self) -> dict[str, float]:
        """One optimisation step; returns its log record."""
        begin, config = time.perf_counter(), self.config
        phase, _ = config.at(self.step)
        if phase is not self.phase:
            self._enter(phase)
        count = phase.clips_cuda if self.device.type == "cuda" else phase.clips
        batch = self.clips.batch(self.step, count, phase.length, phase.image_size, phase.objects)
        drawn = time.perf_counter()
        rng = np.random.default_rng((config.seed, self.step, 1))
        self.net.train()
        # On a CPU plain attention beats the fused kernel: its backward pass is twice as slow on windows this small.
        backends = [SDPBackend.MATH] if self.device.type == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
        with sdpa_kernel(backends), torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            parts, ious = clip_loss(self.net, batch, rng, LOSSES[phase.loss])
        loss = torch.stack(list(parts.values())).sum()
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.optimizer.tensors, 1.0)
        rate = config.rate(self.step)
        if torch.isfinite(norm):
            self.optimizer.step(rate)
        self._skipped = 0 if torch.isfinite(norm) else self._skipped + 1
        if self._skipped > MOST_SKIPPED:
            raise EngineError(
                f"step {self.step}: {MOST_SKIPPED} steps in a row gave no numbers; lower lr, or leave bf16"
            )
        self.step += 1
        self.average.update(self.net, self.step)
        said = {"loss": loss, **parts, **{f"iou_{k}": v for k, v in ious.items()}, "norm": norm}
        values = torch.stack([v.detach().float() for v in said.values()]).tolist()  # here a GPU is waited for
        done = time.perf_counter()
        self.elapsed += done - begin
        return {
            "step": self.step,
            **dict(zip(said, values, strict=True)),
            "skipped": float(self._skipped > 0),
            "lr": rate,
            "objects": len(batch.clip_b),
            "frames_s": count * phase.length / (done - begin),
            "data_s": drawn - begin,
            "step_s": done - begin,
        }


def run(trainer: Trainer, out: Path, report: Report) -> dict[str, float]:
    """Train to the end of the last phase; returns the averaged network's validation.

    The folder then holds `weights.safetensors`, which an engine recipe may name, and `log.jsonl`.
    """
    with (out / "log.jsonl").open("a", buffering=1) as log:

        def validate() -> dict[str, float]:
            found = report(trainer.averaged())
            line = {"step": trainer.step, "minutes": round(trainer.elapsed / 60, 2), "val": found}
            log.write(json.dumps(line) + "\n")
            return found

        _loop(trainer, log.write, validate)
        trainer.save()
        export(trainer.path, out / "weights.safetensors", trainer.provenance())
        return validate()


def _loop(trainer: Trainer, write: Callable[[str], object], validate: Callable[[], object]) -> None:
    records: list[dict[str, float]] = []
    saved = trainer.elapsed
    often = max(1, trainer.config.steps // VALIDATIONS)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("train", total=trainer.config.steps, completed=trainer.step)
        while trainer.step < trainer.config.steps:
            records.append(trainer.run_step())
            if len(records) == LOG_STEPS:
                summary = _summary(records, trainer)
                write(json.dumps(summary) + "\n")
                said = f"loss {summary['loss']:.3f}, {summary['frames_s']:.0f} frames/s"
                bar.update(task, completed=trainer.step, description=said)
                records.clear()
            if trainer.elapsed - saved > SAVE_S:
                trainer.save()
                saved = trainer.elapsed
            if trainer.step % often == 0 and trainer.step < trainer.config.steps:
                validate()


def _summary(records: list[dict[str, float]], trainer: Trainer) -> dict[str, float]:
    keys = dict.fromkeys(k for r in records for k in r)
    numbers = {k: [r[k] for r in records if k in r and math.isfinite(r[k])] for k in keys}
    means = {k: float(f"{np.mean(found):.4g}") for k, found in numbers.items() if found}
    return {**means, "step": trainer.step, "minutes": round(trainer.elapsed / 60, 2)}


def train(
    config: TrainConfig, data: Path, out: Path, device: str = "auto", threads: int | None = None
) -> dict[str, float]:
    """Train to the end (resuming if `out` holds a checkpoint); returns the averaged network's validation."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(f"{out}: cannot be made ({e.strerror}); expected a folder that can be written") from e
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise EngineError("device cuda: torch sees no GPU here; leave --device out")
    if threads:
        torch.set_num_threads(threads)
    on = torch.device(device)
    judges = held_out(config, data)
    trainer = Trainer(config, Workshop(config, data, on).maker, out, on)
    return run(trainer, out, lambda net: validate(net, judges, on))
