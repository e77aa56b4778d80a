"""How OpenCV squeezes a picture, as tables: which pixels each place is made of, and how much each of them counts."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Taps = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Indices of source pixels and their weights, each [target, taps]; a row of weights sums to 1."""


@lru_cache(maxsize=16)
def area_taps(source: int, target: int) -> Taps:
    """OpenCV's INTER_AREA along one axis that shrinks: how much of each source pixel lies in a target pixel."""
    edges = np.arange(target + 1) * (source / target)
    first = np.floor(edges[:-1]).astype(np.int64)
    at = first[:, None] + np.arange(int(np.ceil(source / target)) + 1)
    shared = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    weight = np.clip(shared, 0, None)
    return np.minimum(at, source - 1), (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=16)
def linear_taps(source: int, target: int) -> Taps:
    """OpenCV's INTER_LINEAR along one axis: the two pixels around each target pixel's centre; the border repeats."""
    centre = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    first = np.floor(centre).astype(np.int64)
    share = centre - first
    at = np.stack((first, np.minimum(first + 1, source - 1)), axis=1)
    return at, np.stack((1 - share, share), axis=1).astype(np.float32)


def weighted_taps(height: int, width: int, size: int) -> tuple[Taps, Taps]:
    """Of the rows and of the columns of a picture that becomes a square, as in `to_input`."""
    taps = area_taps if height >= size and width >= size else linear_taps
    return taps(height, size), taps(width, size)
