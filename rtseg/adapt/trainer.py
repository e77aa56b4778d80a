"""One network in training, step by step: what it sees, its optimizer, its average, and the state that a kill leaves.

What a step sees and asks is a pure function of the training's file, its data and its seed; on one CPU with as many
threads so is what comes out.
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
from ..base.files import file_sha256
from ..engine import find_weights
from ..sam2 import Sam2, get_preset, load_weights
from .checkpoint import Average, Checkpoint, export
from .clips import Ahead, Batch, ClipMaker
from .config import FEATURES, Phase, Teacher, TrainConfig
from .losses import LOSSES
from .motion import Rng
from .objective import clip_loss, normalised
from .optimizer import Optimizer
from .room import GpuMeter, Meter, even, most_at_once
from .teacher import features_loss, inherit

MOST_SKIPPED = 20  # steps in a row whose gradients are not numbers
Record = dict[str, Any]
Make = Callable[[Phase], ClipMaker]  # the clips of a phase: its image size decides how large the material is kept


class Trainer:
    """A network in training: its optimizer, its average, and how far it is. Owns the folder `out`."""

    def __init__(
        self, config: TrainConfig, make: Make, out: Path, device: torch.device, bf16: bool = True,
        meter: Meter | None = None,
    ) -> None:  # fmt: skip
        """`meter` is that of the device's memory; None: its own, if it is a GPU."""
        torch.manual_seed(config.seed)
        self._meter = GpuMeter(device) if meter is None and device.type == "cuda" else meter
        self.at_once: dict[int, int] = {}  # clips, by the step that a phase begins with; of those that were measured
        self.note: Callable[[Record], None] = lambda record: None  # for the log
        self.config, self.path, self.device = config, out / "last.pt", device
        self._make, self._bf16 = make, bf16
        self.step, self.elapsed, self._skipped = 0, 0.0, 0
        self.whole = True  # False while an update is under way, which is no state to save
        self.phase, _ = config.at(0)
        self.preset = get_preset(config.preset)
        self.net = Sam2(self.preset, self.phase.image_size)
        if not self.path.exists():
            self._begin()
        self._settle(self.net)
        self.average = Average(self.net, config.average_decay)
        if self.path.exists():
            self._resume()
        self.clips, self.teacher = self._maker(self.phase), self._teaching(self.phase)

    def _begin(self) -> None:
        """Fill the network with what the file says that it begins with."""
        if self.config.weights is not None:
            load_weights(self.net, find_weights(self.config.weights))
        if self.config.teacher is not None:
            inherit(self.net, self._teacher(self.config.teacher, self.phase.image_size))

    def _teacher(self, said: Teacher, image_size: int) -> Sam2:
        net = Sam2(get_preset(said.preset), image_size)
        load_weights(net, find_weights(said.weights))
        return net.eval().requires_grad_(False).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _teaching(self, phase: Phase) -> Sam2 | None:
        """Whose features this phase teaches, if it does."""
        said = self.config.teacher
        return self._teacher(said, phase.image_size) if said is not None and phase.loss == FEATURES else None

    def _settle(self, net: Sam2) -> None:
        """Make `net` the one that is trained."""
        self.net = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        net.tokenizer.cells = net.tokenizer.cells.to(self.device)
        self.optimizer = Optimizer(self.net, self.config.optimizer, self.config.weight_decay)

    def _resume(self) -> None:
        state = Checkpoint.read(self.path)
        if state.preset != self.preset.name:
            raise ConfigError(f"{self.path}: it is a {state.preset}, not a {self.preset.name}; choose another --out")
        if state.config != self.config.fingerprint(state.step):
            raise ConfigError(f"{self.path}: its {state.step} steps were another training's; choose another --out")
        self.step, self.elapsed = state.step, state.elapsed
        self.phase, _ = self.config.at(self.step)
        self._settle(Sam2(self.preset, self.phase.image_size))
        self.net.load_state_dict(state.model)
        self.average.weights = {k: v.to(self.device) for k, v in state.average.items()}
        self.optimizer.load_state_dict(state.optimizer)
        self.at_once = dict(state.at_once)

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
            self.at_once,
        ).write(self.path)

    def averaged(self) -> Sam2:
        """The averaged network, on the CPU, as it would be shipped."""
        net = Sam2(self.preset, self.config.phases[-1].image_size)
        net.load_state_dict(self.average.weights)
        return net.eval()

    def export(self, path: Path) -> None:
        """Write the saved average as a weights file, which says by what it was made."""
        file = self.config.path
        made_by = {"config": file.name, "config_sha256": file_sha256(file)} if file else {}
        export(self.path, path, self.preset, made_by)

    def _maker(self, phase: Phase) -> ClipMaker | Ahead:
        return Ahead(self._make(phase)) if self.device.type == "cuda" else self._make(phase)

    def close(self) -> None:
        """End what is made ahead: after the last step, or a failed one."""
        if isinstance(self.clips, Ahead):
            self.clips.close()

    def _enter(self, phase: Phase) -> None:
        """Go on with another phase. Nothing in the weights depends on the image size."""
        if phase.image_size != self.phase.image_size:
            weights, moments = self.net.state_dict(), self.optimizer.state_dict()
            self._settle(Sam2(self.preset, phase.image_size))
            self.net.load_state_dict(weights)
            self.optimizer.load_state_dict(moments)
            self.close()
            self.clips = self._maker(phase)
        self.phase, self.teacher = phase, self._teaching(phase)

    def _losses(self, batch: Batch, rng: Rng) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parts of the loss, and how well masks were predicted, if any were."""
        if self.teacher is None:
            return clip_loss(self.net, batch, rng, LOSSES[self.phase.loss])
        image_nchw = normalised(batch.image_ntchw.flatten(0, 1))
        with torch.no_grad():
            taught = self.teacher.encode_image(image_nchw)
        return features_loss(self.net.encode_image(image_nchw), taught), {}

    def _gradients(self, batch: Batch, at_once: int) -> dict[str, Tensor]:
        """The gradients of a batch, added up over its parts, and what is said of it.

        A part counts by its objects, or by its clips where features are learnt: the loss is a mean over these.
        """
        self.optimizer.zero_grad()
        self.net.train()
        parts, said = batch.parts(at_once), dict[str, Tensor]()
        counts = [len(p.image_ntchw) if self.teacher else len(p.clip_b) for p in parts]
        told: dict[str, float] = {}  # objects, or clips, that each number is of
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
                said[name] = said.get(name, 0.0) + value.detach().float() * count
                told[name] = told.get(name, 0.0) + count
        return {name: total / told[name] for name, total in said.items()}

    def _fitting(self, batch: Batch) -> dict[str, Tensor]:
        """`_gradients` with as many clips at once as the device has memory for; what is too many is halved."""
        begins, count = self.step - self.config.at(self.step)[1], len(batch.image_ntchw)
        if self._meter is None:
            return self._gradients(batch, count)
        if begins not in self.at_once:
            self._choose(begins, batch)
        while True:
            at_once = min(self.at_once[begins], count)
            try:
                return self._gradients(batch, at_once)
            except torch.OutOfMemoryError as e:
                if at_once == 1:
                    raise EngineError(
                        f"step {self.step}: out of GPU memory with one clip of {self.phase.length} frames at"
                        f" {self.phase.image_size} pixels; lower length, objects or image_size"
                    ) from e
            # Outside of the exception, which holds on to what it met.
            self._set(begins, even(count, at_once // 2), count, "out of memory")

    def _choose(self, begins: int, batch: Batch) -> None:
        """Measure how many clips fit at once, with a few of a batch; no weight changes."""
        meter, count = self._meter, len(batch.image_ntchw)
        assert meter is not None

        def peak_of(clips: int) -> int:
            fullest = max(batch.parts(clips), key=lambda part: len(part.clip_b))
            return meter.peak(lambda: self._gradients(fullest, clips))

        moments = 2 * sum(p.numel() * p.element_size() for p in self.net.parameters())
        fits = most_at_once(count, peak_of, meter.room(), 0 if self.optimizer.begun else moments)
        self._set(begins, fits, count, "measured")

    def _set(self, begins: int, at_once: int, clips: int, why: str) -> None:
        assert self._meter is not None
        self.optimizer.zero_grad()
        self._meter.let_go()
        self.at_once[begins] = at_once
        self.note({"step": self.step, "clips": clips, "at once": at_once, "why": why})

    def run_step(self) -> dict[str, float]:
        """One optimisation step; returns its log record."""
        begin, config = time.perf_counter(), self.config
        phase, age = config.at(self.step)
        if phase is not self.phase:
            self._enter(phase)
        count = phase.clips if self._meter is None else phase.clips_cuda
        batch = self.clips.batch(self.step, count, phase.length, phase.image_size, phase.objects)
        drawn = time.perf_counter()
        numbers = self._fitting(batch)
        norm = torch.nn.utils.clip_grad_norm_(self.optimizer.tensors, 1.0)
        rate = config.rate(self.step)
        self.whole = False
        sound = bool(torch.isfinite(norm))  # here a GPU is waited for
        if sound:
            self.optimizer.step(rate)
        self._skipped = 0 if sound else self._skipped + 1
        if self._skipped > MOST_SKIPPED:
            raise EngineError(
                f"step {self.step}: {MOST_SKIPPED} steps in a row gave no numbers; lower lr, or leave bf16"
            )
        self.step += 1
        self.average.update(self.net, age + 1)
        self.whole = True
        said = {**numbers, "norm": norm}
        values = torch.stack([v.detach().float() for v in said.values()]).tolist()  # and here
        done = time.perf_counter()
        self.elapsed += done - begin
        return {
            "step": self.step,
            **dict(zip(said, values, strict=True)),
            "skipped": float(self._skipped > 0),
            "lr": rate,
            "objects": len(batch.clip_b),
            **({} if self._meter is None else {"at_once": float(self.at_once[self.step - 1 - age])}),
            "frames_s": count * phase.length / (done - begin),
            "data_s": drawn - begin,
            "step_s": done - begin,
        }
