"""Masks as COCO compressed RLE: the form that pycocotools, FiftyOne, CVAT and most training code read."""

from __future__ import annotations

import numpy as np

from .errors import OutputError
from .types import BoolMask


def encode_rle(mask_hw: BoolMask) -> bytes:
    """COCO's compressed counts of a mask, bool [H, W]."""
    from pycocotools import mask as coco

    return bytes(coco.encode(np.asfortranarray(mask_hw.view(np.uint8)))["counts"])


def _run_lengths(counts: bytes) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The run lengths, int64 [N], of compressed counts; `ValueError` if they are malformed.

    A number is a group of characters. Each character, minus "0", has six bits: five of the value, lowest first, and one
    that says whether another character follows. From the fourth number on, the value is the difference to the number
    two places before.
    """
    bits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    more = (bits & 32) > 0
    if bits.size == 0 or bits.min() < 0 or bits.max() > 63 or more[-1]:
        raise ValueError("broken characters")
    starts = np.flatnonzero(np.r_[True, ~more[:-1]])
    digit = np.arange(bits.size) - np.repeat(starts, np.diff(np.r_[starts, bits.size]))
    if digit.max() > 6:
        raise ValueError("a number is too long")
    numbers = np.add.reduceat((bits & 31) << (5 * digit), starts)
    ends = np.r_[starts[1:], bits.size] - 1
    numbers -= np.where(bits[ends] & 16, np.int64(1) << (5 * (digit[ends] + 1)), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def rle_runs(counts: bytes, height: int, width: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The run lengths, int64 [N], of COCO's compressed counts: column by column, beginning with what is no object.

    Raises `OutputError` if they do not fill a mask [height, width] exactly. The counts may come from a stranger, so
    they are checked here instead of given to C code that trusts them.
    """
    try:
        lengths = _run_lengths(counts)
        if lengths.min() < 0 or int(lengths.sum()) != height * width or lengths.max() > height * width:
            raise ValueError("the runs do not fill it")
    except ValueError as e:
        raise OutputError(f"mask: not an RLE of {width}x{height} pixels ({e}); check the program that sent it") from e
    return lengths


def decode_rle(counts: bytes, height: int, width: int) -> BoolMask:
    """Mask, bool [height, width], of COCO's compressed counts; `OutputError` if they do not fill it exactly."""
    lengths = rle_runs(counts, height, width)
    value = np.arange(lengths.size) % 2 == 1
    return np.ascontiguousarray(np.repeat(value, lengths).reshape(width, height).T)


def filled_polygon(points_n2: np.ndarray[tuple[int, int], np.dtype[np.int64]], height: int, width: int) -> BoolMask:
    """Mask, bool [height, width], of a closed line of points x, y, filled as COCO's tools do."""
    from pycocotools import mask as coco

    (filled,) = coco.frPyObjects([points_n2.ravel().tolist()], height, width)
    return np.asarray(coco.decode(filled), np.bool_)
