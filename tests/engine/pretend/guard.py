"""A device guard for CUDA where torch was built without: slicing a fake CUDA tensor, or `.to("cuda")`, asks for one.

`torch._C._ensureCUDADeviceGuardSet` puts one in place only in builds with CUDA. The meta device has one that does
nothing, which is nearly what is wanted; a copy of it that says "cuda" and the current device is put into CUDA's place
in the table of libc10. (The calls of a C++ object, by the ABI of Linux: the first of its table says the type, the third
the current device.)
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

CUDA, META = 1, 14  # c10::DeviceType
TYPE, CURRENT, BEFORE, SLOTS = 0, 2, 2, 24  # in the object's table; what lies before it, and how much is copied

Type = ctypes.CFUNCTYPE(ctypes.c_int8, ctypes.c_void_p)
Current = ctypes.CFUNCTYPE(ctypes.c_uint16, ctypes.c_void_p)  # c10::Device: a byte of type, a byte of index


@contextmanager
def guarded(current: Callable[[], int]) -> Iterator[None]:
    """Inside, C++ code of torch finds a guard for CUDA, and the index of the current device."""
    libc10 = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    registry = (ctypes.c_void_p * 20).in_dll(libc10, "_ZN3c104impl26device_guard_impl_registryE")
    before = registry[CUDA]
    meta = ctypes.cast(registry[META] or 0, ctypes.POINTER(ctypes.c_void_p))
    size = (BEFORE + SLOTS) * ctypes.sizeof(ctypes.c_void_p)
    copied = (ctypes.c_void_p * (BEFORE + SLOTS)).from_buffer_copy(
        ctypes.string_at((meta[0] or 0) - BEFORE * ctypes.sizeof(ctypes.c_void_p), size)
    )
    calls = Type(lambda _: CUDA), Current(lambda _: CUDA | current() << 8)
    for slot, call in zip((TYPE, CURRENT), calls, strict=True):
        copied[BEFORE + slot] = ctypes.cast(call, ctypes.c_void_p).value
    guard = (ctypes.c_void_p * 1)(ctypes.addressof(copied) + BEFORE * ctypes.sizeof(ctypes.c_void_p))
    registry[CUDA] = ctypes.addressof(guard)
    try:
        yield
    finally:
        registry[CUDA] = before
