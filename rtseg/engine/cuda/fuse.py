"""Exact fp32 products, and the verbs of a step compiled by torch, for the `cuda` engine.

Each verb is compiled for shapes that never change, and compared with the plain one before it is used. What is
compiled is the encoder, when the engine opens, and the other verbs when a size of pictures is made `ready`: attention
to memories for each kind of step, the two others for each number of objects. They do not depend on the size of the
picture, so a second one compiles nothing; and a step that nobody asked for beforehand compiles nothing either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from subprocess import SubprocessError
from types import FunctionType

import torch
from torch import Tensor

from ..reference import exact_products

FUSED_ERROR = 0.05  # relative to the norm of the answer: roundings stay below it; a kernel above it is not used
TRIES = 3  # of other inputs: roundings may take another of two masks that are nearly as good, but not every time
MOST_OBJECTS = 2  # up to which a step is compiled: each number more is a minute on first use, and seconds later

Verb = Callable[..., Sequence[Tensor]]
"""Tensors to tensors."""

Draw = Callable[[int], Sequence[Tensor]]
"""A seed to inputs of a verb."""


@contextmanager
def exact_fp32() -> Iterator[None]:
    """Inside, fp32 means fp32 (TF32 keeps ten bits of mantissa), and cuDNN measures which kernels are fastest."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    try:
        cudnn.benchmark = True
        with exact_products():
            yield
    finally:
        cudnn.benchmark = before


def fused(verb: Verb, draw: Draw, backend: str = "inductor") -> Verb:
    """The verb compiled for inputs of such shapes, or as it is where that fails or gives something else."""
    # Nothing of it changes any more, so there is nothing to watch: else another number of CPU threads, say, would make
    # torch compile again, in the middle of a feed. (An older torch has no such switch.)
    unwatched = getattr(torch.compiler, "skip_all_guards_unsafe", None)
    options = {"guard_filter_fn": unwatched} if unwatched else None
    compiled: Verb = torch.compile(alone(verb), fullgraph=True, dynamic=False, backend=backend, options=options)
    try:
        right = any(agree(compiled, verb, draw(seed)) for seed in range(TRIES))
    except torch.OutOfMemoryError:
        raise
    # The family of torch's compilation errors; and what Triton meets when its first kernel is launched, and not before:
    # no C compiler, or one without the headers of Python.
    except (RuntimeError, TypeError, OSError, ImportError, SubprocessError):
        return verb
    return compiled if right else verb


def agree(compiled: Verb, verb: Verb, inputs: Sequence[Tensor]) -> bool:
    """Whether both give the same answers to these inputs, up to rounding."""
    with exact_fp32():
        # The plain one last: what it puts into buffers is what stays.
        found, expected = compiled(*inputs), verb(*inputs)
    pairs = [(f.float(), e.float()) for f, e in zip(found, expected, strict=True)]
    return all(float((f - e).norm()) <= FUSED_ERROR * float(e.norm()) for f, e in pairs)


def alone(verb: Verb) -> Verb:
    """The verb as a function with code of its own.

    torch keeps what it compiled with the code that it was compiled from. Verbs of other shapes have the same code, and
    without guards the first of them would be taken for all.
    """

    def call(*inputs: Tensor) -> Sequence[Tensor]:
        return verb(*inputs)

    return FunctionType(call.__code__.replace(), call.__globals__, call.__name__, None, call.__closure__)
