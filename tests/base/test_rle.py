from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from rtseg.base.errors import OutputError
from rtseg.base.rle import decode_rle, encode_rle


@settings(max_examples=100, deadline=None)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_round_trip_and_the_same_as_pycocotools(mask_hw):
    counts = encode_rle(mask_hw)
    assert np.array_equal(decode_rle(counts, *mask_hw.shape), mask_hw)
    assert np.array_equal(coco.decode({"size": list(mask_hw.shape), "counts": counts}), mask_hw)


@pytest.mark.parametrize("fill", [False, True])
def test_large_and_uniform(fill):
    mask_hw = np.full((1080, 1920), fill)
    mask_hw[500:700, 900:1300] ^= True
    assert np.array_equal(decode_rle(encode_rle(mask_hw), 1080, 1920), mask_hw)


@pytest.mark.parametrize(
    "counts", [b"", b"0", b"o", b"P", b"\xff" * 9, b"ooooooooo0", b"0140002", encode_rle(np.eye(5) > 0)]
)
def test_counts_that_do_not_fill_the_mask_are_refused(counts):
    with pytest.raises(OutputError, match="4x4"):
        decode_rle(counts, 4, 4)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40) | st.text("0123456789:;<=>?@ABCPQRmno", max_size=40).map(str.encode))
def test_noise_is_refused_or_is_a_mask(counts):
    try:
        assert decode_rle(counts, 6, 7).shape == (6, 7)
    except OutputError as e:
        assert "\n" not in str(e)
