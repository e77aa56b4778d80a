"""The three IoUs of instrument segmentation on EndoVis 2017 and 2018, from the areas of classes on frames.

- challenge IoU: the mean IoU of the classes in the truth of a frame, then the mean over the frames with any class in
  the truth. Masks of other classes cost nothing (Allan et al., "2017 Robotic Instrument Segmentation Challenge", arXiv
  1902.06426).
- ISI-IoU: the same over the classes in truth or masks, so that a wrong class counts as 0.
- mcIoU: for each class the mean over the frames that have it in truth or masks, then the mean over the classes, so that
  a rare class has the same weight as a common one.

A class in the truth that was never tracked, like an instrument that enters after the prompts, counts as 0 in all three.
All are computed as in the evaluation of ISINet (González et al., MICCAI 2020, arXiv 2007.05533), which SurgicalSAM and
Surgical SAM 2 compare with. There each pixel has one class; here the masks of two classes may overlap, and a pixel
counts for both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean

from ..result import ClassRow
from .overlap import iou

Key = tuple[str, int]  # sequence and frame


def _iou(row: ClassRow) -> float:
    return iou(row.truth_area, row.mask_area, row.overlap_area)


def isi_by_frame(rows: Iterable[ClassRow]) -> dict[Key, float]:
    """The ISI-IoU of each frame that has any class in truth or masks."""
    by_frame = defaultdict(list)
    for row in rows:
        by_frame[row.sequence, row.frame].append(_iou(row))
    return {key: fmean(ious) for key, ious in by_frame.items()}


def challenge_by_frame(rows: Iterable[ClassRow]) -> dict[Key, float]:
    """The challenge IoU of each frame that has any class in the truth."""
    return isi_by_frame(row for row in rows if row.truth_area)


def by_class(rows: Iterable[ClassRow]) -> dict[str, dict[Key, float]]:
    """The IoU of each class on each frame that has it in truth or masks; mcIoU is the mean of the classes' means."""
    classes: dict[str, dict[Key, float]] = defaultdict(dict)
    for row in rows:
        classes[row.category][row.sequence, row.frame] = _iou(row)
    return dict(classes)
