"""`rtseg train`: makes weights from scratch, or goes on from given ones, on short clips with memory unrolled.

Each step draws clips of one object, prompts the first frame (mask 60%, box 20%, point 20%), and follows it through
memories of its own predictions. The state is saved every two minutes; running again with the same folder resumes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..config import Recipe
from ..engine.reference import TorchEngine
from ..errors import ConfigError, OutputError
from ..sam2 import Features, Sam2, get_preset, load_weights
from .augment import Rng
from .checkpoint import Average, Checkpoint, export
from .data import Batch, Clips
from .losses import FROM_SCRATCH, LossWeights, frame_loss, hard_iou
from .rollout import fifo, prompt_from_mask, rollout, scattered
from .validate import normalised, validate, validation_set

PROMPT_KINDS = {"mask": 0.6, "box": 0.2, "point": 0.2}
HINTS = ("box", "point")  # what the first frame of every clip also teaches


@dataclass(frozen=True)
class TrainConfig:
    """One training. `minutes` (of training proper, over all resumptions) ends it, unless `steps` is given."""

    data: Path
    out: Path
    preset: str = "nano"
    image_size: int = 256
    weights: Path | None = None
    clip_length: int = 4
    clips: int = 6
    scenes: int = 40
    minutes: float = 75.0
    steps: int | None = None
    lr: float = 8e-4
    weight_decay: float = 0.05
    warm_up: int = 150
    average_decay: float = 0.998
    seed: int = 0
    threads: int = 2
    bf16: bool = True
    losses: LossWeights = FROM_SCRATCH
    save_every_s: float = 120.0
    validate_every_s: float = 900.0
    log_every: int = 20


class Trainer:
    """A network in training: its optimizer, its average, and how far it is."""

    def __init__(self, config: TrainConfig, clips: Clips) -> None:
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        self.config, self.clips = config, clips
        self.net = Sam2(get_preset(config.preset), image_size=config.image_size)
        if config.weights is not None:
            load_weights(self.net, config.weights)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        decayed = [p for p in self.net.parameters() if p.ndim > 1]
        plain = [p for p in self.net.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.lr,
            betas=(0.9, 0.98),
        )
        self.average = Average(self.net, config.average_decay)
        self.step, self.elapsed = 0, 0.0
        self.path = config.out / "last.pt"
        if self.path.exists():
            self._resume()

    def _resume(self) -> None:
        state = Checkpoint.read(self.path)
        if (state.preset, state.image_size) != (self.config.preset, self.config.image_size):
            raise ConfigError(
                f"{self.path}: it is a {state.preset} at {state.image_size} px, not "
                f"{self.config.preset} at {self.config.image_size} px; choose another --out"
            )
        self.net.load_state_dict(state.model)
        self.average.weights = state.average
        self.optimizer.load_state_dict(state.optimizer)
        self.step, self.elapsed = state.step, state.elapsed

    def save(self) -> None:
        """Write the checkpoint that `_resume` reads."""
        Checkpoint(
            self.config.preset,
            self.config.image_size,
            self.step,
            self.elapsed,
            self.net.state_dict(),
            self.average.weights,
            self.optimizer.state_dict(),
        ).write(self.path)

    @property
    def progress(self) -> float:
        """0 at the start, 1 when done."""
        if self.config.steps is not None:
            return self.step / self.config.steps
        return self.elapsed / (60 * self.config.minutes)

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.config.warm_up)
        return self.config.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress))))

    def _length(self) -> int:
        """Short clips first: what to look for must be learnt before where it went."""
        full = self.config.clip_length
        return min(full, 2 if self.progress < 0.2 else 3 if self.progress < 0.6 else full)

    def run_step(self) -> dict[str, float]:
        """One optimisation step; returns its log record."""
        config, begin = self.config, time.perf_counter()
        length = self._length()
        clips = max(1, config.clips * config.clip_length // length) if config.clips > 1 else 1
        batch = self.clips.batch(self.step, clips, length)
        drawn = time.perf_counter()
        rng = np.random.default_rng((config.seed, self.step, 1))
        self.net.train()
        # Plain attention beats the fused kernel here: its backward pass is twice as slow on windows this small.
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            parts, record = clip_loss(self.net, batch, rng, config.losses)
        loss = torch.stack(list(parts.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        self.average.update(self.net, self.step)
        done = time.perf_counter()
        self.elapsed += done - begin
        return {
            "step": self.step,
            "loss": loss.item(),
            **{k: v.item() for k, v in parts.items()},
            **record,
            "norm": norm.item(),
            "lr": self.optimizer.param_groups[0]["lr"],
            "length": length,
            "data_s": drawn - begin,
            "step_s": done - begin,
        }


def clip_loss(net: Sam2, batch: Batch, rng: Rng, weights: LossWeights) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Loss parts, averaged over the frames that were predicted, and the hard IoU of the tracked and prompted ones."""
    image_btchw, mask_bthw = batch.image_btchw, batch.mask_bthw
    clips, length = mask_bthw.shape[:2]
    feats = net.encode_image(normalised(image_btchw.transpose(0, 1).flatten(0, 1)))  # frame by frame: [T*B]
    by_frame: list[Features] = [feats.select(slice(t * clips, (t + 1) * clips)) for t in range(length)]
    kind = str(rng.choice(list(PROMPT_KINDS), p=list(PROMPT_KINDS.values())))
    first = prompt_from_mask(mask_bthw[:, 0], kind, rng)
    # Uneven times, so that all temporal slots are trained by clips that are shorter than the memory.
    times = np.cumsum(rng.integers(1, 4, length)).tolist()
    recollect = fifo if rng.random() < 0.5 else scattered(rng)
    losses, ious = [], {}
    for t, frame in enumerate(rollout(net, by_frame, times, first, recollect)):
        if frame.all_logits_bkhw is None or frame.all_iou_bk is None:
            continue
        target_bhw = mask_bthw[:, t]
        losses.append(frame_loss(frame.all_logits_bkhw, frame.all_iou_bk, frame.score_b, target_bhw, weights))
        small_b1hw = F.adaptive_avg_pool2d(target_bhw[:, None].float(), 4 * net.grid)
        ious[t] = hard_iou(frame.logits_b1hw.detach(), small_b1hw).mean().item()
    losses += [_hinted(net, by_frame[0], mask_bthw[:, 0], other, rng, weights) for other in HINTS if other != kind]
    parts = {k: torch.stack([frame[k] for frame in losses]).mean() for k in losses[0]}
    record = {"iou": float(np.mean([iou for t, iou in ious.items() if t > 0]))}
    if 0 in ious:
        record[f"iou_{kind}"] = ious[0]
    return parts, record


