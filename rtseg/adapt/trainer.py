"""One network in training, step by step: what it sees, its optimizer, its average, and the state that a kill leaves.

What a step sees and asks is a pure function of the training's file, its data and its seed; on one CPU with as many
threads so is what comes out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..config import file_sha256
from ..engine import find_weights
from ..errors import ConfigError, EngineError
from ..sam2 import Sam2, get_preset, load_weights
from .checkpoint import Average, Checkpoint, export
from .clips import Ahead, Batch, ClipMaker
from .config import FEATURES, Phase, Teacher, TrainConfig
from .losses import LOSSES
from .motion import Rng
from .objective import clip_loss, normalised
from .optimizer import Optimizer
from .teacher import features_loss, inherit

MOST_SKIPPED = 20  # steps in a row whose gradients are not numbers
Make = Callable[[Phase], ClipMaker]  # the clips of a phase: its image size decides how large the material is kept


class Trainer:
    """A network in training: its optimizer, its average, and how far it is. Owns the folder `out`."""

    def __init__(self, config: TrainConfig, make: Make, out: Path, device: torch.device, bf16: bool = True) -> None:
        torch.manual_seed(config.seed)
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

    def run_step(self) -> dict[str, float]:
        """One optimisation step; returns its log record."""
        begin, config = time.perf_counter(), self.config
        phase, age = config.at(self.step)
        if phase is not self.phase:
            self._enter(phase)
        count = phase.clips_cuda if self.device.type == "cuda" else phase.clips
        batch = self.clips.batch(self.step, count, phase.length, phase.image_size, phase.objects)
        drawn = time.perf_counter()
        rng = np.random.default_rng((config.seed, self.step, 1))
        self.net.train()
        bf16 = torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]), bf16:
            parts, ious = self._losses(batch, rng)
        loss = torch.stack(list(parts.values())).sum()
        self.optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.optimizer.tensors, 1.0)
        rate = config.rate(self.step)
        self.whole = False
        if torch.isfinite(norm):
            self.optimizer.step(rate)
        self._skipped = 0 if torch.isfinite(norm) else self._skipped + 1
        if self._skipped > MOST_SKIPPED:
            raise EngineError(
                f"step {self.step}: {MOST_SKIPPED} steps in a row gave no numbers; lower lr, or leave bf16"
            )
        self.step += 1
        self.average.update(self.net, age + 1)
        self.whole = True
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
