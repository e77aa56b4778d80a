"""The parts of all verbs: linear maps of fixed type, merging two into one, attention."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """A linear map in the type of its weights, for inputs of any type."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)

    def unbiased(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight)


class Attention(nn.Module):
    """Softmax attention [b, heads, n, d] over keys [b, heads, m, d] and values [b, heads, m, any]."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v.to(q.dtype), attn_mask=bias)


class Mlp(nn.Module):
    """Two linear maps with an activation between."""

    def __init__(self, first: Linear, last: Linear, activation: str) -> None:
        super().__init__()
        self.first, self.last, self.activation = first, last, activation

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        out: Tensor = self.last(F.gelu(hidden) if self.activation == "gelu" else F.relu(hidden))
        return out


def linear(weight: Tensor, bias: Tensor | None) -> Linear:
    made = Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return made


def copied(layer: nn.Module) -> Linear:
    """A linear layer, or a 1x1 convolution, as `Linear`."""
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return linear(layer.weight.flatten(1), layer.bias)


def chained(first: nn.Module, then: nn.Module) -> Linear:
    """Two successive linear layers as one; multiplied in float64, because the product is made only once."""
    a, b = copied(first), copied(then)
    weight = b.weight.double() @ a.weight.double()
    bias = b.weight.double() @ a.bias.double() + b.bias.double()
    return linear(weight.float(), bias.float())


def sizes(x_bhwc: Tensor) -> tuple[int, int, int]:
    """All sizes but the first as plain numbers, which an exporter treats as constants."""
    return int(x_bhwc.shape[1]), int(x_bhwc.shape[2]), int(x_bhwc.shape[3])


def norm_of(layer: nn.LayerNorm) -> nn.LayerNorm:
    made = nn.LayerNorm(layer.normalized_shape, eps=layer.eps)
    made.load_state_dict(layer.state_dict())
    return made


def chain_of(mlp: Any) -> nn.Sequential:
    """One of SAM's small ReLU heads, as a sequence of layers."""
    layers: list[nn.Module] = []
    for layer in mlp.layers:
        layers += [copied(layer), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
