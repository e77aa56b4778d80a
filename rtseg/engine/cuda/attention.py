"""Attention on NVIDIA GPUs for values that may be narrower than keys (memories: 64 channels against 256).

torch has several kernels for this. The fastest is found by measuring, because no rule would be sure:

- Flash attention needs equal widths, at most 256, and no bias. Values padded with zeros to the keys' width cost 1.6
  times the products of 256 + 64 channels, in a kernel that does about twice as many a second.
- Memory-efficient attention takes any widths that are multiples of 8, and a bias (torch pads a bias whose rows are not
  aligned, which is cheap while it is one row).
- cuDNN takes both widths and a bias; up to 256 channels on compute capability 9.0 and 10.x with a recent cuDNN, up
  to 128 elsewhere. On those GPUs torch tries it first, and the call raises if cuDNN has no plan for such a pair of
  widths. So torch's own choice is used only for equal widths without a bias.

A wrong kernel may raise nothing and be the fastest, so each is first compared with a plain fp32 softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...base.errors import EngineError
from ..static.parts import Attention

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
Timer = Callable[[Callable[[], Tensor]], float]
"""Takes a function, and returns the milliseconds of a call."""

TOLERANCE = {torch.float32: 1e-3}  # error relative to the result's norm
HALF_TOLERANCE = 0.02  # the errors of bf16 are between 1e-3 and 1e-2
CHECKED = 64  # how many queries are compared with fp32
REPEATS = 10


@dataclass(frozen=True, slots=True)
class Backend:
    """One kernel for attention; `filled` pads values with zeros to the keys' width."""

    name: str
    kind: SDPBackend
    filled: bool = False

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        width = v.shape[-1]
        if self.filled:
            v = F.pad(v, (0, k.shape[-1] - width))
        with sdpa_kernel(self.kind):
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return out[..., :width]


BACKENDS = (
    Backend("memory-efficient", SDPBackend.EFFICIENT_ATTENTION),
    Backend("flash, values filled", SDPBackend.FLASH_ATTENTION, filled=True),
    Backend("cudnn", SDPBackend.CUDNN_ATTENTION),
    Backend("cudnn, values filled", SDPBackend.CUDNN_ATTENTION, filled=True),
    Backend("math", SDPBackend.MATH),
)


NUMBERS = count()
KNOWN: WeakValueDictionary[int, CudaAttention] = WeakValueDictionary()  # by number, as an operator takes no object


@torch.library.custom_op(
    "rtseg::attention", mutates_args=(), schema="(Tensor q, Tensor k, Tensor v, Tensor? bias, int number) -> Tensor"
)
def within_compiled(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, number: int) -> Tensor:
    """Attention by the chosen kernel, as an operator that the compiler does not look into; the result is contiguous."""
    return KNOWN[number].choice(q, k, v, bias)(q.contiguous(), k, v, bias).contiguous()


@within_compiled.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, number: int) -> Tensor:
    return q.new_empty(*q.shape[:-1], v.shape[-1])


class CudaAttention(Attention):
    """Softmax attention [b, heads, n, d] in one dtype, by the fastest kernel if widths differ or there is a bias.

    The first call with new shapes chooses the kernel, and must not be inside a capture. `chosen` maps (shapes of
    queries, keys and values, whether there is a bias) to the kernel.
    """

    def __init__(self, dtype: torch.dtype, backends: Sequence[Backend] = BACKENDS, timer: Timer | None = None) -> None:
        super().__init__()
        self.dtype, self.backends, self.timer = dtype, backends, timer or device_ms
        self.chosen: dict[tuple[object, ...], Backend] = {}
        self.number = next(NUMBERS)
        KNOWN[self.number] = self

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = q.to(self.dtype), k.to(self.dtype), v.to(self.dtype)
        if not q.is_cuda or (v.shape[-1] == k.shape[-1] and bias is None):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias.to(q.dtype))
        bias = None if bias is None else bias.to(q.dtype)
        if torch.compiler.is_compiling():  # keep the compiler from tracing the choice, and from choosing by itself
            opaque: Tensor = torch.ops.rtseg.attention(q, k, v, bias, self.number)
            return opaque
        return self.choice(q, k, v, bias)(q.contiguous(), k, v, bias)

    def choice(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Backend:
        """The kernel for inputs of these shapes."""
        shapes = (q.shape, k.shape, v.shape, bias is not None)
        if shapes not in self.chosen:
            tried = None if bias is None else holed(bias)
            self.chosen[shapes] = fastest(self.backends, (q.contiguous(), k, v, tried), self.timer)
        return self.chosen[shapes]


def holed(bias: Tensor) -> Tensor:
    """A bias of the same shape that hides every third key, different ones in each row of the batch.

    A bias that hides nothing, as on the first call, would not reveal a kernel that ignores it or reads another row.
    """
    row_b, key_m = (torch.arange(n, device=bias.device) for n in (bias.shape[0], bias.shape[-1]))
    return torch.zeros_like(bias).masked_fill(((row_b[:, None] + key_m) % 3 == 2)[:, None, None], float("-inf"))


def fastest(backends: Sequence[Backend], inputs: tuple[Tensor, Tensor, Tensor, Tensor | None], timer: Timer) -> Backend:
    """The fastest of the backends that run and give the right result. Raises `EngineError` if there is none."""
    expected, allowed = plain(*inputs), TOLERANCE.get(inputs[0].dtype, HALF_TOLERANCE)
    found: list[tuple[float, Backend]] = []
    problems = []
    for backend in backends:
        try:
            seen = backend(*inputs)[:, :, :CHECKED].float()
            error = float((seen - expected).norm() / expected.norm())
            if not error <= allowed:  # and not `error > allowed`, which is False for NaN
                problems.append(f"{backend.name}: is off by {error:.1%}")
                continue
            found.append((timer(partial(backend, *inputs)), backend))
        except torch.OutOfMemoryError:
            problems.append(f"{backend.name}: out of memory")
        except RuntimeError as e:  # torch's error for inputs that a backend does not take
            problems.append(f"{backend.name}: {str(e).splitlines()[0]}")
    if not found:
        tried = "; ".join(problems)
        raise EngineError(f'no attention kernel of torch is right on this GPU ({tried}); use runtime = "torch"')
    return min(found, key=lambda pair: pair[0])[1]


def plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Attention in plain fp32, for the first `CHECKED` queries."""
    scores = q[:, :, :CHECKED].float() @ k.float().transpose(2, 3) * k.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias.float()
    answer: Tensor = scores.softmax(dim=-1) @ v.float()
    return answer


def device_ms(call: Callable[[], object], repeats: int | None = None) -> float:
    """The median time of a call on the GPU, in milliseconds. `repeats`: None means `REPEATS`."""
    repeats = repeats or REPEATS
    call()
    times: list[float] = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[repeats // 2]
