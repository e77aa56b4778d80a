"""An object that leaves the picture and comes back: what is drawn meanwhile, and how soon it is found again."""

from __future__ import annotations

from collections.abc import Sequence

from ..result import Row

MIN_ABSENCE = 3  # annotated frames; of one or two nobody knows whether the object left or the annotator blinked
FOUND_IOU = 0.5
SOON_FRAMES = 10


def found_soon(time: int | None) -> bool:
    """Whether a return was found within `SOON_FRAMES`."""
    return time is not None and time <= SOON_FRAMES


def false_areas(rows: Sequence[Row]) -> list[float]:
    """The share of the frame that the mask takes, for each frame on which the object is absent."""
    return [row.mask_area / row.pixels for row in rows if not row.truth_area and not row.given]


def misses(rows: Sequence[Row]) -> list[bool]:
    """Whether nothing is drawn, for each frame on which the object is visible: HD95 knows nothing of these."""
    return [not row.mask_area for row in rows if row.truth_area and not row.given]


def reacquisition(rows: Sequence[Row]) -> list[int | None]:
    """For each return of an object, the frames of video until its mask has an IoU of 0.5 with it: 0 is at once.

    `rows` are those of one object in the order of frames. A return follows an absence of `MIN_ABSENCE` annotated frames
    or more. None: not found before it left again, before a prompt or a click helped, or before the video ended. Where
    one helps on the very frame of the return, nothing is asked of the network, and it does not count.
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
