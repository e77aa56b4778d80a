"""The C interface of the compiled kernels: their structures and argument types (simd/kernels.cpp), for ctypes."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int, c_long, c_void_p
from typing import Any

from ..picture.cpu_kernel import AxisTable


class NormStruct(Structure):
    _fields_ = (("gamma", c_void_p), ("beta", c_void_p), ("eps", c_float))


class LinearStruct(Structure):
    _fields_ = (
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("n", c_int),
        ("k", c_int),
        ("kind", c_int),
    )


class InputStruct(Structure):
    _fields_ = (("x", c_void_p), ("ld", c_long), ("kind", c_int), ("k", c_int), ("norm", NormStruct))


class OutputStruct(Structure):
    _fields_ = (
        ("out", c_void_p), ("ld", c_long), ("kind", c_int), ("activation", c_int), ("added", c_void_p),
        ("ld_added", c_long), ("period", c_int),
    )  # fmt: skip


class DepthwiseStruct(Structure):
    _fields_ = (
        ("weight", c_void_p), ("bias", c_void_p), ("c", c_int), ("side", c_int), ("stride", c_int), ("before", c_int),
        ("activation", c_int),
    )  # fmt: skip


class SourceStruct(Structure):
    _fields_ = (
        ("x", c_void_p), ("ld", c_long), ("layer", c_void_p),
        *((name, c_int) for name in ("stem", "before", "activation", "k", "side")),
    )  # fmt: skip


class AttentionStruct(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("q", "k", "v", "absent_k", "absent_v", "out", "q_index", "k_index")),
        *((name, c_long) for name in ("ld_q", "ld_k", "ld_v", "ld_out")),
        *((name, c_int) for name in ("windows", "heads", "queries", "keys", "d", "width", "kind")),
        ("scale", c_float),
    )


_P, _I, _L, _FL = c_void_p, c_int, c_long, c_float
# Argument types, because ctypes would guess those of pointers given as integers, of longs and of floats wrongly.
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "half_bytes": (), "has_bytes": (), "threads": (_I,),
    "pack_weight": (_P, _I, _I, _I, _P, _P),
    "linear": (POINTER(LinearStruct), _I, POINTER(InputStruct), POINTER(OutputStruct)),
    "mlp": (POINTER(LinearStruct), POINTER(LinearStruct), _I, _I, POINTER(InputStruct), POINTER(OutputStruct)),
    "norm": (POINTER(InputStruct), _I, _P, _P),
    "attention": (POINTER(AttentionStruct),),
    "pack_keys": (_P, _I, _I, _P), "pack_values": (_P, _I, _I, _P),
    "round_keys": (_P, _P, _I, _I, _I, _I, _P, _P),
    "read": (_P, _I, _I, _I, _I, _FL, _I, _P, _P, _P, _P, _P),
    "add": (_P, _P, _L, _P),
    "rotate": (_P, _I, _I, _L, _P, _P, _I),
    "pool": (_P, _I, _I, _I, _I, _L, _P),
    "picture": (_P, _L, _I, _I, POINTER(AxisTable), POINTER(AxisTable), _P, _P, _P),
    "patches": (POINTER(LinearStruct), _P, _I, POINTER(OutputStruct)),
    "mask": (_P, _I, _I, _P),
    "mask_stem": (_P, _I, _P, _P, POINTER(NormStruct), _P),
    "convolution": (POINTER(LinearStruct), _P, _I, _I, POINTER(NormStruct), _P),
    "stem": (POINTER(LinearStruct), _P, _I, _I, POINTER(OutputStruct)),
    "depthwise": (POINTER(SourceStruct), POINTER(DepthwiseStruct), _I, _P),
    "inverted": (
        POINTER(SourceStruct), POINTER(DepthwiseStruct), POINTER(LinearStruct), _I, POINTER(OutputStruct),
    ),
    "mixed": (
        POINTER(SourceStruct), POINTER(DepthwiseStruct), POINTER(LinearStruct), POINTER(LinearStruct), _I, _I,
        POINTER(OutputStruct),
    ),
    "dense": (
        POINTER(SourceStruct), POINTER(DepthwiseStruct), POINTER(LinearStruct), _I, _I, POINTER(OutputStruct),
    ),
    "unit_cells": (_P, _P, _I, _I, _P),
    "match": (_P, _P, _P, _I, _I, _I, _I, _I, _FL, _P),
    "upscale": (_P, _I, _I, _P, POINTER(NormStruct), _P, _P),
}  # fmt: skip


def declared(library: ctypes.CDLL, isa: str) -> dict[str, Any]:
    """The library's functions for one instruction set, by name, with their argument types."""
    functions = {name: getattr(library, f"rt_{isa}_{name}") for name in _ARGUMENTS}
    for name, function in functions.items():
        function.argtypes = _ARGUMENTS[name]
    return functions
