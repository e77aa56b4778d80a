"""The training of one network, step by step: its batches, optimizer, weight average and checkpoint.

The batch and the prompts of a step are a pure function of the configuration, the data and the seed. On one CPU with the
same number of threads, so are the weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..base.errors import ConfigError, EngineError
from ..sam2 import Sam2, get_preset
from ..sam2.efficientnet_lite import EfficientNetLite
from .batches import Batch, BatchSampler, Prefetcher
from .checkpoint import Checkpoint, WeightAverage, write_trained
from .config import FEATURES, Phase, TrainConfig
from .distillation import features_loss
from .losses import LOSSES
from .methods import part_of, rates_of
from .micro_batch import GpuMemoryMeter, MemoryMeter, even_size, largest_micro_batch
from .motion import Rng
from .networks import load_initial_weights, load_teacher, new_network
from .objective import clip_loss, normalized
from .optimizer import Optimizer

MAX_SKIPPED = 20  # steps in a row with gradients that are not finite
Record = dict[str, Any]
MakeSampler = Callable[[Phase], BatchSampler]  # the sampler of a phase: its image size sets the size of the videos


class Trainer:
    """A network in training, with its optimizer, weight average and step. It alone writes to the folder `out`."""

    def __init__(
        self, config: TrainConfig, make_sampler: MakeSampler, out: Path, device: torch.device, bf16: bool = True,
        meter: MemoryMeter | None = None,
    ) -> None:  # fmt: skip
        """Start a training, or resume it if `out` has a checkpoint.

        `make_sampler` makes the sampler of a phase. `meter` measures the device's memory (None: only that of a GPU).
        Raises `ConfigError` if the checkpoint is of another training, `WeightsError` if it is damaged.
        """
        torch.manual_seed(config.seed)
        self._meter = GpuMemoryMeter(device) if meter is None and device.type == "cuda" else meter
        self.micro_batch: dict[int, int] = {}  # clips, by `_measured_as`
        self.log: Callable[[Record], None] = lambda record: None
        self.config, self.path, self.device = config, out / "last.pt", device
        self._make_sampler, self._bf16 = make_sampler, bf16
        self.step, self.elapsed, self._skipped = 0, 0.0, 0
        self.consistent = True  # False during an update, when the state must not be saved
        self.phase, _ = config.at(0)
        self.preset = get_preset(config.preset)
        self.rates = rates_of(config.method)
        self.net = new_network(config, self.preset, self.phase.image_size)
        if not self.path.exists():
            load_initial_weights(self.net, config, device)
        self._set_network(self.net)
        self.average = WeightAverage(self.net, config.average_decay)
        if self.path.exists():
            self._resume()
        self.batches, self.teacher = self._batches(self.phase), self._teacher_of(self.phase)

    def _teacher_of(self, phase: Phase) -> Sam2 | None:
        """The teacher, if this phase trains on its features; else None."""
        teacher = self.config.teacher if phase.loss == FEATURES else None
        return None if teacher is None else load_teacher(teacher, phase.image_size, self.device)

    def _set_network(self, net: Sam2) -> None:
        """Train `net` from now on, with a new optimizer."""
        self.net = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        net.tokenizer.cells = net.tokenizer.cells.to(self.device)
        self.optimizer = Optimizer(self.net, self.config.optimizer, self.config.weight_decay)

    def _resume(self) -> None:
        state = Checkpoint.read(self.path)
        if state.preset != self.preset.name:
            raise ConfigError(
                f"{self.path}: checkpoint of a {state.preset}; expected a {self.preset.name}: choose another --out"
            )
        if state.config != self.config.fingerprint(state.step):
            raise ConfigError(f"{self.path}: at step {state.step} of another training; choose another --out")
        self.step, self.elapsed = state.step, state.elapsed
        self.phase, _ = self.config.at(self.step)
        self._set_network(new_network(self.config, self.preset, self.phase.image_size))
        self.net.load_state_dict(state.model)
        self.average.weights = {k: v.to(self.device) for k, v in state.average.items()}
        self.optimizer.load_state_dict(state.optimizer)
        self.micro_batch = dict(state.at_once)

    def save(self) -> None:
        """Write the checkpoint that `_resume` reads."""
        Checkpoint(
            self.preset.name,
            self.phase.image_size,
            self.step,
            self.elapsed,
            self.config.fingerprint(self.step),
            self.net.state_dict(),
            self.average.weights,
            self.optimizer.state_dict(),
            self.micro_batch,
        ).write(self.path)

    def averaged(self) -> Sam2:
        """The network with the averaged weights, on the CPU, as `export` would write it."""
        net = new_network(self.config, self.preset, self.config.phases[-1].image_size)
        net.load_state_dict(self.average.weights)
        return net.eval()

    def export(self, folder: Path) -> dict[str, str]:
        """Write what was trained, from the checkpoint; returns the files. See `write_trained`."""
        return write_trained(self.config, self.path, self.averaged(), folder)

    def _batches(self, phase: Phase) -> BatchSampler | Prefetcher:
        sampler = self._make_sampler(phase)
        return Prefetcher(sampler, self._sizes) if self.device.type == "cuda" else sampler

    def _sizes(self, step: int) -> tuple[int, int]:
        """The clips of a step, and the frames of each."""
        phase, _ = self.config.at(step)
        return phase.batch_size(step, phase.clips if self._meter is None else phase.clips_cuda)

    def close(self) -> None:
        """End prefetching; call it after the last step, or a failed one."""
        if isinstance(self.batches, Prefetcher):
            self.batches.close()

    def _enter(self, phase: Phase) -> None:
        """Start another phase. The weights do not depend on the image size."""
        if phase.image_size != self.phase.image_size:
            weights, moments = self.net.state_dict(), self.optimizer.state_dict()
            self._set_network(new_network(self.config, self.preset, phase.image_size))
            self.net.load_state_dict(weights)
            self.optimizer.load_state_dict(moments)
            self.close()
            self.batches = self._batches(phase)
        self.phase, self.teacher = phase, self._teacher_of(phase)

    def _losses(self, batch: Batch, rng: Rng) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The loss terms, and the IoU of the predictions by kind, if there are any."""
        if self.teacher is None:
            return clip_loss(self.net, batch, rng, LOSSES[self.phase.loss])
        image_nchw = normalized(batch.image_ntchw.flatten(0, 1))
        with torch.no_grad():
            target = self.teacher.encode_image(image_nchw)
        return features_loss(self.net.encode_image(image_nchw), target), {}

    def _freeze(self) -> None:
        """Let only those parameters learn that the method and the phase ask for."""
        trunk, phase, rates = self.net.image_encoder.trunk, self.phase, self._relative_rates()
        for name, parameter in self.net.named_parameters():
            parameter.requires_grad_(rates[part_of(name)] > 0)
        if phase.coarse_only and isinstance(trunk, EfficientNetLite):
            trunk.stem.requires_grad_(False)
            trunk.blocks[: trunk.stage_ends[1] + 1].requires_grad_(False)

    def _relative_rates(self) -> dict[str, float]:
        return {**self.rates, "trunk": self.rates["trunk"] * self.phase.trunk_rate}

    def _gradients(self, batch: Batch, micro_batch: int) -> dict[str, Tensor]:
        """Accumulate the gradients of a batch over micro-batches of this many clips. Returns the means to log.

        The loss of a micro-batch is the mean over its objects, or over its clips if features are trained: so it is
        weighted by their number.
        """
        self.optimizer.zero_grad()
        self.net.train()
        self._freeze()
        parts, totals = batch.split(micro_batch), dict[str, Tensor]()
        counts = [len(p.image_ntchw) if self.teacher else len(p.clip_b) for p in parts]
        weights: dict[str, float] = {}  # the number of objects, or clips, in each logged total
        for k, (part, count) in enumerate(zip(parts, counts, strict=True)):
            if not count:
                continue
            rng = np.random.default_rng((self.config.seed, self.step, 1, *([k] if len(parts) > 1 else [])))
            bf16 = torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)
            with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]), bf16:
                losses, ious = self._losses(part, rng)
            loss = torch.stack(list(losses.values())).sum()
            (loss * (count / sum(counts))).backward()
            for name, value in {"loss": loss, **losses, **{f"iou_{k}": v for k, v in ious.items()}}.items():
                totals[name] = totals.get(name, 0.0) + value.detach().float() * count
                weights[name] = weights.get(name, 0.0) + count
        return {name: total / weights[name] for name, total in totals.items()}

    def _measured_as(self) -> int:
        """The key of this step's micro-batch: the first step of its phase; of single pictures, -1 - that step."""
        phase, age = self.config.at(self.step)
        first, (_, length) = self.step - age, self._sizes(self.step)
        return first if length == phase.length else -1 - first

    def _gradients_in_memory(self, batch: Batch) -> dict[str, Tensor]:
        """`_gradients` with the largest micro-batch that fits into the device's memory; halved if memory is full."""
        key, count = self._measured_as(), len(batch.image_ntchw)
        if self._meter is None:
            return self._gradients(batch, count)
        if key not in self.micro_batch:
            self._measure(key, batch)
        while True:
            clips = min(self.micro_batch[key], count)
            try:
                return self._gradients(batch, clips)
            except torch.OutOfMemoryError as e:
                if clips == 1:
                    raise EngineError(
                        f"step {self.step}: out of GPU memory with one clip of {self.phase.length} frames at"
                        f" {self.phase.image_size} pixels; lower length, objects or image_size"
                    ) from e
            # Outside the handler, because the exception keeps tensors of the failed step alive.
            self._set_micro_batch(key, even_size(count, clips // 2), count, "out of memory")

    def _measure(self, key: int, batch: Batch) -> None:
        """Choose the micro-batch size by measuring a few clips of a batch. The weights do not change."""
        meter, count = self._meter, len(batch.image_ntchw)
        assert meter is not None

        def peak_of(clips: int) -> int:
            fullest = max(batch.split(clips), key=lambda part: len(part.clip_b))
            return meter.peak(lambda: self._gradients(fullest, clips))

        moments = 2 * sum(p.numel() * p.element_size() for p in self.net.parameters())
        reserved = 0 if self.optimizer.has_moments else moments
        fits = largest_micro_batch(count, peak_of, meter.available(), reserved)
        self._set_micro_batch(key, fits, count, "measured")

    def _set_micro_batch(self, key: int, micro_batch: int, clips: int, why: str) -> None:
        assert self._meter is not None
        self.optimizer.zero_grad()
        self._meter.release()
        self.micro_batch[key] = micro_batch
        self.log({"step": self.step, "clips": clips, "at once": micro_batch, "why": why})

    def run_step(self) -> dict[str, float]:
        """Run one optimization step and return its log record.

        Raises `EngineError` after too many steps with gradients that are not finite.
        """
        begin, config = time.perf_counter(), self.config
        phase, age = config.at(self.step)
        if phase is not self.phase:
            self._enter(phase)
        (clips, length), key = self._sizes(self.step), self._measured_as()
        batch = self.batches.batch(self.step, clips, length, phase.image_size, phase.objects)
        sampled = time.perf_counter()
        means = self._gradients_in_memory(batch)
        norm = torch.nn.utils.clip_grad_norm_(self.optimizer.tensors, 1.0)
        rate = config.rate(self.step)
        self._update(norm, rate, age)
        logged = {**means, "norm": norm}
        values = torch.stack([v.detach().float() for v in logged.values()]).tolist()  # waits for the GPU
        done = time.perf_counter()
        self.elapsed += done - begin
        return {
            "step": self.step,
            **dict(zip(logged, values, strict=True)),
            "skipped": float(self._skipped > 0),
            "lr": rate,
            "objects": len(batch.clip_b),
            **({} if self._meter is None else {"at_once": float(self.micro_batch[key])}),
            "frames_s": clips * length / (done - begin),
            "data_s": sampled - begin,
            "step_s": done - begin,
        }

    def _update(self, norm: Tensor, rate: float, age: int) -> None:
        """Update weights and average in step `age` of the phase. Weights are kept if the gradients are not finite."""
        self.consistent = False
        finite = bool(torch.isfinite(norm))  # waits for the GPU
        if finite:
            self.optimizer.step(rate, self._relative_rates())
        self._skipped = 0 if finite else self._skipped + 1
        if self._skipped > MAX_SKIPPED:
            raise EngineError(
                f"step {self.step}: {MAX_SKIPPED} steps in a row gave no finite gradients; lower lr, or leave bf16"
            )
        self.step += 1
        self.average.update(self.net, age + 1)
        self.consistent = True
