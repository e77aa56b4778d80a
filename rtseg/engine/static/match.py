"""`Match` in a captured step: cells of each object in one buffer, which has rows for objects without any, too.

The cells of a conditioning frame are a value like its memory: a tensor of their own, freed with the memory. Before each
step those of the newest one are copied to the object's row. So there are no slots to keep account of; at 512 px a row
is half a megabyte, and the copy is one with that of the object pointers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...sam2 import Preset, Recall
from ...sam2.match import Match


def with_match(
    match: Match, conditioned_bdhw: Tensor, top: Tensor, mid: Tensor, cells_bcgg: Tensor, matched_b: Tensor
) -> Tensor:
    """Conditioned features with the comparison added, of the objects whose `matched_b` is 1; it is made in fp32.

    The cells of the others may be anything.
    """
    added_bdhw = match.added(top.float(), mid.float(), cells_bcgg)
    found_bdhw = torch.where(matched_b[:, None, None, None] > 0, added_bdhw, 0.0)
    return conditioned_bdhw + found_bdhw.to(conditioned_bdhw.dtype)


class CellRows:
    """The buffer `cells_bcgg` [b, C + 1, 2g, 2g], and `matched_b` [b], 1 for objects that have cells; both fp32."""

    def __init__(self, cells_bcgg: Tensor, matched_b: Tensor) -> None:
        self.cells_bcgg, self.matched_b = cells_bcgg, matched_b
        self._yes, self._no = torch.ones_like(matched_b[0]), torch.zeros_like(matched_b[0])

    @staticmethod
    def zeros(preset: Preset, grid: int, objects: int, device: torch.device) -> CellRows:
        """Rows for this many objects."""
        cells_bcgg = torch.zeros(objects, preset.match_dim + 1, 2 * grid, 2 * grid, device=device)
        return CellRows(cells_bcgg, torch.zeros(objects, device=device))

    def rows(self, objects: int) -> tuple[Tensor, Tensor]:
        """Both, for the first objects."""
        return self.cells_bcgg[:objects], self.matched_b[:objects]

    def copies(self, recalls: Sequence[Recall]) -> list[tuple[Tensor, Tensor]]:
        """The copies (to, from) that a step of these objects needs."""
        cells = [recall.cells_cgg for recall in recalls]
        flags = [(self.matched_b[i], self._no if own is None else self._yes) for i, own in enumerate(cells)]
        return flags + [(self.cells_bcgg[i], own) for i, own in enumerate(cells) if own is not None]
