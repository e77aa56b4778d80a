"""Copies many small tensors with few kernel launches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """A copy of each tensor in memory of its own."""
    fresh = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors]
    copy_all(list(zip(fresh, tensors, strict=True)))
    return fresh


def copy_all(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Copy (to, from) pairs; one launch for all pairs of one type."""
    by_type: defaultdict[torch.dtype, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for to, source in pairs:
        if to.numel():
            by_type[to.dtype].append((to, source))
    for group in by_type.values():
        torch._foreach_copy_([to for to, _ in group], [source for _, source in group], non_blocking=True)
