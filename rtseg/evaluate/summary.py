"""The figures of an evaluation, for each object, sequence and class and for all, each with its interval.

An object's figure is the mean over its annotated frames, without those whose mask a prompt gave. The volume Dice is
computed from the areas of all slices together. The figure of a sequence, of a class and of all is the mean over their
objects, each with the same weight, as in DAVIS (which leaves out the last frame of a sequence as well as the first).
There are two exceptions: the IoUs of instruments are means over frames or classes (`metrics/instruments.py`), and
re-acquisition is over returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from . import blocks, bootstrap, frame_terms
from .blocks import Ends, Part
from .bootstrap import Figure, Values
from .metrics import instruments, presence
from .object_figures import BY_OBJECT, ObjectFigures, Tracks, object_figures, tracks_of
from .paired import paired
from .result import ClassRow, Result

GroupOf = Callable[[str], str]  # of a sequence


@dataclass(frozen=True, slots=True)
class Speed:
    """The number of tracked frames, and the frame rate if each took the median time, or the p95."""

    steps: int
    median_ms: float
    p95_ms: float
    median_fps: float
    p95_fps: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures by name, of those that are defined.

    They are the figures of `ObjectFigures`, as means over objects; `challenge_iou`, `isi_iou` and `mc_iou`, for one
    class its IoU on the frames of each kind; `reacquired`, the share of returns found within 10 frames; and
    `reacquisition_frames`, the median over all returns, which has no interval, and is missing if half of the returns
    were missed. `intervals` describes the method: over videos (`bootstrap`), or within a few videos (`blocks`).
    """

    overall: dict[str, Figure]
    sequences: dict[str, dict[str, Figure]]
    classes: dict[str, dict[str, Figure]]
    objects: list[ObjectFigures]
    speed: Speed | None
    intervals: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarise(result: Result) -> Summary:
    """All figures of an evaluation. They are reproducible, intervals included."""
    objects, tracks = object_figures(result), tracks_of(result)

    def figures(objects: Sequence[ObjectFigures], classes: Sequence[ClassRow]) -> dict[str, Figure]:
        found = _figures(objects, classes, result.group)
        return {
            name: figure if figure.scope else frame_terms.with_interval(figure, _frames(name, objects, classes, tracks))
            for name, figure in found.items()
        }

    groups = len({result.group(o.sequence) for o in objects})
    return Summary(
        overall=figures(objects, result.classes),
        sequences={name: figures(*its) for name, its in _split("sequence", objects, result.classes).items()},
        classes={name: figures(*its) for name, its in _split("category", objects, result.classes).items()},
        objects=[replace(o, intervals=_intervals(o, tracks)) for o in objects],
        speed=_speed([ms for tracked in result.tracked.values() for ms in tracked.ms]),
        intervals={**bootstrap.METHOD, "groups": groups, "within": dict(blocks.METHOD)},
    )


def overall(result: Result) -> dict[str, float]:
    """The values of `Summary.overall`."""
    return {
        name: figure.value for name, figure in _figures(object_figures(result), result.classes, result.group).items()
    }


def difference(before: Result, after: Result) -> dict[str, Figure]:
    """How much larger each overall figure is in `after`, over the objects, frames and classes that both have.

    Frames whose mask a prompt gave in either run are left out, and so are frames without HD95 in either, for HD95: see
    `paired`, which also names the error. Intervals are paired: both runs are resampled together, so variation that they
    share does not widen them.
    """
    return difference_of_pair(*paired(before, after))


def difference_of_pair(before: Result, after: Result) -> dict[str, Figure]:
    """`difference` of two results that `paired` has aligned, or of the same part of both."""
    objects, others = _both_defined(object_figures(before), object_figures(after))
    parts, other_parts = _parts(objects, before.classes, before.group), _parts(others, after.classes, before.group)
    figures = {name: bootstrap.difference(parts[name], other_parts[name]) for name in parts}
    tracks, other_tracks = tracks_of(before), tracks_of(after)
    first, second = ({before.group(row.sequence) for row in of.classes} for of in (before, after))
    classes, other_classes = (
        [row for row in of.classes if before.group(row.sequence) in first & second] for of in (before, after)
    )

    def within_these(name: str, figure: Figure) -> Figure:
        frames = _frames(name, objects, classes, tracks), _frames(name, others, other_classes, other_tracks)
        return frame_terms.with_interval(figure, *frames)

    there = {name: figure for name, figure in figures.items() if figure}
    return {name: figure if figure.scope else within_these(name, figure) for name, figure in there.items()}


