"""What the `cuda` engine asks of torch before it captures: exact products, and the image encoder compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..reference import exact_products

FUSED_ERROR = 0.05  # of the features' norm: what other roundings may do to them, and a wrong kernel does not stay under

Encode = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


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


def fused(encoder: nn.Module, image_1chw: Tensor, backend: str = "inductor") -> Encode:
    """The encoder compiled, or as it is where that fails or gives something else."""
    # Nothing of it changes any more, so there is nothing to watch: else another number of CPU threads, say, would make
    # torch compile again, in the middle of a feed. (An older torch has no such switch.)
    unwatched = getattr(torch.compiler, "skip_all_guards_unsafe", None)
    options = {"guard_filter_fn": unwatched} if unwatched else None
    compiled: Encode = torch.compile(encoder, fullgraph=True, dynamic=False, backend=backend, options=options)
    expected = encoder(image_1chw)
    try:
        with exact_fp32():
            found = compiled(image_1chw)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # the family of torch's compilation errors; no compiler on this machine is one of them
        return encoder
    errors = [float((f.float() - e.float()).norm() / e.float().norm()) for f, e in zip(found, expected, strict=True)]
    return compiled if max(errors) <= FUSED_ERROR else encoder
