"""Attention in the shapes and types that TensorRT makes one kernel of; ../attention_shapes.py has the conditions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..static.memory import PaddedRead
from ..static.parts import Attention


class TypedAttention(Attention):
    """Both products, and the softmax between them, in one type.

    A softmax in fp32 between half products is no pattern that TensorRT documents as fused, and its fused kernels add up
    in fp32 whatever the type. Where they do not fuse, scores are rounded. That moves the masks no further than bf16
    products do: on the parity check's clip the mean IoU with fp32 is 0.99899 (nano, 320 px) instead of 0.99903, and
    0.9985 (micro, 224 px) instead of 0.9988; the worst frame is the same. In fp16 no mask changed.

    The queries are scaled before the first product, as TensorRT's fused attention requires, and in fp32: as a bf16
    constant the scale itself would be off by up to 0.4%.
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
    """`PaddedRead` whose values are filled with zeros to the width of the keys.

    Exact: zeros times any weight are zero, and what they give is cut off. It makes the products 1.6 times as many
    (256 + 256 channels for 256 + 64), and lets TensorRT fuse them. At 1024 px and seven memories the scores of one
    object would otherwise be 235 MB in bf16, written and read twice in each layer.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.width = self.values_b1nm.shape[-1]
        products = self.keys_blnd.dtype
        if products != torch.float32:  # which is never fused, so nothing would be gained
            self.values_b1nm = F.pad(self.values_b1nm.to(products), (0, self.keys_blnd.shape[-1] - self.width))

    def __call__(self, layer: int, q_bnd: Tensor) -> Tensor:
        return super().__call__(layer, q_bnd)[..., : self.width]
