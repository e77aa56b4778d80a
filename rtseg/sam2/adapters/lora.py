"""LoRA (arXiv 2106.09685): to a weight matrix a product of two thin ones is added. Merged, it costs nothing.

It acts on the projections of attention (queries and values, as in the paper), on the feed-forward layers of memory
attention, and on the 1x1 convolutions of a convolutional trunk's coarse stages.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..presets import Preset
from .base import Adapter

RANK = 4
WHERE = re.compile(
    r"memory_attention\.layers\.\d+\.(self_attn|cross_attn_image)\.(q_proj|v_proj)$"
    r"|memory_attention\.layers\.\d+\.linear[12]$"
    r"|sam_mask_decoder\.transformer\..*\.(q_proj|v_proj)$"
    r"|image_encoder\.trunk\.blocks\.\d+\.(attn\.qkv|project)$"
)


class LowRank(Adapter):
    """`down` [RANK, inputs] and `up` [outputs, RANK] of each layer, in the order of the network's modules."""

    source = "LoRA, arXiv 2106.09685"
    merged = True

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.down, self.up = nn.ParameterList(), nn.ParameterList()
        for _, layer in layers(_shapes(preset)):
            outputs, inputs = layer.weight.shape[:2]
            self.down.append(nn.Parameter(torch.randn(RANK, inputs) / inputs**0.5))
            self.up.append(nn.Parameter(torch.zeros(outputs, RANK)))

    def attach(self, network: nn.Module) -> None:
        for i, (_, layer) in enumerate(layers(network)):
            layer.register_forward_hook(self._hook(i))

    def _hook(self, i: int) -> Any:
        def add(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
            down_ri, up_or = self.down[i], self.up[i]
            if isinstance(layer, nn.Conv2d):
                return out + F.conv2d(F.conv2d(given[0], down_ri[:, :, None, None]), up_or[:, :, None, None])
            return out + (given[0] @ down_ri.T) @ up_or.T

        return add

    @torch.no_grad()
    def merge(self, network: nn.Module) -> None:
        for i, (_, layer) in enumerate(layers(network)):
            layer.weight += (self.up[i] @ self.down[i]).reshape(layer.weight.shape)


def layers(network: nn.Module) -> list[tuple[str, Any]]:
    """The linear layers and 1x1 convolutions that are adapted, by name."""
    found = [(name, m) for name, m in network.named_modules() if WHERE.match(name)]
    return [(name, m) for name, m in found if isinstance(m, nn.Linear) or getattr(m, "kernel_size", None) == (1, 1)]


def _shapes(preset: Preset) -> nn.Module:
    """A network without memory for weights, for the shapes of its layers."""
    from ..network import Sam2

    with torch.device("meta"):
        return Sam2(preset, 16 * preset.perceiver * 4 if preset.perceiver else 64)
