"""Pinned memory as NumPy sees it: each use of such an array is held against the copies that are under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Touch = Callable[[np.ndarray, bool], None]


class PinnedArray(np.ndarray):
    """A view of pinned memory that tells of what is done with it; what is computed from it is a plain array.

    It sees indexing, functions of NumPy and methods that write. It does not see what C code does with the address
    (`ctypes`, OpenCV), nor what is done with `np.asarray` of it.
    """

    touch: Touch | None = None

    def __array_finalize__(self, other: Any) -> None:
        self.touch = getattr(other, "touch", None)

    def _note(self, writes: bool) -> None:
        if self.touch is not None:
            self.touch(self, writes)

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        if not isinstance(found, PinnedArray) or found.base is None:
            self._note(False)
            return found.view(np.ndarray) if isinstance(found, PinnedArray) else found
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        self._note(True)
        super().__setitem__(key, plain(value))

    def fill(self, value: Any) -> None:
        self._note(True)
        super().fill(value)

    def copy(self, order: Any = "C") -> Any:
        self._note(False)
        return self.view(np.ndarray).copy(order)

    def astype(self, *args: Any, **kwargs: Any) -> Any:
        self._note(False)
        return self.view(np.ndarray).astype(*args, **kwargs)

    def tolist(self) -> Any:
        self._note(False)
        return super().tolist()

    def tobytes(self, order: Any = "C") -> bytes:
        self._note(False)
        return super().tobytes(order)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        read, written = plain(inputs), plain(out, True)
        if written is not None:
            kwargs["out"] = written
        return getattr(ufunc, method)(*read, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func is np.copyto and args:
            args = (plain(args[0], True), *args[1:])
        return func(*plain(args), **{k: plain(v, k == "out") for k, v in kwargs.items()})


def plain(value: Any, writes: bool = False) -> Any:
    """The arrays in a value as NumPy's own, each noted."""
    if isinstance(value, PinnedArray):
        value._note(writes)
        return value.view(np.ndarray)
    if isinstance(value, (list, tuple)):
        return type(value)(plain(v, writes) for v in value)
    return value
