"""Scoring the masks of one sequence: a row for each object and for each class on each annotated frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ..base.errors import SourceError
from ..base.rle import decode_rle
from ..base.types import BoolMask
from ..data.dataset import Sequence, Target, Truth
from .metrics import boundary, overlap, surface
from .result import ClassRow, Prediction, Row, Tracked

Pair = tuple[BoolMask, BoolMask]  # truth and mask of one object on one frame


def score(
    sequence: Sequence, tracked: Tracked, tolerance: float = surface.TOLERANCE
) -> tuple[list[Row], list[ClassRow]]:
    """Rows of the objects and of the classes, in the order of frames.

    An object has a row on each frame on which it is annotated and has a mask, empty or not. A class has a row on each
    frame with truth or masks of it. Its truth includes objects that were never prompted, which have no mask: so the
    IoUs of instruments are the published ones, in which every class in the truth counts. Only an object that is
    prompted on a later frame is not included yet. A class has no row if the mask of one of its objects was given, or if
    one is not annotated. Objects without a category belong to no class.

    `tolerance` is that of the normalised surface Dice, in the unit of the distances: mm if the sequence has a spacing,
    else pixels. Raises `OutputError` for a mask of another size than the first picture; `SourceError` for such a truth,
    and for a file that cannot be read; `ConfigError` if scipy is missing.
    """
    height, width = sequence.image(0).shape[:2]
    clicks = {(entry["frame"], entry["id"]): len(entry.get("points", ())) for entry in tracked.prompts}
    followed = {id_ for found in tracked.masks.values() for id_ in found}
    never = [target for target in sequence.targets if target.id not in followed] if followed else []
    rows: list[Row] = []
    classes: list[ClassRow] = []
    for frame, found in sorted(tracked.masks.items()):
        truth = sequence.truth(frame)
        if truth is None:
            continue
        unknown = sequence.unknown(frame)
        targets = [target for target in sequence.targets if target.id in found]
        pairs = dict(_pairs(sequence, frame, [*targets, *never], truth, found, (height, width)))
        for target in (target for target in targets if target.id not in unknown):
            made = clicks.get((frame, target.id), 0)
            rows.append(_row(sequence, tracked, frame, target, pairs[target.id], tolerance, made))
        there = (*targets, *never)
        without = {o.category for o in there if o.id in unknown or (frame, o.id) in tracked.given} | {""}
        counted = [target for target in there if target.category not in without]
        classes += _class_rows(sequence.name, frame, counted, pairs)
    return rows, classes


def masks_of(sequence: Sequence, tracked: Tracked) -> Iterator[tuple[int, int, Pair]]:
    """(frame, object, (truth, mask)) of each mask on an annotated frame, bool [H, W], in the order of frames."""
    height, width = sequence.image(0).shape[:2]
    for frame, found in sorted(tracked.masks.items()):
        truth, scored = sequence.truth(frame), found.keys() - sequence.unknown(frame)
        targets = [target for target in sequence.targets if target.id in scored]
        for id_, pair in () if truth is None else _pairs(sequence, frame, targets, truth, found, (height, width)):
            yield frame, id_, pair


def _pairs(
    sequence: Sequence,
    frame: int,
    targets: Iterable[Target],
    truth: Truth,
    found: Mapping[int, Prediction],
    size: tuple[int, int],
) -> Iterator[tuple[int, Pair]]:
    """(id, (truth, mask)) of each object on a frame; the mask is empty if there is none."""
    absent_hw = np.zeros(size, bool)
    for target in targets:
        truth_hw = truth.get(target.id, absent_hw)
        if truth_hw.shape != size:
            who = f"{sequence.name}: frame {frame}, object {target.id}"
            here, there = ("{1}x{0}".format(*shape) for shape in (truth_hw.shape, size))
            raise SourceError(f"{who}: the truth is {here}, the first picture {there}; expected the same size")
        mask_hw = decode_rle(found[target.id].counts, *size) if target.id in found else absent_hw
        yield target.id, (truth_hw, mask_hw)


def _row(
    sequence: Sequence, tracked: Tracked, frame: int, target: Target, pair: Pair, tolerance: float, clicks: int
) -> Row:
    height, width = pair[0].shape
    where = overlap.window(*pair)
    truth_hw, mask_hw = pair[0][where], pair[1][where]
    areas = overlap.areas(truth_hw, mask_hw)
    spacing = sequence.spacing_mm or (1.0, 1.0)
    distances = surface.surface_distances(truth_hw, mask_hw, spacing)
    return Row(
        sequence=sequence.name,
        object=target.id,
        label=target.label,
        category=target.category,
        frame=frame,
        given=(frame, target.id) in tracked.given,
        pixels=height * width,
        truth_area=areas[0],
        mask_area=areas[1],
        overlap_area=areas[2],
        score=tracked.masks[frame][target.id].score,
        dice=overlap.dice(*areas),
        iou=overlap.iou(*areas),
        boundary=boundary.boundary_f(truth_hw, mask_hw, boundary.tolerance_px(height, width)),
        hd95=None if distances is None else surface.hd95(*distances),
        surface=surface.surface_dice_of(areas[:2], distances, tolerance),
        clicks=clicks,
    )


def _class_rows(name: str, frame: int, targets: Iterable[Target], pairs: Mapping[int, Pair]) -> Iterator[ClassRow]:
    """The areas of each class: of the union of its objects' truths, and of the union of their masks."""
    of_class: dict[str, list[Pair]] = {}
    for target in targets:
        of_class.setdefault(target.category, []).append(pairs[target.id])
    for category, several in of_class.items():
        truth_hw, mask_hw = (np.logical_or.reduce(masks) for masks in zip(*several, strict=True))
        areas = overlap.areas(truth_hw, mask_hw)
        if areas[0] or areas[1]:
            yield ClassRow(name, frame, category, *areas)
