"""Attention in the shapes and dtypes that TensorRT fuses into one kernel; ../attention_shapes.py has the conditions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..static.memory import PaddedRead
from ..static.parts import Attention


class TypedAttention(Attention):
    """Attention with both products, and the softmax between them, in one dtype.

    TensorRT does not document that it fuses half-precision products with an fp32 softmax between them, and its fused
    kernels accumulate in fp32 whatever the dtype. If it does not fuse, scores are rounded. This moves the masks no
    further than bf16 products do: on the parity check's clip the mean IoU with fp32 is 0.99899 (nano, 320 px) instead
    of 0.99903, and 0.9985 (micro, 224 px) instead of 0.9988; the worst frame is the same. In fp16 no mask changed.

    The queries are scaled before the first product, as TensorRT's fused attention requires, and in fp32: as a bf16
    constant the scale would have an error of up to 0.4%.
    """

    def __init__(self, products: torch.dtype) -> None:
        super().__init__()
        self.products = products

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        scaled = (q.float() * q.shape[-1] ** -0.5).to(self.products)
        scores = scaled @ k.to(self.products).transpose(-2, -1)
        if bias is not None:
            scores = scores + bias.to(self.products)
        return scores.softmax(dim=-1) @ v.to(self.products)


class WideRead(PaddedRead):
    """`PaddedRead` with values padded with zeros to the width of the keys, so that TensorRT can fuse it.

    The result is exact: the padded channels are zero, and cut off. The products become 1.6 times as many (256 + 256
    channels for 256 + 64). Without fusion the scores of one object, at 1024 px with seven memories, would be 235 MB in
    bf16, written and read twice in each layer.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.width = self.values_b1nm.shape[-1]
        products = self.keys_blnd.dtype
        if products != torch.float32:  # fp32 is never fused, so padding would gain nothing
            self.values_b1nm = F.pad(self.values_b1nm.to(products), (0, self.keys_blnd.shape[-1] - self.width))

    def __call__(self, layer: int, q_bnd: Tensor) -> Tensor:
        return super().__call__(layer, q_bnd)[..., : self.width]
