"""Eight-bit products for TensorRT: QuantizeLinear and DequantizeLinear around the big linear layers.

These layers take most of the time: projections and MLPs of Hiera and ViT, MLPs of the memory attention.
Convolutions, and so all of a convolutional trunk, stay in half precision. Quantisation is
symmetric, with zero point 0 and constant scales. Activations have one scale for the tensor: TensorRT documents scales
by channel only for weights. Int8 weights have one for each output channel. Fp8 weights have one for the tensor:
TensorRT takes scales by channel there, too, but fuses fp8 products only if both scales are scalars, and otherwise
dequantises to half precision first (measured with 11.x in NVIDIA/TensorRT-Model-Connect #1386). An fp8 number has its
own exponent, so a channel of small weights loses little by this. The scales of activations come from tracking through
pictures with memory, because attention reads what the network itself has written.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...base.errors import EngineError
from ...base.types import ImageU8
from ...sam2 import Features, PromptBatch, Sam2
from ..picture.tensors import to_input
from ..reference import exact_products
from ..static.encoder import HieraEncoder, VitEncoder
from ..static.memory import PaddedRead
from ..static.network import StaticNetwork
from ..static.parts import Linear

TYPES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
LARGEST = {"int8": 127.0, "fp8": 448.0}
BY_CHANNEL = ("int8",)  # weights with a scale for each output channel
# The share of activations within the scale: int8 clips the rarest to spend its few levels on the others.
KEPT = {"int8": 0.9999, "fp8": 1.0}
CLICKS = ((0.5, 0.5), (0.3, 0.4), (0.7, 0.6))  # clicks on objects to track for calibration, relative to the picture


def big_layers(static: StaticNetwork) -> dict[str, Linear]:
    """The layers that are quantised, by name."""
    trunk = static.encoder if isinstance(static.encoder, HieraEncoder | VitEncoder) else None
    blocks = [f"encoder.blocks.{i}" for i in range(len(trunk.blocks) if trunk else 0)]
    names = [f"{block}.{part}" for block in blocks for part in ("qkv", "proj", "mlp.first", "mlp.last")]
    reads = [f"attend.layers.{i}" for i in range(len(static.attend.layers))]
    names += [f"{read}.{part}" for read in reads for part in ("mlp.first", "mlp.last")]
    layers = {}
    for name in names:
        layer = static.get_submodule(name)
        assert isinstance(layer, Linear)
        layers[name] = layer
    return layers


def _replace(static: StaticNetwork, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(static.get_submodule(parent), leaf, layer)


class _Watched(Linear):
    """A layer that records the largest magnitude of its inputs, except for a share of 1 - `kept`."""

    def __init__(self, layer: Linear, kept: float) -> None:
        super().__init__(layer.in_features, layer.out_features)
        self.weight, self.bias = layer.weight, layer.bias
        self.kept, self.peak = kept, torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        return self.unbiased(x) + self.bias

    def unbiased(self, x: Tensor) -> Tensor:
        size = x.abs().flatten().float()
        beyond = max(1, round(size.numel() * (1 - self.kept)))
        self.peak = self.peak.to(x.device).maximum(size.topk(beyond).values[-1])  # the host waits once, at the end
        return F.linear(x, self.weight)


@torch.no_grad()
def calibrate(
    network: Sam2, slots: int, pointers: int, precision: str, pictures: Sequence[ImageU8], device: str = "cpu"
) -> dict[str, float]:
    """The largest inputs of each big layer, by its name, on consecutive pictures, in fp32 on this device.

    `slots` and `pointers` limit the memory of each object. Raises `EngineError` for fewer than two pictures.
    """
    if len(pictures) < 2:
        raise EngineError(
            f'precision = "{precision}" is calibrated on at least 2 frames, {len(pictures)} given; name a clip, or use'
            ' precision = "bf16"'
        )
    network = copy.deepcopy(network).cpu().float().eval()
    static = StaticNetwork(network)  # made on the CPU, like its tables, and moved as a whole
    watched = {name: _Watched(layer, KEPT[precision]) for name, layer in big_layers(static).items()}
    for name, layer in watched.items():
        _replace(static, name, layer)
    loop = _Loop(network.to(device).bake(), static.to(device), slots, pointers)
    with exact_products():
        for picture in pictures:
            loop.step(to_input(picture, network.image_size).to(device))
    return {name: float(layer.peak) for name, layer in watched.items()}


class _Loop:
    """Tracks a few objects from clicks on the first picture, with the newest memories."""

    def __init__(self, network: Sam2, static: StaticNetwork, slots: int, pointers: int) -> None:
        self.network, self.static = network, static
        self.memories: deque[tuple[Tensor, Tensor]] = deque(maxlen=slots)  # tokens [b, n, M] and keys [b, L, n, D]
        self.pointers: deque[Tensor] = deque(maxlen=max(1, pointers))  # [b, D]

    def step(self, image_1chw: Tensor) -> None:
        top, mid, fine = self.static.encoder(image_1chw)
        if self.memories:
            logits, _, score, pointer = self.static.decode(self.static.attend(top, self._read()), mid, fine)
        else:
            points = torch.tensor(CLICKS, device=top.device)[:, None] * self.network.image_size
            clicks = PromptBatch(points, torch.ones(points.shape[:2], dtype=torch.int64, device=top.device))
            fresh = (top + self.static.attend.fresh).expand(len(CLICKS), -1, -1, -1)
            d = self.network.decode(fresh, Features(top, mid, fine), clicks)
            logits, score, pointer = d.logits_b1hw, d.score_b, d.pointer_bc
        prompted = torch.full((len(CLICKS),), not self.memories, device=top.device)
        tokens = self.static.remember(top, logits, score, prompted)
        self.memories.appendleft((tokens, self.static.attend.keys_of(tokens)))
        self.pointers.appendleft(pointer)

    def _read(self) -> PaddedRead:
        values = torch.stack([tokens for tokens, _ in self.memories], dim=1)
        keys = torch.stack([k for _, k in self.memories], dim=1)
        pointers = torch.stack(list(self.pointers), dim=1)
        (b, t), p = values.shape[:2], pointers.shape[1]
        rows = torch.arange(t, device=values.device).clamp(max=self.network.preset.num_maskmem - 1)
        ages = torch.arange(1.0, p + 1, device=values.device)
        present, real = rows.new_ones((b, t), dtype=torch.bool), rows.new_ones((b, p), dtype=torch.bool)
        return PaddedRead(
            self.static.attend, keys, values, rows.expand(b, t), present, pointers, ages.expand(b, p), real
        )  # fmt: skip


class _Quantized(nn.Module):
    """A linear layer as in the ONNX graph. It can be exported, but not run in torch.

    The scales are exact in bf16, because the graph has them twice: in the dtype of the quantised values, and in that of
    the product, to which they are dequantised.
    """

    def __init__(self, layer: Linear, peak: float, precision: str) -> None:
        super().__init__()
        self.quantum, self.products = TYPES[precision], layer.weight.dtype
        weight_io = layer.weight.detach().float().T.contiguous()
        largest = LARGEST[precision]
        self.register_buffer("weight", weight_io)
        self.register_buffer("bias", layer.bias.detach())
        peaks = weight_io.abs().amax(dim=0) if precision in BY_CHANNEL else weight_io.abs().amax()
        self.register_buffer("weight_scale", _scale(peaks, largest))
        self.register_buffer("scale", _scale(torch.tensor(peak), largest))
        self.register_buffer("weight_zero", torch.zeros(peaks.shape).to(self.quantum))
        self.register_buffer("zero", torch.zeros(()).to(self.quantum))
        self.weight: Tensor
        self.bias: Tensor
        self.weight_scale: Tensor
        self.scale: Tensor
        self.weight_zero: Tensor
        self.zero: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return self.unbiased(x) + self.bias

    def unbiased(self, x: Tensor) -> Tensor:
        weight_io = self._rounded(self.weight, self.weight_scale, self.weight_zero, axis=1)
        return self._rounded(x, self.scale.to(x.dtype), self.zero, axis=0) @ weight_io

    def _rounded(self, x: Tensor, scale: Tensor, zero: Tensor, axis: int) -> Tensor:
        symbol, half = torch.onnx.ops.symbolic, scale.to(self.products)
        where: dict[str, Any] = {"axis": axis} if scale.ndim else {}
        q = symbol("QuantizeLinear", (x, scale, zero), where, dtype=self.quantum, shape=x.shape, version=20)
        return symbol("DequantizeLinear", (q, half, zero), where, dtype=half.dtype, shape=x.shape, version=20)


def _scale(peak: Tensor, largest: float) -> Tensor:
    """A positive scale that bf16 holds exactly."""
    return (peak / largest).clamp(min=1e-8).bfloat16().float()


def quantized(static: StaticNetwork, peaks: Mapping[str, float], precision: str) -> StaticNetwork:
    """The network with its big layers replaced by quantised ones for export. Raises `EngineError` before torch 2.8."""
    if not hasattr(torch.onnx, "ops"):
        raise EngineError(f'precision = "{precision}" needs torch 2.8 or newer, this is {torch.__version__}')
    for name, layer in big_layers(static).items():
        _replace(static, name, _Quantized(layer, peaks[name], precision))
    return static
