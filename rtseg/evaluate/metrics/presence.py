"""Figures for an object that leaves the picture and returns: masks meanwhile, and how soon it is found again."""

from __future__ import annotations

from collections.abc import Sequence

from ..result import Row

MIN_ABSENCE = 3  # annotated frames; one or two may be a mistake of the annotator
FOUND_IOU = 0.5
SOON_FRAMES = 10


def found_soon(time: int | None) -> bool:
    """Whether a return was found within `SOON_FRAMES`."""
    return time is not None and time <= SOON_FRAMES


def false_areas(rows: Sequence[Row]) -> list[float]:
    """The share of the frame that the mask covers, for each frame on which the object is absent."""
    return [row.mask_area / row.pixels for row in rows if not row.truth_area and not row.given]


def misses(rows: Sequence[Row]) -> list[bool]:
    """Whether the mask is empty, for each frame on which the object is visible; HD95 does not include these frames."""
    return [not row.mask_area for row in rows if row.truth_area and not row.given]


def reacquisition(rows: Sequence[Row]) -> list[int | None]:
    """For each return of an object, the frames of video until its mask has an IoU of 0.5 or more; 0 means at once.

    `rows` are those of one object in the order of frames. A return follows an absence of `MIN_ABSENCE` annotated frames
    or more. None: not found before the object left again, a prompt or a click helped, or the video ended. A return does
    not count if a prompt or a click helps on its first frame.
    """
    times: list[int | None] = []
    absent, since = 0, None  # annotated frames of absence; the frame of a return that is not found yet
    for row in rows:
        helped = row.given or row.clicks > 0
        if since is None and row.truth_area and absent >= MIN_ABSENCE and not helped:
            since = row.frame
            times.append(None)
        if since is not None:
            if helped or not row.truth_area:
                since = None
            elif row.iou >= FOUND_IOU:
                times[-1], since = row.frame - since, None
        absent = 0 if row.truth_area else absent + 1
    return times
