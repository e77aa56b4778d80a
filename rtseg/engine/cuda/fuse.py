"""Exact fp32 products, and the verbs of a step compiled by torch, for the `cuda` engine.

Each verb is compiled for fixed shapes, and compared with the plain one before it is used. The encoder is compiled when
the engine opens, the other verbs when a size of pictures is made `ready`: attention to memories for each kind of step,
the two others for each number of objects. They do not depend on the size of pictures, so a second size compiles
nothing; and a step that was not foreseen compiles nothing either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from subprocess import SubprocessError
from types import FunctionType

import torch
from torch import Tensor

from ..reference import exact_products

FUSED_ERROR = 0.05  # relative to the norm of the result: rounding stays below it; a kernel above it is not used
TRIES = 3  # with other inputs: rounding may choose another of two masks that are nearly as good, but not every time
MOST_OBJECTS = 2  # up to which a step is compiled: each further number takes a minute on first use, and seconds later

Verb = Callable[..., Sequence[Tensor]]
"""A function from tensors to tensors."""

Draw = Callable[[int], Sequence[Tensor]]
"""A function from a seed to inputs of a verb."""


@contextmanager
def exact_fp32() -> Iterator[None]:
    """A context without TF32, which keeps ten bits of mantissa, and in which cuDNN measures the fastest kernels."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    try:
        cudnn.benchmark = True
        with exact_products():
            yield
    finally:
        cudnn.benchmark = before


def fused(verb: Verb, draw: Draw, backend: str = "inductor") -> Verb:
    """The verb compiled for inputs of these shapes; the verb itself if that fails or gives other results."""
    # Guards are off, because shapes and weights never change: with guards another number of CPU threads, for example,
    # would make torch compile again during a feed. (An older torch has no such switch.)
    unwatched = getattr(torch.compiler, "skip_all_guards_unsafe", None)
    options = {"guard_filter_fn": unwatched} if unwatched else None
    compiled: Verb = torch.compile(alone(verb), fullgraph=True, dynamic=False, backend=backend, options=options)
    try:
        right = any(agree(compiled, verb, draw(seed)) for seed in range(TRIES))
    except torch.OutOfMemoryError:
        raise
    # The errors of torch's compiler, and those of Triton at its first launch: no C compiler, or no Python headers.
    except (RuntimeError, TypeError, OSError, ImportError, SubprocessError):
        return verb
    return compiled if right else verb


def agree(compiled: Verb, verb: Verb, inputs: Sequence[Tensor]) -> bool:
    """Whether both give the same results for these inputs, up to rounding."""
    with exact_fp32():
        # The plain verb runs last, so that what it writes to buffers stays.
        found, expected = compiled(*inputs), verb(*inputs)
    pairs = [(f.float(), e.float()) for f, e in zip(found, expected, strict=True)]
    return all(float((f - e).norm()) <= FUSED_ERROR * float(e.norm()) for f, e in pairs)


def alone(verb: Verb) -> Verb:
    """The verb as a function with its own code object.

    torch caches compiled code by code object. Verbs for other shapes share one, and without guards torch would use the
    first compiled one for all.
    """

    def call(*inputs: Tensor) -> Sequence[Tensor]:
        return verb(*inputs)

    return FunctionType(call.__code__.replace(), call.__globals__, call.__name__, None, call.__closure__)
