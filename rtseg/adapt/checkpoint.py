"""The checkpoint: all state of a training in one file, which is either complete or absent, also after a kill."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import EngineError, WeightsError
from ..base.files import atomic_path, file_sha256
from ..engine import find_weights
from ..sam2 import Preset, Sam2, save_weights
from ..sam2.adapters import write_adapter
from .config import TrainConfig
from .methods import adapters_among, only_adapters, part_of


class WeightAverage:
    """An exponential moving average of a network's weights.

    Its decay is lower at first, so that the initial weights are soon forgotten. This starts again with each phase, so
    the average after a phase with a falling learning rate has no weights of the phase before.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {k: v.detach().clone() for k, v in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module, age: int) -> None:
        """Add the weights after step `age` of the phase, counted from 1."""
        decay = min(self.decay, (1 + age) / (10 + age))
        for k, v in net.state_dict().items():
            if v.is_floating_point():
                self.weights[k].lerp_(v, 1 - decay)
            else:
                self.weights[k].copy_(v)


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` steps and `elapsed` seconds of the training with the fingerprint `config`.

    There is no random state, because a batch depends only on (seed, step). `at_once` is the micro-batch size of each
    phase in clips, by the phase's first step. The field names are the keys in the file.
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
        """Write the file. After a kill it is the old one or the new one. Raises `OSError` if it cannot be written."""
        with atomic_path(path) as part:
            try:
                torch.save(vars(self), part)
            except RuntimeError as e:  # torch raises this for a full disk
                raise OSError(str(e).splitlines()[0]) from e

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Read a checkpoint. Raises `WeightsError` if there is none, or it is damaged."""
        if not path.exists():
            raise WeightsError(f"{path}: there is no checkpoint; expected one that rtseg train wrote")
        try:
            return cls(**torch.load(path, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, LookupError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as e:
            raise WeightsError(f"{path}: not a checkpoint of rtseg train, or damaged; delete it to start again") from e


def export(checkpoint: Path, path: Path, preset: Preset, metadata: dict[str, str]) -> None:
    """Write the averaged weights of a checkpoint to a weights file (fp16 safetensors) with this metadata.

    Raises `EngineError` if a weight is not finite.
    """
    state = Checkpoint.read(checkpoint)
    wrong = [name for name, weight in state.average.items() if not torch.isfinite(weight).all()]
    if wrong:
        raise EngineError(f"{checkpoint}: {wrong[0]} and {len(wrong) - 1} others are not finite; lower lr")
    net = Sam2(preset, image_size=state.image_size)
    net.load_state_dict({name: weight for name, weight in state.average.items() if part_of(name) != "adapter"})
    own = {"preset": preset.name, "image_size": str(state.image_size), "steps": str(state.step)}
    save_weights(net, path, half=True, metadata={**own, **metadata})


def write_trained(config: TrainConfig, checkpoint: Path, averaged: Sam2, folder: Path) -> dict[str, str]:
    """Write the averaged weights of a checkpoint, with the configuration's name and hash. Returns the files.

    They are `weights.safetensors`, and `adapter.safetensors` of a method with adapters. If nothing but adapters was
    trained, the weights are those that the training started from, and are not written again.
    """
    file, methods = config.path, adapters_among(config.method)
    made_by = {"config": file.name, "config_sha256": file_sha256(file)} if file else {}
    weights, written = folder / "weights.safetensors", dict[str, str]()
    if config.weights is not None and only_adapters(config.method):
        base = find_weights(config.weights)
    else:
        export(checkpoint, weights, averaged.preset, made_by)
        base, written["weights"] = weights, str(weights)
    if averaged.adapter is not None:
        path = folder / "adapter.safetensors"
        write_adapter(averaged.adapter, methods, path, file_sha256(base), made_by)
        written["adapter"] = str(path)
    return written
