"""`supervision`: `detections.csv`, the rows that supervision's `CSVSink` writes; and its `Detections`, frame by frame.

Reading the masks needs supervision itself: `read_detections`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...base.errors import ConfigError
from .segmented_video import SegmentedFrame, SegmentedVideo, open_result

if TYPE_CHECKING:
    from supervision import Detections

COLUMNS = ("x_min", "y_min", "x_max", "y_max", "class_id", "confidence", "tracker_id", "class_name", "frame", "seconds")


def write(video: SegmentedVideo, folder: Path) -> list[str]:
    """Write `detections.csv`."""
    about = _about(video)
    with (folder / "detections.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for frame in video.frames():
            for each in frame.seen:
                number, name = about[each.id]
                box = map(float, each.box)
                rows.writerow([*box, number, each.score, each.id, name, frame.seq, frame.seconds])
    return ["the rows have no masks; rtseg.offline.formats.read_detections gives them with masks"]


def read_detections(result: str | Path) -> Iterator[tuple[int, Detections]]:
    """The objects of each frame of a result as supervision's `Detections`, for its annotators, zones and metrics.

    Arguments:
        result: the folder that `rtseg segment` wrote.

    Yields:
        The frame's number in its source, and its `Detections`: boxes (their ends excluded), masks bool [N, H, W],
        confidence (the score), class_id (of the label, from 0), tracker_id (the object's id), `data["class_name"]`.

    Raises:
        ConfigError: supervision is not installed, or the folder is no complete result.
        OutputError: masks.json is damaged.
    """
    try:
        from supervision import Detections
    except ImportError as e:
        raise ConfigError("supervision is not installed: pip install 'rtseg[formats]'") from e
    video = open_result(Path(result))
    about = _about(video)
    for frame in video.frames():
        yield frame.seq, _detections(Detections, video, frame, about)


def _about(video: SegmentedVideo) -> dict[int, tuple[int, str]]:
    """The class of each object, as number and name."""
    return {each.id: (video.classes.index(each.label), each.label) for each in video.objects}


def _detections(
    kind: type[Detections], video: SegmentedVideo, frame: SegmentedFrame, about: dict[int, tuple[int, str]]
) -> Detections:
    shape = len(frame.seen), video.height, video.width
    return kind(
        xyxy=np.array([each.box for each in frame.seen], np.float64).reshape(-1, 4),
        mask=np.array([each.mask() for each in frame.seen], np.bool_).reshape(shape),
        confidence=np.array([each.score for each in frame.seen], np.float64),
        class_id=np.array([about[each.id][0] for each in frame.seen], np.int64),
        tracker_id=np.array([each.id for each in frame.seen], np.int64),
        data={"class_name": np.array([about[each.id][1] for each in frame.seen], np.str_)},
    )
