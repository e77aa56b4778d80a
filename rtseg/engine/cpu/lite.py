"""The image encoder with an EfficientNet-Lite trunk on the kernels of simd/.

Maps are float32 rows [tokens, channels], whose channels are filled up to a multiple of 16 with zeros.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..static.encoder import ConvEncoder
from .convolutions import Depthwise, Inverted, pointwise, stem_layer
from .kernels import RELU6, Packed
from .network import Packer, as_features


class CpuLite:
    """Normalised image [1, 3, S, S] to `top`, `mid` and `fine`, float32."""

    def __init__(self, pack: Packer, encoder: ConvEncoder) -> None:
        self.kernels = pack.kernels
        trunk: Any = encoder.trunk
        first, *others = trunk.blocks
        stem = stem_layer(pack.kernels, trunk.stem.weight, trunk.stem.bias)
        # The first block does not expand: the stem takes the place of its first layer.
        self.blocks = [self.block(stem, first, stem_before(trunk.stem))]
        self.blocks += [self.block(pointwise(self.kernels, block.expand), block) for block in others]
        self.ends = trunk.stage_ends
        self.neck = [pointwise(self.kernels, conv) for conv in encoder.laterals()]

    def block(self, first: Packed, block: Any, stem_before: int | None = None) -> Inverted:
        conv: Any = block.depthwise
        size, stride = conv.kernel_size[0], conv.stride[0]
        mixing = Depthwise(conv.weight, conv.bias, stride, (size - stride) // 2, RELU6)
        last = pointwise(self.kernels, block.project)
        return Inverted(self.kernels, first, mixing, last, block.residual, RELU6, stem_before)

    def __call__(self, image_1chw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, maps = image_1chw[0].contiguous(), []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.ends:
                maps.append(x)
        fine, mid, high, *low = (self.kernels.linear(layer, x) for layer, x in zip(self.neck, maps, strict=True))
        return as_features(high, low[0] if low else None, mid, fine)


def stem_before(conv: nn.Conv2d) -> int:
    """Zeros before the first pixel of a row in a convolution with "SAME" padding."""
    return (conv.kernel_size[0] - conv.stride[0]) // 2
