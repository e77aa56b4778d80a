"""The pixels that sprites and drops may cover, as spans of rows, for the batch renderer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Runs of pixels, arrays [N]: the polygon they belong to, row, first column, number of pixels."""

    owner: Ints
    row: Ints
    column: Ints
    count: Ints

    @property
    def total(self) -> int:
        return int(self.count.sum())


def spans_of(corners_snc: Floats, width: int, height: int) -> Spans:
    """The rows of convex polygons (corners (x, y) in pixels, [S, N, 2]) inside a picture."""
    y_h = np.arange(height, dtype=np.float64)
    start_sn1, end_sn1 = corners_snc[:, :, None], np.roll(corners_snc, -1, 1)[:, :, None]
    low_sn1, high_sn1 = np.minimum(start_sn1, end_sn1)[..., 1], np.maximum(start_sn1, end_sn1)[..., 1]
    crosses_snh = (low_sn1 <= y_h) & (y_h <= high_sn1)
    rise_sn1 = end_sn1[..., 1] - start_sn1[..., 1]
    part_snh = (y_h - start_sn1[..., 1]) / np.where(rise_sn1 == 0, 1.0, rise_sn1)
    x_snh = start_sn1[..., 0] + np.clip(part_snh, 0, 1) * (end_sn1[..., 0] - start_sn1[..., 0])
    first_sh = np.where(crosses_snh, x_snh, np.inf).min(1)
    last_sh = np.where(crosses_snh, x_snh, -np.inf).max(1)
    first_sh = np.clip(np.floor(first_sh), 0, width)
    count_sh = np.clip(np.ceil(last_sh), -1, width - 1) - first_sh + 1
    owner, row = np.nonzero(count_sh > 0)
    return Spans(owner, row, first_sh[owner, row].astype(np.int64), count_sh[owner, row].astype(np.int64))
