"""Masks as run lengths: cropping, centroid and another order, without making whole masks of them.

A mask's runs go column by column, as COCO's do, and alternate: what is no object first.
"""

from __future__ import annotations

import numpy as np

from ...base.types import BoolMask

Runs = np.ndarray[tuple[int], np.dtype[np.int64]]


def cropped(runs: Runs, height: int, box: tuple[int, int, int, int]) -> BoolMask:
    """The mask, bool [y1 - y0, x1 - x0], inside a box x0, y0, x1, y1."""
    x0, y0, x1, y1 = box
    first, last = x0 * height, x1 * height
    lengths: Runs = np.diff(np.r_[first, np.clip(np.cumsum(runs), first, last)])
    flat = np.repeat(np.arange(runs.size) % 2 == 1, lengths)
    return np.ascontiguousarray(flat.reshape(x1 - x0, height).T[y0:y1])


def moments(runs: Runs, height: int) -> tuple[float, float]:
    """The mean x and y of the object's pixels.

    Pixel i lies in column i // height and row i % height; the sums of both over a run have closed forms.
    """
    ends = np.cumsum(runs)
    starts, ends = ends[0::2][: ends.size // 2], ends[1::2]

    def columns(n: Runs) -> Runs:  # the sum of i // height for all i < n
        whole, rest = np.divmod(n, height)
        sums: Runs = height * (whole * (whole - 1) // 2) + whole * rest
        return sums

    area = int((ends - starts).sum())
    of_x = int((columns(ends) - columns(starts)).sum())
    of_i = int((ends * (ends - 1) // 2 - starts * (starts - 1) // 2).sum())
    return of_x / area, (of_i - height * of_x) / area


def row_runs(mask_hw: BoolMask) -> Runs:
    """The run lengths of a mask, row by row, beginning with what is no object (0 of it if the first pixel is)."""
    flat = mask_hw.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    lengths: Runs = np.diff(np.r_[0, edges, flat.size])
    return np.concatenate([[0], lengths]) if flat[0] else lengths
