"""The three IoUs of instrument segmentation on EndoVis 2017 and 2018, from the areas of classes on frames.

- challenge IoU: on each frame the mean IoU of the classes that the truth has there, then the mean over the frames
  that have any. What is drawn of any other class costs nothing (Allan et al., "2017 Robotic Instrument Segmentation
  Challenge", arXiv 1902.06426).
- ISI-IoU: the same with the classes that the truth or the masks have, so that a wrong class counts as 0.
- mcIoU: for each class the mean over the frames that have it in truth or masks, then the mean over the classes, so that
  a rare class weighs as much as a common one.

A class in the truth that nobody followed, as an instrument that enters after the prompts, counts as 0 in all three.
All as the evaluation of ISINet computes them (González et al., MICCAI 2020, arXiv 2007.05533), which SurgicalSAM and
Surgical SAM 2 compare with. There each pixel has one class; here the masks of two classes may overlap, and each
counts what it has.
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
    """ISI-IoU of each frame that has any class in truth or masks."""
    by_frame = defaultdict(list)
    for row in rows:
        by_frame[row.sequence, row.frame].append(_iou(row))
    return {key: fmean(ious) for key, ious in by_frame.items()}


def challenge_by_frame(rows: Iterable[ClassRow]) -> dict[Key, float]:
    """Challenge IoU of each frame that has any class in the truth."""
    return isi_by_frame(row for row in rows if row.truth_area)


def by_class(rows: Iterable[ClassRow]) -> dict[str, dict[Key, float]]:
    """IoU of each class on each frame that has it in truth or masks; mcIoU is the mean of the means."""
    classes: dict[str, dict[Key, float]] = defaultdict(dict)
    for row in rows:
        classes[row.category][row.sequence, row.frame] = _iou(row)
    return dict(classes)
