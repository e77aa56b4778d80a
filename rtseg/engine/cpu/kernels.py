"""The compiled kernels of the `cpu` engine, called on tensors. Their source is the folder avx512 beside this file."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int, c_long, c_void_p
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import EngineError
from ...types import ImageU8
from ..base import SCALE, SHIFT
from ..taps import weighted_taps

NONE, RELU, GELU = 0, 1, 2
KINDS = {torch.float32: 0, torch.bfloat16: 1}
LANES = 16


class _Norm(Structure):
    _fields_ = (("gamma", c_void_p), ("beta", c_void_p), ("eps", c_float))


class _Linear(Structure):
    _fields_ = (
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("n", c_int),
        ("k", c_int),
        ("kind", c_int),
    )


class _Input(Structure):
    _fields_ = (("x", c_void_p), ("ld", c_long), ("kind", c_int), ("k", c_int), ("norm", _Norm))


class _Output(Structure):
    _fields_ = (
        ("out", c_void_p), ("ld", c_long), ("kind", c_int), ("activation", c_int), ("added", c_void_p),
        ("ld_added", c_long), ("period", c_int),
    )  # fmt: skip


class _Attention(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("q", "k", "v", "absent_k", "absent_v", "out", "q_index", "k_index")),
        *((name, c_long) for name in ("ld_q", "ld_k", "ld_v", "ld_out")),
        *((name, c_int) for name in ("windows", "heads", "queries", "keys", "d", "width", "int8")),
        ("scale", c_float),
    )


class _Axis(Structure):
    _fields_ = (("at", c_void_p), ("weight", c_void_p), ("taps", c_int))


class Packed:
    """A linear layer as the kernels want it: weights packed once, in bf16 or int8."""

    def __init__(self, kernels: Kernels, weight_nk: Tensor, bias_n: Tensor | None, int8: bool = False) -> None:
        self.n, self.inputs = weight_nk.shape
        group = 4 if int8 else 2
        if self.n % LANES or (self.inputs % LANES and int8):
            raise EngineError(f"a layer of {self.inputs} to {self.n}: the CPU kernels want multiples of {LANES}")
        weight = weight_nk.detach().float().contiguous()
        size = kernels.library.rt_packed_size(self.n, self.inputs, int(int8))
        self.weight = rows(size * (1 if int8 else 2), dtype=torch.uint8)
        self.scale = rows(self.n)
        self.bias = None if bias_n is None else bias_n.detach().float().contiguous()
        kernels.library.rt_pack_weight(
            weight.data_ptr(), self.n, self.inputs, int(int8), self.weight.data_ptr(), self.scale.data_ptr()
        )
        padded = -(-self.inputs // group) * group
        bias = None if self.bias is None else self.bias.data_ptr()
        self.c = _Linear(self.weight.data_ptr(), self.scale.data_ptr(), bias, self.n, padded, int(int8))


class Normed:
    """A LayerNorm as the kernels want it."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.gamma, self.beta = norm.weight.detach().float().contiguous(), norm.bias.detach().float().contiguous()
        self.c = _Norm(self.gamma.data_ptr(), self.beta.data_ptr(), norm.eps)


class Square:
    """How pictures [height, width, 3] become a normalised square of `size`: the tables of both axes."""

    def __init__(self, height: int, width: int, size: int) -> None:
        self.shape, self.size = (height, width, 3), size
        taps = weighted_taps(height, width, size)
        self._tables = [(np.ascontiguousarray(at, np.int32), np.ascontiguousarray(weight)) for at, weight in taps]
        self.rows, self.columns = (_Axis(at.ctypes.data, w.ctypes.data, at.shape[1]) for at, w in self._tables)
        self.scale, self.shift = (np.append(v, 0).astype(np.float32) for v in (SCALE, SHIFT))


_NO_NORM = _Norm(None, None, 0.0)


