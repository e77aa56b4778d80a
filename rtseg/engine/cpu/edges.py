"""The compiled form of `rtseg.base.edges.refine`. It needs no torch, so it serves every runtime."""

from __future__ import annotations

from ctypes import POINTER, Structure, byref, c_float, c_int, c_void_p
from functools import cache

import numpy as np

from ...base import edges
from ...base.errors import EngineError
from ...base.types import Float32, ImageU8
from .isa import isa_for, library


class _Settings(Structure):
    _fields_ = (
        *((name, c_float) for name in ("sure", "clip", "alike", "any", "back", "noise")),
        ("few", c_int), ("weights", c_void_p),
    )  # fmt: skip


_SETTINGS = _Settings(
    edges.SURE, edges.CLIP, edges.ALIKE, edges.ANY, edges.BACK, edges.NOISE, edges.FEW, edges.WEIGHTS.ctypes.data
)


def compiled_refine() -> edges.Refine | None:
    """The function on the kernels, for the best instruction set that may be used here; None if there are none."""
    try:
        return _refine_on(isa_for("fp32"))
    except EngineError:
        return None


@cache
def _refine_on(isa: str) -> edges.Refine:
    function = getattr(library(), f"rt_{isa}_edges")
    function.argtypes = (c_void_p, c_int, c_int, c_void_p, POINTER(_Settings), c_void_p)
    function.restype = None

    def refine(logits_hw: Float32, parts_hwc: ImageU8, out_hw: Float32) -> None:
        rows, columns = logits_hw.shape
        given = np.ascontiguousarray(logits_hw, np.float32), np.ascontiguousarray(parts_hwc)
        function(given[0].ctypes.data, rows, columns, given[1].ctypes.data, byref(_SETTINGS), out_hw.ctypes.data)

    return refine
