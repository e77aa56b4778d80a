"""An engine's arrays as numpy arrays that can be written to a file, and back: same values, type and order in memory.

The order counts: a memory may be a transposed view, and kernels sum along rows of memory. With another order sums may
differ in the last bit, and masks in a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..sam2 import Array
from .arrays import on_host

Saved = npt.NDArray[Any]
_AS_INTEGERS = ("bfloat16", "float8_e4m3fn", "float8_e5m2")  # types that numpy lacks


def to_saved(x: Array) -> tuple[dict[str, Any], Saved]:
    """How to make the array again, in plain values, and its numbers. They share memory with `x` on the host."""
    order = _order(x)
    if isinstance(x, np.ndarray):
        return {"library": "numpy", "order": order}, np.ascontiguousarray(x.transpose(order))
    import torch

    kind = str(x.dtype).removeprefix("torch.")
    plain = x.detach().permute(order)
    plain = plain if on_host(x) else plain.cpu()
    if kind in _AS_INTEGERS:
        plain = plain.contiguous().view(torch.int16 if plain.element_size() == 2 else torch.int8)
    return {"library": "torch", "order": order, "type": kind}, plain.contiguous().numpy()


def from_saved(how: dict[str, Any], numbers: Saved, device: str) -> Array:
    """The array that `to_saved` was given; a tensor on this device."""
    back = np.argsort(how["order"]).tolist()
    if how["library"] == "numpy":
        return numbers.transpose(back)
    import torch

    plain = torch.from_numpy(numbers)
    if how["type"] in _AS_INTEGERS:
        plain = plain.view(getattr(torch, how["type"]))
    # A copy: torch aligns its memory more strictly than numpy does, and kernels may depend on it.
    return torch.empty(plain.shape, dtype=plain.dtype, device=device).copy_(plain).permute(back)


def _order(x: Array) -> list[int]:
    """The axes by their stride, largest first: permuted so, an array without gaps is contiguous."""
    strides: Sequence[int] = x.strides if isinstance(x, np.ndarray) else x.stride()
    return sorted(range(len(x.shape)), key=lambda axis: (-strides[axis], axis))
