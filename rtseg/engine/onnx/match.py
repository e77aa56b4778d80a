"""The graphs of `Match`: what is remembered of a prompted frame, and the comparison of a frame with it."""

from __future__ import annotations

from torch import Tensor, nn

from ...sam2 import Features, Sam2
from ...sam2.match import Match


class Compare(nn.Module):
    """Conditioned features with the comparison added."""

    def __init__(self, net: Sam2) -> None:
        super().__init__()
        self.match = part(net)

    def forward(self, conditioned_bhwd: Tensor, top_1hwd: Tensor, mid_1hwc: Tensor, cells_bcgg: Tensor) -> Tensor:
        added_bdhw = self.match.added(top_1hwd.permute(0, 3, 1, 2), mid_1hwc.permute(0, 3, 1, 2), cells_bcgg)
        return conditioned_bhwd + added_bdhw.permute(0, 2, 3, 1)


class Cells(nn.Module):
    """The embeddings and the mask of each cell."""

    def __init__(self, net: Sam2) -> None:
        super().__init__()
        self.match = part(net)

    def forward(self, top_1hwd: Tensor, mid_1hwc: Tensor, logits_b1hw: Tensor) -> Tensor:
        mid = mid_1hwc.permute(0, 3, 1, 2)
        return self.match.remember(Features(top_1hwd.permute(0, 3, 1, 2), mid, mid), logits_b1hw)


def part(net: Sam2) -> Match:
    assert net.match is not None  # these graphs are made only of a network that has it
    return net.match
