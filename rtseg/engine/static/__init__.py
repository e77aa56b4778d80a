"""The tracked frame with fixed shapes: the function of `rtseg.sam2`, rewritten so that nothing is done twice.

Every rewrite is exact (the same function, other roundings); tests/engine/test_static.py holds them to the reference:

- What depends on the weights alone is a constant: position and rotation tables, the tokens of a frame without a
  prompt (through the decoder's first self-attention), what window padding becomes.
- Linear maps in a row are one: neck and high-resolution convolutions; value and output projections of attention,
  so that the memory is attended to in its own M channels.
- A memory's keys are projected and rotated once, when it is written; a row for its temporal slot is added later.
- What depends on the image alone is done once for all objects: the first self-attention over the image, and the
  projection that the memory encoder starts from.
- Rotated channel pairs lie half a row apart (the rows of the query and key projections are permuted), so rotating
  needs no shuffling.

Maps are channels last inside; a verb's answers have the shapes of `rtseg.sam2.values`. Products run in the type of
their weights, all else in the type of the activations: `precise` below sets both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...sam2 import Preset, Sam2
from .encoder import Block, Encoder
from .joined import JoinedDecode, JoinedLayer, Stacked
from .joined_encoder import JoinedEncoder
from .mask import Decode, TokenAttention
from .memory import Attend, PaddedRead, Read, ReadLayer, Remember, Rotation, paired
from .parts import Attention, Linear, Mlp

__all__ = [
    "Attend", "Attention", "Block", "Decode", "Encoder", "Linear", "Mlp", "PaddedRead", "Read", "ReadLayer", "Remember",
    "Rotation", "StaticNetwork", "TokenAttention", "paired",
]  # fmt: skip


class StaticNetwork(nn.Module):
    """The four verbs of a tracked frame, made once from a network with its weights; it lies where that lies.

    The tables are made on the CPU, from a copy of the weights if they are elsewhere: no table ever meets a weight on
    another device, and all are the same whatever the device.
    """

    def __init__(self, net: Sam2, attention: Attention | None = None) -> None:
        super().__init__()
        attention, device = attention or Attention(), net.maskmem_tpos_enc.device
        if device.type != "cpu":
            state = {name: tensor.cpu() for name, tensor in net.state_dict().items()}
            net = Sam2(net.preset, net.image_size)
            net.load_state_dict(state)
        self.preset: Preset = net.preset
        self.image_size, self.grid = net.image_size, net.grid
        with torch.no_grad():
            self.encoder, self.attend = Encoder(net, attention), Attend(net, attention)
            self.decode, self.remember = Decode(net, attention), Remember(net)
        self.eval().requires_grad_(False).to(device)

    def join(self) -> StaticNetwork:
        """Fewer and larger kernels, for a GPU (joined.py, joined_encoder.py); before `precise`, for it makes tables."""
        layers: Any = self.attend.layers
        with torch.no_grad():
            self.attend.layers = nn.ModuleList(JoinedLayer(layer) for layer in layers)
            self.add_module("decode", JoinedDecode(self.decode))
            self.add_module("encoder", JoinedEncoder(self.encoder))
        self.eval().requires_grad_(False)
        return self

    def precise(self, products: torch.dtype, stream: torch.dtype) -> StaticNetwork:
        """Products in one type; norms, tables and what flows between the layers in another; joined heads in fp32."""
        exact = [(m, m.weight.data, m.bias.data) for m in self.modules() if isinstance(m, Stacked)]
        self.to(stream)
        for stacked, weight, bias in exact:  # they decide between masks, and cost nothing
            stacked.weight.data, stacked.bias.data = weight, bias
        for module in self.modules():
            if isinstance(module, Linear | nn.Conv2d):
                module.to(products)
        return self
