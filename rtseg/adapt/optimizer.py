"""The optimizers: Muon for the weight matrices of linear layers, AdamW for all other parameters (or AdamW for all).

Muon (K. Jordan, 2024) orthogonalizes each update of a matrix. Its updates are scaled to those of AdamW
("match_rms_adamw", arXiv 2502.16982), so both use the same learning rate and weight decay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .methods import part_of


class Optimizer:
    """One or two torch optimizers that are stepped together; `name` is "muon" or "adamw"."""

    def __init__(self, net: nn.Module, name: str, weight_decay: float) -> None:
        # Embeddings have the shape of matrices, but are added or looked up, not multiplied: they go to AdamW.
        matrices = [m.weight for m in net.modules() if isinstance(m, nn.Linear)] if name == "muon" else []
        muon, own = defaultdict[str, list[Tensor]](list), {id(p) for p in matrices}
        adamw = defaultdict[tuple[str, bool], list[Tensor]](list)
        for key, parameter in net.named_parameters():
            if id(parameter) in own:
                muon[part_of(key)].append(parameter)
            else:  # only those with two or more axes decay
                adamw[part_of(key), parameter.ndim > 1].append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": params, "weight_decay": weight_decay * decays, "part": part}
            for (part, decays), params in sorted(adamw.items(), key=lambda item: item[0])
        ]
        self._parts: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, betas=(0.9, 0.98))]
        if matrices:
            groups = [{"params": params, "part": part} for part, params in sorted(muon.items())]
            self._parts.append(torch.optim.Muon(groups, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))

    def step(self, rate: float, relative: Mapping[str, float]) -> None:
        """Update all parameters that have gradients, each with this learning rate times the relative one of its part.

        A parameter without a gradient, of a frozen part, stays bit-identical: it does not decay either.
        """
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate * relative[group["part"]]
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
