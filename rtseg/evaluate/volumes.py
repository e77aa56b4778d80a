"""Scoring the masks of a volume in three dimensions: distances and surfaces, once for each object.

Distances within a slice ignore the neighbouring slices, where the nearest surface often is, and are not defined if a
slice lacks the object. So papers on volumes report those in three dimensions, over all slices that were tracked and
annotated. A slice whose mask was given is a part of the body, so that it leaves no hole, but its own surface is not
measured.
"""

from __future__ import annotations

from collections.abc import Sequence as Series
from dataclasses import dataclass

import numpy as np

from ..base.types import BoolMask
from ..data.dataset import Sequence
from .metrics import overlap, surface
from .result import Tracked, VolumeRow
from .score import masks_of


@dataclass(frozen=True, slots=True)
class _Slice:
    """The truth and the mask on one slice, in the smallest window that holds both."""

    number: int
    top: int
    left: int
    truth_hw: BoolMask
    mask_hw: BoolMask
    given: bool


def score_volume(sequence: Sequence, tracked: Tracked, tolerance: float = surface.TOLERANCE) -> list[VolumeRow]:
    """One row for each tracked object of a volume; none if the size of its voxels is unknown.

    `tolerance` is in mm. Raises the errors of `score`.
    """
    if not sequence.volume or sequence.spacing_mm is None or sequence.slice_mm is None:
        return []
    spacing = sequence.slice_mm, *sequence.spacing_mm
    slices: dict[int, list[_Slice]] = {}
    for frame, id_, (truth_hw, mask_hw) in masks_of(sequence, tracked):
        where = overlap.window(truth_hw, mask_hw)
        given = (frame, id_) in tracked.given
        top, left = (part.start for part in where)
        # Copies, because a view would keep the whole slice in memory.
        cut = _Slice(frame, top, left, truth_hw[where].copy(), mask_hw[where].copy(), given)
        slices.setdefault(id_, []).append(cut)
    return [_row(sequence.name, id_, slices[id_], spacing, tolerance) for id_ in sorted(slices)]


def _row(
    name: str, id_: int, slices: Series[_Slice], spacing: tuple[float, float, float], tolerance: float
) -> VolumeRow:
    scored = [cut for cut in slices if not cut.given]
    areas = sum(int(cut.truth_hw.sum()) for cut in scored), sum(int(cut.mask_hw.sum()) for cut in scored)
    distances = surface.surface_distances(*_bodies(slices), spacing, _measured(slices)) if any(areas) else None
    hd95 = None if distances is None else surface.hd95(*distances)
    return VolumeRow(name, id_, hd95, surface.surface_dice_of(areas, distances, tolerance))


def _bodies(slices: Series[_Slice]) -> tuple[BoolMask, BoolMask]:
    """The truth and the mask as bool [D, H, W], from the first slice to the last, in the window of all slices."""
    first, top, left = (min(getattr(cut, name) for cut in slices) for name in ("number", "top", "left"))
    bottom = max(cut.top + cut.truth_hw.shape[0] for cut in slices)
    right = max(cut.left + cut.truth_hw.shape[1] for cut in slices)
    last = max(cut.number for cut in slices)
    truth_dhw, mask_dhw = np.zeros((2, last - first + 1, bottom - top, right - left), bool)
    for cut in slices:
        height, width = cut.truth_hw.shape
        y, x = cut.top - top, cut.left - left
        truth_dhw[cut.number - first, y : y + height, x : x + width] = cut.truth_hw
        mask_dhw[cut.number - first, y : y + height, x : x + width] = cut.mask_hw
    return truth_dhw, mask_dhw


def _measured(slices: Series[_Slice]) -> BoolMask:
    """Whether the surface in each slice is measured, bool [D]."""
    first, last = min(cut.number for cut in slices), max(cut.number for cut in slices)
    measured_d = np.zeros(last - first + 1, bool)
    measured_d[[cut.number - first for cut in slices if not cut.given]] = True
    return measured_d
