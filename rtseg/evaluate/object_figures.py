"""The figures of each object of an evaluation, from its rows on the frames where no prompt gave the mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from .blocks import Ends
from .metrics import presence
from .metrics.overlap import dice
from .result import Result, Row, VolumeRow

Tracks = Mapping[tuple[str, int], Sequence[Row]]  # by sequence and object

EFFORT = ("clicks", "corrected")
# Figures of objects, in the order in which they are shown.
BY_OBJECT = (
    "volume_dice", "volume_hd95", "volume_surface",
    "jf", "iou", "boundary", "dice", "hd95", "missed", "surface", "false_area", "false_frames", *EFFORT
)  # fmt: skip
ASSISTED = ("interactive",)  # protocols that correct masks by clicks, which are counted as cost
TIMELESS = ("backward", "both")  # protocols that also track backward in time, so that re-acquisition is not defined


@dataclass(frozen=True, slots=True)
class ObjectFigures:
    """The figures of one object of one sequence; a figure is None if no frame defines it.

    - `frames`: the number of frames that are scored.
    - `volume_dice`: Dice in three dimensions, over all scored slices together; None if the sequence is not a volume.
    - `volume_hd95`, `volume_surface`: distances in three dimensions, if the voxel size is known. `hd95` and `surface`
      of a volume are means over slices.
    - `jf`: the mean of `iou` (J) and `boundary` (F).
    - `missed`: the share of frames with the object on which its mask is empty. These frames do not enter `hd95`, and
      have `surface` 0.
    - `false_area`: the mean share of the frame that the mask covers while the object is absent; `false_frames`: the
      share of those frames with a mask that is not empty.
    - `clicks`: all clicks on the object; `corrected`: the frames with clicks after the first prompt. They are the cost
      of the other figures in `ASSISTED` protocols; None in others.
    - `returns`: the times of re-acquisition in frames, None for a return that was missed; empty in `TIMELESS`
      protocols.
    - `intervals`: intervals within this video, of the figures that are means over its frames.
    """

    sequence: str
    object: int
    label: str
    category: str
    frames: int
    volume_dice: float | None
    volume_hd95: float | None
    volume_surface: float | None
    jf: float | None
    iou: float | None
    boundary: float | None
    dice: float | None
    hd95: float | None
    missed: float | None
    surface: float | None
    false_area: float | None
    false_frames: float | None
    clicks: int | None
    corrected: int | None
    returns: tuple[int | None, ...]
    intervals: dict[str, Ends] = field(default_factory=dict)


def object_figures(result: Result) -> list[ObjectFigures]:
    """The figures of each object, in the order in which objects appear; its rows are in the order of frames."""
    volumes = {name for name, tracked in result.tracked.items() if tracked.volume}
    protocol = result.settings.get("protocol")
    whole = {(row.sequence, row.object): row for row in result.volumes}
    return [_object(its, protocol, key[0] in volumes, whole.get(key)) for key, its in tracks_of(result).items()]


def tracks_of(result: Result) -> Tracks:
    """The rows of each object, in the order in which objects appear."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in result.rows:
        found.setdefault((row.sequence, row.object), []).append(row)
    return found


def _object(rows: Sequence[Row], protocol: str | None, volume: bool, whole: VolumeRow | None) -> ObjectFigures:
    assisted = protocol in ASSISTED
    scored = [row for row in rows if not row.given]
    areas = presence.false_areas(rows)
    iou, boundary = (_mean(getattr(row, name) for row in scored) for name in ("iou", "boundary"))
    return ObjectFigures(
        sequence=rows[0].sequence,
        object=rows[0].object,
        label=rows[0].label,
        category=rows[0].category,
        frames=len(scored),
        volume_dice=_volume_dice(scored) if volume else None,
        volume_hd95=None if whole is None else whole.hd95,
        volume_surface=None if whole is None else whole.surface,
        jf=None if iou is None or boundary is None else (iou + boundary) / 2,
        iou=iou,
        boundary=boundary,
        dice=_mean(row.dice for row in scored),
        hd95=_mean(row.hd95 for row in scored),
        surface=_mean(row.surface for row in scored),
        missed=_mean(presence.misses(rows)),
        false_area=_mean(areas),
        false_frames=_mean(area > 0 for area in areas),
        clicks=sum(row.clicks for row in rows) if assisted else None,
        corrected=sum(row.clicks > 0 for row in rows[1:]) if assisted else None,  # the first row is the first prompt's
        returns=() if protocol in TIMELESS else tuple(presence.reacquisition(rows)),
    )


def _volume_dice(rows: Sequence[Row]) -> float | None:
    """The Dice of all slices together; None without slices."""
    areas = [(row.truth_area, row.mask_area, row.overlap_area) for row in rows]
    return dice(*map(sum, zip(*areas, strict=True))) if areas else None


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None; None without any."""
    there = [value for value in values if value is not None]
    return fmean(there) if there else None
