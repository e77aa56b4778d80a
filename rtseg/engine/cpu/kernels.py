"""The compiled kernels of the `cpu` engine, as methods on tensors. Their source is the folder simd beside this file."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import byref, c_int, c_void_p
from typing import Any

import torch
from torch import Tensor, nn

from ...base.errors import EngineError
from .binding import AttentionStruct, InputStruct, LinearStruct, NormStruct, OutputStruct, declared
from .isa import LANES, library

NONE, RELU, GELU, RELU6 = range(4)
F32, BF16, INT16, INT8 = range(4)  # the types that a product multiplies
GROUPS = {F32: 1, BF16: 2, INT16: 2, INT8: 4}  # how many numbers fit in four bytes
HALVES = {2: torch.bfloat16, 4: torch.float32}
KINDS = {torch.float32: 0, torch.bfloat16: 1}


class Packed:
    """A linear layer for the kernels, whose weights [n, k] are packed once. `exact`: never in eight bits.

    `kind` is the type of its product; by default, that of the kernels' precision.
    """

    def __init__(
        self, kernels: Kernels, weight_nk: Tensor, bias_n: Tensor | None, exact: bool = False, kind: int | None = None
    ) -> None:
        self.n, self.inputs = weight_nk.shape
        if self.n % LANES:
            raise EngineError(f"a layer of {self.inputs} to {self.n}: the CPU kernels want multiples of {LANES}")
        if kind is None:
            kind = kernels.exact if exact or self.inputs % LANES else kernels.kind
        padded = -(-self.inputs // GROUPS[kind]) * GROUPS[kind]
        weight = weight_nk.detach().float().contiguous()
        self.weight = rows(self.n * padded * 4 // GROUPS[kind], dtype=torch.uint8)
        self.scale = rows(self.n)
        self.bias = None if bias_n is None else bias_n.detach().float().contiguous()
        kernels.call(
            "pack_weight", weight.data_ptr(), self.n, self.inputs, kind, self.weight.data_ptr(), self.scale.data_ptr()
        )
        bias = None if self.bias is None else self.bias.data_ptr()
        self.c = LinearStruct(self.weight.data_ptr(), self.scale.data_ptr(), bias, self.n, padded, kind)


class Normed:
    """A LayerNorm for the kernels."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self.gamma, self.beta = norm.weight.detach().float().contiguous(), norm.bias.detach().float().contiguous()
        self.c = NormStruct(self.gamma.data_ptr(), self.beta.data_ptr(), norm.eps)


_NO_NORM = NormStruct(None, None, 0.0)


