"""The optimizers: Muon for the weight matrices of linear layers, AdamW for all other parameters (or AdamW for all).

Muon (K. Jordan, 2024) orthogonalizes each update of a matrix. Its updates are scaled to those of AdamW
("match_rms_adamw", arXiv 2502.16982), so both use the same learning rate and weight decay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Optimizer:
    """One or two torch optimizers that are stepped together; `name` is "muon" or "adamw"."""

    def __init__(self, net: nn.Module, name: str, weight_decay: float) -> None:
        # Embeddings have the shape of matrices, but are added or looked up, not multiplied: they go to AdamW.
        matrices = [m.weight for m in net.modules() if isinstance(m, nn.Linear)] if name == "muon" else []
        own = {id(p) for p in matrices}
        others = [p for p in net.parameters() if id(p) not in own]
        decayed = [p for p in others if p.ndim > 1]
        plain = [p for p in others if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, betas=(0.9, 0.98))]
        if matrices:
            self._parts.append(torch.optim.Muon(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))

    def step(self, rate: float) -> None:
        """Update all parameters with this learning rate."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()

    def zero_grad(self) -> None:
        for part in self._parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        for part, own in zip(self._parts, state, strict=True):
            part.load_state_dict(own)

    @property
    def has_moments(self) -> bool:
        """Whether the moments are allocated, which happens in the first step."""
        return all(part.state for part in self._parts)

    @property
    def tensors(self) -> list[Tensor]:
        return [p for part in self._parts for group in part.param_groups for p in group["params"]]
