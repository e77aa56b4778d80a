"""The optimizers: Muon for the matrices of the network's layers, AdamW for all else (or AdamW alone).

Muon (K. Jordan, 2024) makes each update of a matrix orthogonal; with the scale of AdamW's updates ("match_rms_adamw",
arXiv 2502.16982) both take the same learning rate and weight decay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Optimizer:
    """One or two of torch's optimizers that are stepped together."""

    def __init__(self, net: nn.Module, name: str, weight_decay: float) -> None:
        # Tables that are looked up, or added, are matrices in shape alone: nothing is multiplied with them.
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
    def begun(self) -> bool:
        """Whether it has its moments already, which it makes in its first step."""
        return all(part.state for part in self._parts)

    @property
    def tensors(self) -> list[Tensor]:
        return [p for part in self._parts for group in part.param_groups for p in group["params"]]
