"""Attention, as a CPU trains with it, against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rtseg.sam2.layers import attention


def parts(dtype: torch.dtype) -> list[Tensor]:
    """Queries and keys of several heads, strided as a network has them."""
    g = torch.Generator().manual_seed(0)
    made = [torch.randn(3, n, 2, 8, generator=g, dtype=dtype) for n in (5, 7, 7)]
    return [t.transpose(1, 2).requires_grad_() for t in made]


def results(f: object, given: list[Tensor], scale: float = 1.0) -> list[Tensor]:
    q, k, v = given
    out = f(q * scale, k, v)  # type: ignore[operator]
    return [out, *torch.autograd.grad((out * torch.arange(8)).sum(), given)]


def test_values_and_gradients_are_those_of_torchs_own() -> None:
    given = parts(torch.float64)
    theirs = results(F.scaled_dot_product_attention, given)
    for ours, other, wrong in zip(results(attention, given), theirs, results(attention, given, 1.01), strict=True):
        assert torch.allclose(ours, other, rtol=1e-10, atol=1e-12)
        assert not torch.allclose(wrong, other, rtol=1e-4)


def test_it_is_computed_explicitly_only_where_gradients_are_wanted() -> None:
    given = parts(torch.float32)
    assert "ExplicitAttention" in str(attention(*given).grad_fn)
    mask = torch.ones(3, 1, 1, 7, dtype=torch.bool)
    masked = attention(*given, mask)
    assert torch.allclose(masked, attention(*given), atol=1e-6)
    assert "ExplicitAttention" not in str(masked.grad_fn)
    with torch.no_grad():
        assert torch.equal(attention(*given), F.scaled_dot_product_attention(*given))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_it_works_at_the_precision_of_the_training(dtype: torch.dtype) -> None:
    given = parts(torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out, *grads = results(attention, given)
    assert out.dtype == dtype
    assert all(g.dtype == torch.float32 for g in grads)
    theirs = results(F.scaled_dot_product_attention, given)
    for ours, other in zip((out, *grads), theirs, strict=True):
        assert (ours - other).abs().max() < (0.03 if dtype == torch.bfloat16 else 1e-5) * other.abs().max()
