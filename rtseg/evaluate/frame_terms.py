"""Figures as ratios of sums over frames: what each frame adds to a figure, for the resampling of frames (`blocks`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from . import blocks
from .blocks import Ends, Part
from .bootstrap import Figure
from .metrics import instruments
from .result import ClassRow, Row

Terms = Callable[[Row], tuple[float, float] | None]  # numerator and denominator; None if the row does not count
Key = tuple[str, int]  # sequence and object


def _mean_of(name: str) -> Terms:
    def terms(row: Row) -> tuple[float, float] | None:
        value = getattr(row, name)
        return None if value is None else (value, 1.0)

    return terms


# Names as in `summary`. Figures that are not means over frames (clicks, returns, distances in 3-D) have no terms.
TERMS: Mapping[str, Terms] = {
    **{name: _mean_of(name) for name in ("iou", "boundary", "dice", "hd95", "surface")},
    "volume_dice": lambda row: (2.0 * row.overlap_area, float(row.truth_area + row.mask_area)),
    "jf": lambda row: ((row.iou + row.boundary) / 2, 1.0),
    "missed": lambda row: (float(not row.mask_area), 1.0) if row.truth_area else None,
    "false_area": lambda row: None if row.truth_area else (row.mask_area / row.pixels, 1.0),
    "false_frames": lambda row: None if row.truth_area else (float(row.mask_area > 0), 1.0),
}
CLASSES = ("challenge_iou", "isi_iou", "mc_iou")
NAMES = (*TERMS, *CLASSES)


def object_part(name: str, rows: Iterable[Row]) -> Part:
    """The terms of one object's figure, from its rows."""
    part: dict[str, dict[int, tuple[float, float]]] = {}
    for row in rows:
        sums = None if row.given else TERMS[name](row)
        if sums is not None and sums[1]:
            part.setdefault(row.sequence, {})[row.frame] = sums
    return part


def class_parts(name: str, rows: Sequence[ClassRow]) -> list[Part]:
    """The terms of a figure in `CLASSES`, one part for each class or one for all."""
    if name == "mc_iou":
        by_frame = list(instruments.by_class(rows).values())
    else:
        by_frame = [(instruments.challenge_by_frame if name == "challenge_iou" else instruments.isi_by_frame)(rows)]
    parts: list[dict[str, dict[int, tuple[float, float]]]] = []
    for ious in by_frame:
        parts.append({})
        for (sequence, frame), iou in ious.items():
            parts[-1].setdefault(sequence, {})[frame] = iou, 1.0
    return [part for part in parts if part]


def with_interval(figure: Figure, parts: Sequence[Part], others: Sequence[Part] | None = None) -> Figure:
    """The figure with an interval within its videos, if there is one; see `blocks.interval`."""
    ends: Ends | None = blocks.interval(parts, others)
    return figure if ends is None else replace(figure, low=ends[0], high=ends[1], scope=blocks.WITHIN)