def rows(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Room for an answer, whatever torch's default type and device are: the kernels are given bare pointers."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def _kind(x: Tensor) -> int:
    """The kernels' number for a type; `EngineError` for one that they would read as another."""
    if x.dtype not in KINDS or x.device.type != "cpu":
        raise EngineError(f"{x.dtype} on {x.device}: the CPU kernels take float32 or bfloat16 on the CPU")
    return KINDS[x.dtype]


def _input(x: Tensor, norm: Normed | None) -> _Input:
    """Rows of the last axis; the others must be one run of memory with a fixed step."""
    return _Input(x.data_ptr(), x.stride(-2), _kind(x), x.shape[-1], norm.c if norm else _NO_NORM)


class Kernels:
    """The loaded library. Every method works on contiguous rows, float32 or bf16, and returns new tensors."""

    def __init__(self, path: Path) -> None:
        for name in _openmp():  # made visible to the library, which brings none of its own
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        try:
            self.library = ctypes.CDLL(str(path))
        except OSError as e:
            raise EngineError(f"{path}: cannot be loaded ({e}); build it again: rtseg build") from e
        _declare(self.library)

    def linear(
        self, layer: Packed, x: Tensor, norm: Normed | None = None, activation: int = NONE, added: Tensor | None = None,
        half: bool = False, out: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """activation(layer(norm(x))) + added, [..., n]: float32, or bf16 if `half`.

        `added` may have fewer rows, and then begins anew after them; `out` may be `added` itself.
        """
        if out is None:
            out = rows(*x.shape[:-1], layer.n, dtype=torch.bfloat16 if half else torch.float32)
        given, to = _input(x, norm), _output(out, activation, added)
        self.library.rt_linear(byref(layer.c), x.shape[:-1].numel(), byref(given), byref(to))
        return out

    def picture(self, image_hwc: ImageU8, square: Square) -> Tensor:
        """A picture as the network sees it, [3, S, S] normalised, as `to_input` makes it."""
        if image_hwc.shape != square.shape or image_hwc.dtype != np.uint8:
            raise EngineError(f"a picture {image_hwc.dtype} {image_hwc.shape}; expected uint8 {square.shape}")
        if image_hwc.strides[1:] != (3, 1):  # a mirrored one, say
            image_hwc = np.ascontiguousarray(image_hwc)
        out = rows(3, square.size, square.size)
        self.library.rt_picture(
            image_hwc.ctypes.data, image_hwc.strides[0], image_hwc.shape[1], square.size, byref(square.rows),
            byref(square.columns), square.scale.ctypes.data, square.shift.ctypes.data, out.data_ptr(),
        )  # fmt: skip
        return out

    def patches(self, layer: Packed, image_chw: Tensor, position: Tensor) -> Tensor:
        """Overlapping 7x7 patches at stride 4 of a float32 image [3, S, S], plus `position`: [S * S / 16, n]."""
        out = rows(*position.shape)
        to = _output(out, NONE, position)
        self.library.rt_patches(byref(layer.c), image_chw.data_ptr(), image_chw.shape[-1], byref(to))
        return out

    def mlp(
        self, first: Packed, last: Packed, x: Tensor, norm: Normed | None, activation: int, added: Tensor | None = None
    ) -> Tensor:
        """last(activation(first(norm(x)))) + added, float32; where `added` is given the answer is written over it."""
        out = rows(*x.shape[:-1], last.n) if added is None else added
        given, to = _input(x, norm), _output(out, NONE, added)
        n = x.shape[:-1].numel()
        self.library.rt_mlp(byref(first.c), byref(last.c), activation, n, byref(given), byref(to))
        return out

    def norm(self, norm: Normed, x: Tensor, half: bool) -> Tensor:
        """LayerNorm of float32 rows, as float32 or bf16."""
        out = rows(*x.shape, dtype=torch.bfloat16 if half else torch.float32)
        given = _input(x, norm)
        where = (None, out.data_ptr()) if half else (out.data_ptr(), None)
        self.library.rt_norm(byref(given), x.shape[:-1].numel(), *where)
        return out

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, heads: int, out: Tensor, *, windows: int = 1,
        q_index: Tensor | None = None, k_index: Tensor | None = None, absent: tuple[Tensor, Tensor] | None = None,
        int8: bool = False, scale: float | None = None,
    ) -> Tensor:  # fmt: skip
        """Attention of bf16 rows q [n, heads * d], k, v (views of a wider row will do) within windows, into `out`.

        `q_index` [windows, queries], `k_index` [windows, keys] (int32) say which rows a window holds; a key of -1 is
        `absent`, a query of -1 is the end of its window. `int8` rounds queries and keys so.
        d and the width of v are multiples of 16; `scale` is d ** -0.5 unless heads were filled up to that.
        """
        d, width = q.shape[-1] // heads, v.shape[-1] // heads
        if d % LANES or width % LANES:
            raise EngineError(f"heads of {d} and {width}: the CPU kernels want multiples of {LANES}")
        queries = q_index.shape[1] if q_index is not None else len(q) // windows
        keys = k_index.shape[1] if k_index is not None else len(k) // windows
        pointers = [
            t.data_ptr() if t is not None else None for t in (q, k, v, *(absent or (None, None)), out, q_index, k_index)
        ]
        steps = [t.stride(0) for t in (q, k, v, out)]
        given = _Attention(*pointers, *steps, windows, heads, queries, keys, d, width, int(int8), scale or d**-0.5)
        self.library.rt_attention(byref(given))
        return out

    def pack_keys(self, keys_nd: Tensor) -> Tensor:
        """Keys [n, d] for `read`: bf16, the same numbers in another order, filled up to 16 rows."""
        keys_nd = keys_nd.bfloat16().contiguous()
        packed = rows(-(-len(keys_nd) // LANES) * LANES, keys_nd.shape[1], dtype=keys_nd.dtype)
        self.library.rt_pack_keys(keys_nd.data_ptr(), *keys_nd.shape, packed.data_ptr())
        return packed

    def pack_values(self, values_nm: Tensor) -> Tensor:
        """Values [n, M] for `read`, likewise."""
        values_nm = values_nm.bfloat16().contiguous()
        packed = rows(-(-len(values_nm) // LANES) * LANES, values_nm.shape[1], dtype=values_nm.dtype)
        self.library.rt_pack_values(values_nm.data_ptr(), *values_nm.shape, packed.data_ptr())
        return packed

    def round_keys(self, keys_lnd: Tensor, added_lnd: Tensor | None, n: int) -> tuple[Tensor, Tensor]:
        """Packed keys plus a table packed likewise, as int8 [L, n, d] for `read`, and the scale of each key [L, n]."""
        layers, tall, d = keys_lnd.shape
        out, scale = rows(*keys_lnd.shape, dtype=torch.uint8), rows(layers, tall)
        added = None if added_lnd is None else added_lnd.data_ptr()
        self.library.rt_round_keys(keys_lnd.data_ptr(), added, layers, n, d, out.data_ptr(), scale.data_ptr())
        return out, scale

    def read(
        self, q_nd: Tensor, keys: Sequence[Tensor], scales: Sequence[Tensor] | None, values: Sequence[Tensor],
        counts: Sequence[int],
    ) -> Tensor:  # fmt: skip
        """Answers [n, M] of one object's packed memories, of `counts` tokens each, to bf16 queries [n, d].

        With `scales` the keys are int8.
        """
        n, d, width = *q_nd.shape, values[0].shape[-1]
        out = rows(n, width, dtype=torch.bfloat16)
        self.library.rt_read(
            q_nd.data_ptr(), n, d, width, d**-0.5, len(keys), _pointers(keys), _pointers(scales) if scales else None,
            _pointers(values), (c_int * len(counts))(*counts), out.data_ptr(),
        )  # fmt: skip
        return out

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """a + b of bf16, in any order that both share."""
        out = torch.empty_like(a)
        self.library.rt_add(a.data_ptr(), b.data_ptr(), a.numel(), out.data_ptr())
        return out

    def rotate(self, x_nd: Tensor, cosine: Tensor, sine: Tensor) -> None:
        """Axial RoPE in place; the tables [period, d / 2] begin anew after each period."""
        n, d = x_nd.shape
        tables = cosine.data_ptr(), sine.data_ptr()
        self.library.rt_rotate(x_nd.data_ptr(), n, d, x_nd.stride(0), *tables, len(cosine))

    def pool(self, x_hwc: Tensor) -> Tensor:
        """2x2 max pooling of [h, w, c] (channels may be a view of wider rows)."""
        h, w, c = x_hwc.shape
        out = rows(h // 2, w // 2, c, dtype=x_hwc.dtype)
        self.library.rt_pool(x_hwc.data_ptr(), _kind(x_hwc), h, w, c, x_hwc.stride(1), out.data_ptr())
        return out

    def mask(self, logits_hw: Tensor, certain: bool) -> Tensor:
        """What the memory encoder is shown of mask logits [4g, 4g]: [S + 2, S + 2], with a border of zero."""
        size = 4 * len(logits_hw)
        out = rows(size + 2, size + 2)
        self.library.rt_mask(logits_hw.data_ptr(), size, int(certain), out.data_ptr())
        return out

    def mask_stem(self, mask_hw: Tensor, weight: Tensor, bias: Tensor, norm: Normed) -> Tensor:
        """The first convolution of `mask`'s answer, normed and activated: bf16 [S / 2, S / 2, 4]."""
        size = len(mask_hw) - 2
        out = rows(size // 2, size // 2, 4, dtype=torch.bfloat16)
        given = mask_hw.data_ptr(), size, weight.data_ptr(), bias.data_ptr(), byref(norm.c), out.data_ptr()
        self.library.rt_mask_stem(*given)
        return out

    def convolution(self, layer: Packed, x_hwc: Tensor, norm: Normed) -> Tensor:
        """A 3x3 convolution of stride 2, normed and activated by GELU: bf16 [side / 2, side / 2, n]."""
        side, _, c = x_hwc.shape
        out = rows(side // 2, side // 2, layer.n, dtype=torch.bfloat16)
        self.library.rt_convolution(byref(layer.c), x_hwc.data_ptr(), side, c, byref(norm.c), out.data_ptr())
        return out

    def depthwise(self, x_hwc: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """A 7x7 depthwise convolution of float32 [side, side, c]; weight [49, c]."""
        out = rows(*x_hwc.shape)
        side, _, c = x_hwc.shape
        self.library.rt_depthwise(x_hwc.data_ptr(), side, c, weight.data_ptr(), bias.data_ptr(), out.data_ptr())
        return out

    def upscale(self, x: Tensor, side: int, added: Tensor, norm: Normed | None, mix: Tensor | None = None) -> Tensor:
        """gelu(norm(x + added)) with each cell's 2 x 2 x c numbers as four pixels: bf16 [4 n, c].

        With `mix` [c]: its product with each pixel, float32 [4 n].
        """
        c = x.shape[-1] // 4
        pixels = 4 * side * side
        out = rows(pixels, c, dtype=torch.bfloat16) if mix is None else rows(pixels)
        mixed = None if mix is None else mix.data_ptr()
        norm_c = byref(norm.c if norm else _NO_NORM)
        self.library.rt_upscale(x.data_ptr(), side, c, added.data_ptr(), norm_c, mixed, out.data_ptr())
        return out


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array[c_void_p]:
    return (c_void_p * len(tensors))(*(t.data_ptr() for t in tensors))


def _output(out: Tensor, activation: int, added: Tensor | None) -> _Output:
    table = (None, 0, 0) if added is None else (added.data_ptr(), added.stride(-2), added.shape[:-1].numel())
    return _Output(out.data_ptr(), out.stride(-2), _kind(out), activation, *table)


def _declare(library: ctypes.CDLL) -> None:
    """Argument types where Python's own guess would be wrong: pointers as integers, longs, floats."""
    p, i, n, f = c_void_p, c_int, c_long, c_float
    library.rt_packed_size.argtypes, library.rt_packed_size.restype = (i, i, i), n
    library.rt_pack_weight.argtypes = (p, i, i, i, p, p)
    library.rt_norm.argtypes = (POINTER(_Input), i, p, p)
    library.rt_pack_keys.argtypes = library.rt_pack_values.argtypes = (p, i, i, p)
    library.rt_read.argtypes = (p, i, i, i, f, i, p, p, p, p, p)
    library.rt_round_keys.argtypes = (p, p, i, i, i, p, p)
    library.rt_add.argtypes = (p, p, n, p)
    library.rt_rotate.argtypes = (p, i, i, n, p, p, i)
    library.rt_pool.argtypes = (p, i, i, i, i, n, p)
    library.rt_picture.argtypes = (p, n, i, i, POINTER(_Axis), POINTER(_Axis), p, p, p)
    library.rt_patches.argtypes = (POINTER(_Linear), p, i, POINTER(_Output))
    library.rt_mask.argtypes = (p, i, i, p)
    library.rt_mask_stem.argtypes = (p, i, p, p, POINTER(_Norm), p)
    library.rt_convolution.argtypes = (POINTER(_Linear), p, i, i, POINTER(_Norm), p)
    library.rt_depthwise.argtypes = (p, i, i, p, p, p)
    library.rt_upscale.argtypes = (p, i, i, p, POINTER(_Norm), p, p)


def _openmp() -> list[str]:
    """The OpenMP library of this process: torch has loaded one."""
    maps = Path("/proc/self/maps").read_text("utf-8").splitlines()
    found = {line.split(maxsplit=5)[-1] for line in maps if "libgomp" in line or "libiomp" in line or "libomp" in line}
    if not found:
        raise EngineError("torch has loaded no OpenMP library; expected libgomp, as in PyTorch's own packages")
    return sorted(found)
