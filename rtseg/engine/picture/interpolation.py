"""OpenCV's resizing as tables: the source pixels that make each target pixel, and their weights."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

AxisWeights = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Along one axis: indices of source pixels and their weights, each [target, k]; a row of weights sums to 1."""


@lru_cache(maxsize=16)
def area_weights(source: int, target: int) -> AxisWeights:
    """INTER_AREA along an axis that shrinks from `source` to `target` pixels: each source pixel's share."""
    edges = np.arange(target + 1) * (source / target)
    first = np.floor(edges[:-1]).astype(np.int64)
    at = first[:, None] + np.arange(int(np.ceil(source / target)) + 1)
    shared = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    weight = np.clip(shared, 0, None)
    return np.minimum(at, source - 1), (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=16)
def linear_weights(source: int, target: int) -> AxisWeights:
    """INTER_LINEAR along an axis: the two pixels around each target pixel's centre. Border pixels are repeated."""
    centre = np.clip((np.arange(target) + 0.5) * (source / target) - 0.5, 0, source - 1)
    first = np.floor(centre).astype(np.int64)
    share = centre - first
    at = np.stack((first, np.minimum(first + 1, source - 1)), axis=1)
    return at, np.stack((1 - share, share), axis=1).astype(np.float32)


def interpolation_weights(height: int, width: int, size: int) -> tuple[AxisWeights, AxisWeights]:
    """The weights of the rows and of the columns for making a picture [height, width] a square, as in `to_planes`."""
    along = area_weights if height >= size and width >= size else linear_weights
    return along(height, size), along(width, size)