def _hinted(
    net: Sam2, frame: Features, mask_bhw: Tensor, kind: str, rng: Rng, weights: LossWeights
) -> dict[str, Tensor]:
    """The loss of a click or a box on a first frame. It is encoded already, so this costs a decoder pass."""
    prompts = prompt_from_mask(mask_bhw, kind, rng).prompts
    assert prompts is not None
    found = net.predict_masks(net.attend(frame, [None] * len(mask_bhw)), frame, prompts)
    return frame_loss(found.logits_bkhw, found.iou_bk, found.score_b, mask_bhw, weights)


def train(config: TrainConfig) -> dict[str, float]:
    """Train to the end (resuming if the folder holds a checkpoint); returns the averaged network's validation.

    The folder then holds `weights.safetensors`, which an engine recipe may name.
    """
    try:
        config.out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(f"{config.out}: cannot be made ({e.strerror}); expected a folder that can be written") from e
    trainer = Trainer(config, Clips.read(config.data, config.image_size, config.seed, config.scenes))
    held_out = validation_set(config.data)
    log = (config.out / "log.jsonl").open("a", buffering=1)

    def report() -> dict[str, float]:
        average = Sam2(get_preset(config.preset), image_size=config.image_size)
        average.load_state_dict(trainer.average.weights)
        found = validate(TorchEngine(average, Recipe(image_size=config.image_size), "", "cpu"), held_out)
        log.write(json.dumps({"step": trainer.step, "minutes": round(trainer.elapsed / 60, 2), "val": found}) + "\n")
        return found

    with log:
        _loop(trainer, log.write, report)
        trainer.save()
        export(trainer.path, config.out / "weights.safetensors")
        return report()


def _loop(trainer: Trainer, write: Callable[[str], object], report: Callable[[], object]) -> None:
    config = trainer.config
    records: list[dict[str, float]] = []
    saved = validated = trainer.elapsed
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("train", total=1.0)
        while trainer.progress < 1:
            records.append(trainer.run_step())
            if len(records) == config.log_every:
                write(json.dumps(_summary(records, trainer)) + "\n")
                bar.update(task, completed=trainer.progress, description=f"loss {records[-1]['loss']:.3f}")
                records.clear()
            if trainer.elapsed - saved > config.save_every_s:
                trainer.save()
                saved = trainer.elapsed
            if trainer.elapsed - validated > config.validate_every_s:
                report()
                validated = trainer.elapsed


def _summary(records: list[dict[str, float]], trainer: Trainer) -> dict[str, float]:
    keys = dict.fromkeys(k for r in records for k in r)
    means = {k: float(f"{np.mean([r[k] for r in records if k in r]):.4g}") for k in keys}
    return {**means, "step": trainer.step, "minutes": round(trainer.elapsed / 60, 2)}