def _parts(objects: Sequence[ObjectFigures], classes: Sequence[ClassRow], group: GroupOf) -> dict[str, list[Values]]:
    """The parts of each figure, whose means it is the mean of, each as values by group."""
    pairs = {name: [[(o.sequence, getattr(o, name)) for o in objects]] for name in BY_OBJECT}
    soon = [(o.sequence, float(presence.found_soon(time))) for o in objects for time in o.returns]
    by_frame = {
        "challenge_iou": [instruments.challenge_by_frame(classes)],
        "isi_iou": [instruments.isi_by_frame(classes)],
        "mc_iou": list(instruments.by_class(classes).values()),
    }
    for name, several in by_frame.items():
        pairs[name] = [[(sequence, iou) for (sequence, _), iou in one.items()] for one in several]
    every = {**pairs, "reacquired": [soon]}
    return {name: [by_group(one, group) for one in several] for name, several in every.items()}


def by_group(pairs: Iterable[tuple[str, float | None]], group: GroupOf) -> Values:
    values: dict[str, list[float]] = {}
    for sequence, value in pairs:
        if value is not None:
            values.setdefault(group(sequence), []).append(value)
    return values


def _figures(objects: Sequence[ObjectFigures], classes: Sequence[ClassRow], group: GroupOf) -> dict[str, Figure]:
    figures = {name: bootstrap.estimate(*parts) for name, parts in _parts(objects, classes, group).items()}
    times = [math.inf if time is None else time for o in objects for time in o.returns]
    if times and math.isfinite(middle := median(times)):
        figures["reacquisition_frames"] = Figure(middle, None, None, len(times))
    return {name: figure for name, figure in figures.items() if figure}


def _frames(name: str, objects: Sequence[ObjectFigures], classes: Sequence[ClassRow], tracks: Tracks) -> list[Part]:
    """The frames' terms of a figure; empty for a figure that is not a mean over frames."""
    if name in frame_terms.CLASSES:
        return frame_terms.class_parts(name, classes)
    its = [o for o in objects if name in frame_terms.TERMS and getattr(o, name) is not None]
    return [frame_terms.object_part(name, tracks[o.sequence, o.object]) for o in its]


def _intervals(o: ObjectFigures, tracks: Tracks) -> dict[str, Ends]:
    found = {name: blocks.interval(_frames(name, [o], [], tracks)) for name in frame_terms.TERMS}
    return {name: ends for name, ends in found.items() if ends is not None}


def _split(
    part: str, objects: Sequence[ObjectFigures], classes: Sequence[ClassRow]
) -> dict[str, tuple[list[ObjectFigures], list[ClassRow]]]:
    """The figures and rows of each sequence, or of each named category."""
    own: dict[str, list[ObjectFigures]] = {}  # without classes of which no object was tracked
    rows: dict[str, list[ClassRow]] = {}
    for figures in objects:
        own.setdefault(getattr(figures, part), []).append(figures)
    for row in classes:
        rows.setdefault(getattr(row, part), []).append(row)
    names = [name for name in dict.fromkeys((*own, *rows)) if name]
    return {name: (own.get(name, []), rows.get(name, [])) for name in names}


def _speed(ms: Sequence[float]) -> Speed | None:
    if not ms:
        return None
    middle, late = (float(v) for v in np.percentile(ms, (50, 95)))
    return Speed(len(ms), middle, late, 1000 / middle, 1000 / late)


def _both_defined(
    objects: Iterable[ObjectFigures], others: Iterable[ObjectFigures]
) -> tuple[list[ObjectFigures], list[ObjectFigures]]:
    """The objects of both runs, without figures that are not defined in one of them."""
    there = {(o.sequence, o.object): o for o in others}
    pairs = [(o, there[o.sequence, o.object]) for o in objects]
    lacking: list[dict[str, Any]] = [
        {name: None for name in BY_OBJECT if None in (getattr(o, name), getattr(p, name))} for o, p in pairs
    ]
    kept = [(replace(o, **none), replace(p, **none)) for (o, p), none in zip(pairs, lacking, strict=True)]
    return [o for o, _ in kept], [p for _, p in kept]