def rows(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An empty CPU tensor for a result, whatever torch's default dtype and device are: kernels get bare pointers."""
    return torch.empty(shape, dtype=dtype, device="cpu")


def _bytes(x: Tensor) -> int:
    """0 for float32, 1 for bf16. Raises `EngineError` for any other tensor, which the kernels would misread."""
    kind = KINDS.get(x.dtype)
    if kind is None or not x.is_cpu:
        raise EngineError(f"{x.dtype} on {x.device}: the CPU kernels take float32 or bfloat16 on the CPU")
    return kind


def _input(x: Tensor, norm: Normed | None) -> InputStruct:
    """A tensor as rows along its last axis. The other axes must have one fixed stride in common."""
    return InputStruct(x.data_ptr(), x.stride(-2), _bytes(x), x.shape[-1], norm.c if norm else _NO_NORM)


class Kernels:
    """The kernels of one instruction set, for one precision. Methods take contiguous rows and return new tensors.

    `half` is the dtype that attention reads and writes: bfloat16 if the CPU multiplies it, else float32. `kind` is the
    type of products in large layers, `exact` that in layers that must not be rounded to eight bits, and `scores` the
    type that queries and keys are rounded to (F32: not rounded).
    """

    def __init__(self, isa: str, precision: str) -> None:
        self.isa, self.precision = isa, precision
        self._functions = declared(library(), isa)
        self.half = HALVES[self.call("half_bytes")]
        small = INT8 if self.call("has_bytes") else INT16
        self.kind = {"fp32": F32, "bf16": BF16, "int16": INT16, "int8": small}[precision]
        wide = BF16 if self.half == torch.bfloat16 else INT16
        self.exact = F32 if precision == "fp32" else wide
        self.scores = F32 if precision in ("fp32", "bf16") else self.kind

    def call(self, name: str, *given: Any) -> int:
        """Call a kernel by its name without prefix."""
        return self._functions[name](*given)

    def use(self, threads: int) -> None:
        """Set how many threads the kernels may use in calls from this thread, including this thread."""
        self.call("threads", threads)

    def linear(
        self, layer: Packed, x: Tensor, norm: Normed | None = None, activation: int = NONE, added: Tensor | None = None,
        half: bool = False, out: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """activation(layer(norm(x))) + added, [..., n]: float32, or `half`.

        `added` may have fewer rows, which then repeat; `out` may be `added` itself.
        """
        if out is None:
            out = rows(*x.shape[:-1], layer.n, dtype=self.half if half else torch.float32)
        given, to = _input(x, norm), output_struct(out, activation, added)
        self.call("linear", byref(layer.c), x.shape[:-1].numel(), byref(given), byref(to))
        return out

    def patches(self, layer: Packed, image_chw: Tensor, position: Tensor) -> Tensor:
        """Overlapping 7x7 patches at stride 4 of a float32 image [3, S, S], plus `position`: [S * S / 16, n]."""
        out = rows(*position.shape)
        to = output_struct(out, NONE, position)
        self.call("patches", byref(layer.c), image_chw.data_ptr(), image_chw.shape[-1], byref(to))
        return out

    def mlp(
        self, first: Packed, last: Packed, x: Tensor, norm: Normed | None, activation: int, added: Tensor | None = None
    ) -> Tensor:
        """last(activation(first(norm(x)))) + added, float32. If `added` is given, the result overwrites it."""
        out = rows(*x.shape[:-1], last.n) if added is None else added
        given, to = _input(x, norm), output_struct(out, NONE, added)
        n = x.shape[:-1].numel()
        self.call("mlp", byref(first.c), byref(last.c), activation, n, byref(given), byref(to))
        return out

    def norm(self, norm: Normed, x: Tensor, half: bool) -> Tensor:
        """LayerNorm of float32 rows, as float32 or `half`."""
        out = rows(*x.shape, dtype=self.half if half else torch.float32)
        given = _input(x, norm)
        where = (None, out.data_ptr()) if half else (out.data_ptr(), None)
        self.call("norm", byref(given), x.shape[:-1].numel(), *where)
        return out

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, heads: int, out: Tensor, *, windows: int = 1,
        q_index: Tensor | None = None, k_index: Tensor | None = None, absent: tuple[Tensor, Tensor] | None = None,
        scale: float | None = None,
    ) -> Tensor:  # fmt: skip
        """Attention of `half` rows q [n, heads * d], k, v (views of wider rows are allowed) in windows, into `out`.

        `q_index` [windows, queries] and `k_index` [windows, keys], int32, list the rows of each window; a key of -1 is
        `absent`, a query of -1 ends its window. d and the width of v have to be multiples of 16. `scale` defaults to
        d ** -0.5; give it if heads were padded to d.
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
        given = AttentionStruct(
            *pointers, *steps, windows, heads, queries, keys, d, width, self.scores, scale or d**-0.5
        )
        self.call("attention", byref(given))
        return out

    def pack_keys(self, keys_nd: Tensor) -> Tensor:
        """Keys [n, d] packed for `read`: `half`, reordered, and padded to a multiple of 16 rows."""
        keys_nd = keys_nd.to(self.half).contiguous()
        packed = rows(-(-len(keys_nd) // LANES) * LANES, keys_nd.shape[1], dtype=keys_nd.dtype)
        self.call("pack_keys", keys_nd.data_ptr(), *keys_nd.shape, packed.data_ptr())
        return packed

    def pack_values(self, values_nm: Tensor) -> Tensor:
        """Values [n, M] packed for `read` in the same way."""
        values_nm = values_nm.to(self.half).contiguous()
        packed = rows(-(-len(values_nm) // LANES) * LANES, values_nm.shape[1], dtype=values_nm.dtype)
        self.call("pack_values", values_nm.data_ptr(), *values_nm.shape, packed.data_ptr())
        return packed

    def round_keys(self, keys_lnd: Tensor, added_lnd: Tensor | None, n: int) -> tuple[Tensor, Tensor]:
        """Packed keys plus a packed table, rounded for `read` [L, n, d], and the scale of each key [L, n]."""
        layers, tall, d = keys_lnd.shape
        out = rows(layers, tall, d, dtype=torch.int16 if self.scores == INT16 else torch.uint8)
        scale = rows(layers, tall)
        added = None if added_lnd is None else added_lnd.data_ptr()
        given = keys_lnd.data_ptr(), added, layers, n, d, self.scores
        self.call("round_keys", *given, out.data_ptr(), scale.data_ptr())
        return out, scale

    def read(
        self, q_nd: Tensor, keys: Sequence[Tensor], scales: Sequence[Tensor] | None, values: Sequence[Tensor],
        counts: Sequence[int],
    ) -> Tensor:  # fmt: skip
        """Attention of `half` queries [n, d] to one object's packed memories, of `counts` tokens each: [n, M].

        With `scales`, keys and scales are those of `round_keys`.
        """
        n, d, width = *q_nd.shape, values[0].shape[-1]
        out = rows(n, width, dtype=self.half)
        tables = (
            pointers(keys),
            pointers(scales) if scales else None,
            pointers(values),
            (c_int * len(counts))(*counts),
        )
        given = q_nd.data_ptr(), n, d, width, self.scores, d**-0.5, len(keys)
        self.call("read", *given, *tables, out.data_ptr())
        return out

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """a + b of two `half` tensors in the same memory order."""
        out = torch.empty_like(a)
        self.call("add", a.data_ptr(), b.data_ptr(), a.numel(), out.data_ptr())
        return out

    def rotate(self, x_nd: Tensor, cosine: Tensor, sine: Tensor) -> None:
        """Axial RoPE in place; the tables [period, d / 2] repeat after each period."""
        n, d = x_nd.shape
        tables = cosine.data_ptr(), sine.data_ptr()
        self.call("rotate", x_nd.data_ptr(), n, d, x_nd.stride(0), *tables, len(cosine))

    def pool(self, x_hwc: Tensor) -> Tensor:
        """2x2 max pooling of [h, w, c] (channels may be a view of wider rows)."""
        h, w, c = x_hwc.shape
        out = rows(h // 2, w // 2, c, dtype=x_hwc.dtype)
        self.call("pool", x_hwc.data_ptr(), _bytes(x_hwc), h, w, c, x_hwc.stride(1), out.data_ptr())
        return out

    def mask(self, logits_hw: Tensor, certain: bool) -> Tensor:
        """The memory encoder's input for mask logits [4g, 4g]: [S + 2, S + 2], with a border of zeros."""
        size = 4 * len(logits_hw)
        out = rows(size + 2, size + 2)
        self.call("mask", logits_hw.data_ptr(), size, int(certain), out.data_ptr())
        return out

    def mask_stem(self, mask_hw: Tensor, weight: Tensor, bias: Tensor, norm: Normed) -> Tensor:
        """The first convolution of the result of `mask`, normed and activated: `half` [S / 2, S / 2, 4]."""
        size = len(mask_hw) - 2
        out = rows(size // 2, size // 2, 4, dtype=self.half)
        given = mask_hw.data_ptr(), size, weight.data_ptr(), bias.data_ptr(), byref(norm.c), out.data_ptr()
        self.call("mask_stem", *given)
        return out

    def convolution(self, layer: Packed, x_hwc: Tensor, norm: Normed) -> Tensor:
        """A 3x3 convolution of stride 2, normed and activated by GELU: `half` [side / 2, side / 2, n]."""
        side, _, c = x_hwc.shape
        out = rows(side // 2, side // 2, layer.n, dtype=self.half)
        self.call("convolution", byref(layer.c), x_hwc.data_ptr(), side, c, byref(norm.c), out.data_ptr())
        return out

    def upscale(self, x: Tensor, side: int, added: Tensor, norm: Normed | None, mix: Tensor | None = None) -> Tensor:
        """gelu(norm(x + added)), with the 2 x 2 x c numbers of each cell as four pixels: `half` [4 n, c].

        With `mix` [c] it returns the dot product of `mix` and each pixel, float32 [4 n].
        """
        c = x.shape[-1] // 4
        pixels = 4 * side * side
        out = rows(pixels, c, dtype=self.half) if mix is None else rows(pixels)
        mixed = None if mix is None else mix.data_ptr()
        norm_c = byref(norm.c if norm else _NO_NORM)
        self.call("upscale", x.data_ptr(), side, c, added.data_ptr(), norm_c, mixed, out.data_ptr())
        return out


def pointers(tensors: Sequence[Tensor]) -> ctypes.Array[c_void_p]:
    """The addresses of tensors, as a kernel takes a list of them. The caller keeps the tensors."""
    return (c_void_p * len(tensors))(*(t.data_ptr() for t in tensors))


def output_struct(out: Tensor, activation: int, added: Tensor | None) -> OutputStruct:
    table = (None, 0, 0) if added is None else (added.data_ptr(), added.stride(-2), added.shape[:-1].numel())
    return OutputStruct(out.data_ptr(), out.stride(-2), _bytes(out), activation, *table)
