"""The optimizers: Muon for the weight matrices of linear layers, AdamW for all other parameters (or AdamW for all).

Muon (K. Jordan, 2024) orthogonalizes each update of a matrix. Its updates are scaled to those of AdamW
("match_rms_adamw", arXiv 2502.16982), so both use the same learning rate and weight decay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

TRUNK = "image_encoder.trunk."


class Optimizer:
    """One or two torch optimizers that are stepped together; `name` is "muon" or "adamw"."""

    def __init__(self, net: nn.Module, name: str, weight_decay: float) -> None:
        # Embeddings have the shape of matrices, but are added or looked up, not multiplied: they go to AdamW.
        trunk = {id(p) for key, p in net.named_parameters() if key.startswith(TRUNK)}
        matrices = [m.weight for m in net.modules() if isinstance(m, nn.Linear)] if name == "muon" else []
        own = {id(p) for p in matrices}
        adamw = [self._group(net, own, trunk, inside, weight_decay * decays, decays)
                 for inside in (False, True) for decays in (True, False)]  # fmt: skip
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(adamw, betas=(0.9, 0.98))]
        if matrices:
            muon = [{"params": [p for p in matrices if (id(p) in trunk) == inside], "trunk": inside}
                    for inside in (False, True)]  # fmt: skip
            muon = [group for group in muon if group["params"]]
            self._parts.append(torch.optim.Muon(muon, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))

    @staticmethod
    def _group(
        net: nn.Module, muon: set[int], trunk: set[int], inside: bool, weight_decay: float, decays: bool
    ) -> dict[str, Any]:
        """The parameters of AdamW inside or outside of the trunk; only those with two or more axes decay."""
        params = [p for p in net.parameters()
                  if id(p) not in muon and (id(p) in trunk) == inside and (p.ndim > 1) == decays]  # fmt: skip
        return {"params": params, "weight_decay": weight_decay, "trunk": inside}

    def step(self, rate: float, trunk_rate: float = 1.0) -> None:
        """Update all parameters with this learning rate; those of the trunk with `trunk_rate` times it."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate * trunk_rate if group["trunk"] else rate
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
