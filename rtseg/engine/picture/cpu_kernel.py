"""The network's input on the CPU kernels (`picture` in cpu/simd/kernels.cpp)."""

from __future__ import annotations

from ctypes import Structure, byref, c_int, c_void_p
from functools import lru_cache, partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...base.errors import EngineError
from ...base.types import ImageU8
from .interpolation import interpolation_weights
from .planes import SCALE, SHIFT


class Kernels(Protocol):
    """The compiled kernels, called by name."""

    def call(self, name: str, *given: Any) -> int: ...


class AxisTable(Structure):
    """Indices and weights [target, k] of the source pixels along one axis, as the kernel reads them."""

    _fields_ = (("at", c_void_p), ("weight", c_void_p), ("count", c_int))


class ResizeTables:
    """The tables of both axes for making pictures [height, width, 3] a normalised square of `size` pixels a side."""

    def __init__(self, height: int, width: int, size: int) -> None:
        self.shape, self.size = (height, width, 3), size
        both = interpolation_weights(height, width, size)
        self._tables = [(np.ascontiguousarray(at, np.int32), np.ascontiguousarray(weight)) for at, weight in both]
        self.rows, self.columns = (AxisTable(at.ctypes.data, w.ctypes.data, at.shape[1]) for at, w in self._tables)
        self.scale, self.shift = (np.append(v, 0).astype(np.float32) for v in (SCALE, SHIFT))


class CpuPicture:
    """`to_input` on the kernel. It keeps the tables of the last few sizes; the pictures of a feed have one size."""

    def __init__(self, kernels: Kernels, size: int) -> None:
        self._kernels = kernels
        self._tables = lru_cache(4)(partial(ResizeTables, size=size))

    def __call__(self, image_hwc: ImageU8) -> Tensor:
        """Convert a picture uint8 [H, W, 3] RGB to float32 [1, 3, S, S]. Raises `EngineError` for any other array."""
        tables = self._tables(*image_hwc.shape[:2])
        if image_hwc.shape != tables.shape or image_hwc.dtype != np.uint8:
            raise EngineError(f"a picture {image_hwc.dtype} {image_hwc.shape}; expected uint8 {tables.shape}")
        if image_hwc.strides[1:] != (3, 1):  # a mirrored picture, for example
            image_hwc = np.ascontiguousarray(image_hwc)
        out = torch.empty(1, 3, tables.size, tables.size, dtype=torch.float32, device="cpu")
        self._kernels.call(
            "picture", image_hwc.ctypes.data, image_hwc.strides[0], image_hwc.shape[1], tables.size,
            byref(tables.rows), byref(tables.columns), tables.scale.ctypes.data, tables.shift.ctypes.data,
            out.data_ptr(),
        )  # fmt: skip
        return out
