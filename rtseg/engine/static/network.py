"""The four verbs of a tracked frame as one module, made from a network with its weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from ...sam2 import Preset, Sam2
from ...sam2.match import Match
from .encoder import HieraEncoder, encoder_of
from .joined import JoinedDecode, JoinedLayer, Stacked
from .joined_encoder import JoinedEncoder
from .mask import Decode
from .memory import Attend, Remember
from .parts import Attention, Linear


class StaticNetwork(nn.Module):
    """The four verbs of a tracked frame, made once from a network with its weights; on the same device.

    The tables are made on the CPU, from a copy of the weights if these are elsewhere: so tables and weights are on one
    device while they are combined, and the tables do not depend on the device.
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
            self.encoder, self.attend = encoder_of(net, attention), Attend(net, attention)
            self.decode, self.remember = Decode(net, attention), Remember(net, attention)
            self.match: Match | None = copy.deepcopy(net.match)
        self.eval().requires_grad_(False).to(device)

    def join(self) -> StaticNetwork:
        """Fewer and larger kernels, for a GPU (joined.py, joined_encoder.py). Before `precise`: it makes tables."""
        layers: Any = self.attend.layers
        with torch.no_grad():
            self.attend.layers = nn.ModuleList(JoinedLayer(layer) for layer in layers)
            self.add_module("decode", JoinedDecode(self.decode))
            if isinstance(self.encoder, HieraEncoder):
                self.add_module("encoder", JoinedEncoder(self.encoder))
            else:  # cuDNN is fastest with channels last, above all in half precision
                self.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.eval().requires_grad_(False)
        return self

    def precise(self, products: torch.dtype, stream: torch.dtype) -> StaticNetwork:
        """Products in one type; norms, tables and activations in another; joined heads and `match` stay in fp32."""
        # Joined heads choose between masks, and a softmax multiplies the errors of similarities; both cost little.
        parts = (m for m in self.modules() if isinstance(m, Stacked | Match))
        exact = [(part, name, p.data) for part in parts for name, p in part.named_parameters()]
        self.to(stream)
        for module in self.modules():
            if isinstance(module, Linear | nn.Conv2d):
                module.to(products)
        for part, name, data in exact:
            part.get_parameter(name).data = data
        return self
