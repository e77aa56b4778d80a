"""All that a training needs to go on after a kill, in one file that is either whole or not there."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import EngineError, WeightsError
from ..base.files import atomic_path
from ..sam2 import Preset, Sam2, save_weights


class Average:
    """Exponential moving average of a network's weights; young averages forget faster, so the start is not kept.

    With each phase it is young again: what one that lowers its rate ends with owes nothing to the rate before.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module, age: int) -> None:
        """Take the weights in after the phase's step `age`, counted from 1."""
        decay = min(self.decay, (1 + age) / (10 + age))
        for k, v in net.state_dict().items():
            if v.is_floating_point():
                self.weights[k].lerp_(v, 1 - decay)
            else:
                self.weights[k].copy_(v)


@dataclass(frozen=True)
class Checkpoint:
    """`step` steps are done, in `elapsed` seconds, of the training whose fingerprint is `config`.

    Batches depend on (seed, step) alone, so no RNG is needed. `at_once`: into parts of how many clips a GPU's memory
    cut the batches of each phase, by the step that the phase begins with.
    """

    preset: str
    image_size: int
    step: int
    elapsed: float
    config: str
    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: list[dict[str, Any]]
    at_once: dict[int, int] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """A kill leaves the old file or the new one."""
        with atomic_path(path) as part:
            try:
                torch.save(vars(self), part)
            except RuntimeError as e:  # torch's word for a full disk
                raise OSError(str(e).splitlines()[0]) from e

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        if not path.exists():
            raise WeightsError(f"{path}: there is no checkpoint; expected one written by: rtseg train")
        try:
            return cls(**torch.load(path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, LookupError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as e:
            raise WeightsError(f"{path}: not a checkpoint of rtseg train, or damaged; remove it to begin again") from e


def export(checkpoint: Path, path: Path, preset: Preset, metadata: dict[str, str]) -> None:
    """Write the averaged weights of a checkpoint as a weights file (fp16 safetensors).

    `EngineError` if they are not numbers.
    """
    state = Checkpoint.read(checkpoint)
    wrong = [name for name, weight in state.average.items() if not torch.isfinite(weight).all()]
    if wrong:
        raise EngineError(f"{checkpoint}: {wrong[0]} and {len(wrong) - 1} others are not numbers; take a lower lr")
    net = Sam2(preset, image_size=state.image_size)
    net.load_state_dict(state.average)
    own = {"preset": preset.name, "image_size": str(state.image_size), "steps": str(state.step)}
    save_weights(net, path, half=True, metadata={**own, **metadata})
