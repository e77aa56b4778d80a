"""`cvat`: CVAT for video 1.1, in two files, because CVAT's tracks are boxes and polygons and never masks.

    masks.xml      the exact masks, one for each object and frame. CVAT imports each as a shape of its own: it takes the
                   first mask of a track and drops the others. The masks of an object have one group
    tracks.xml     a track for each object, with a polygon on every frame on which it is seen
    loss.json      what the polygons lose

Frames are counted from 0, as they are shown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from ...base.colors import color_of
from ...base.rle import filled_polygon
from .polygons import Loss, edge_rings, joined
from .runs import row_runs
from .segmented_video import SeenObject, SegmentedVideo
from .spool import Spool, spool


def write(video: SegmentedVideo, folder: Path) -> list[str]:
    """Write `masks.xml` and `tracks.xml`."""
    loss = Loss()
    labels = {each.id: quoteattr(each.label) for each in video.objects}
    with spool(folder) as texts, (folder / "masks.xml").open("wb") as masks:
        masks.write(_head(video))
        tracks = _Tracks(texts, loss)
        number = 0
        for frame in video.frames():
            for each in frame.seen:
                opening = f'<track id="{number}" label={labels[each.id]} source="rtseg" group_id="{each.id}">'
                masks.write(f"{opening}\n{_mask(each, frame.index)}\n</track>\n".encode())
                number += 1
            tracks.add(frame.index, frame.seen)
        masks.write(b"</annotations>\n")
        with (folder / "tracks.xml").open("wb") as out:
            _join(video, texts, out, labels)
    (folder / "loss.json").write_text(json.dumps(loss.plain(), indent=2) + "\n", "utf-8")
    return [f"tracks.xml: {loss.line()}; masks.xml is exact"]


class _Tracks:
    """The polygons of each object, with an end after the last frame on which it was seen."""

    def __init__(self, texts: Spool, loss: Loss) -> None:
        self._texts, self._loss = texts, loss
        self._last: dict[int, str] = {}  # the points of the objects that were on the frame before

    def add(self, index: int, seen: tuple[SeenObject, ...]) -> None:
        for gone in self._last.keys() - {each.id for each in seen}:
            self._texts.add(_polygon(index, self._last.pop(gone), outside=1), gone)
        for each in seen:
            crop_hw = each.crop()
            rings = edge_rings(crop_hw)
            line = joined(rings)
            filled_hw = filled_polygon(line, *crop_hw.shape)
            self._loss.add(crop_hw, filled_hw, len(rings), f"frame {index}, object {each.id}")
            points = ";".join(f"{x},{y}" for x, y in (line + np.array(each.box[:2])).tolist())
            self._last[each.id] = points
            self._texts.add(_polygon(index, points, outside=0), each.id)


def _polygon(index: int, points: str, outside: int) -> str:
    state = f'frame="{index}" keyframe="1" outside="{outside}" occluded="0"'
    return f'<polygon {state} points="{points}" z_order="0"></polygon>\n'


def _mask(seen: SeenObject, index: int) -> str:
    x0, y0, x1, y1 = seen.box
    runs = ", ".join(map(str, row_runs(seen.crop()).tolist()))
    place = f'left="{x0}" top="{y0}" width="{x1 - x0}" height="{y1 - y0}"'
    return f'<mask frame="{index}" keyframe="1" outside="0" occluded="0" rle="{runs}" {place} z_order="0"></mask>'


def _head(video: SegmentedVideo) -> bytes:
    colors = {each.label: color_of(each.id) for each in reversed(video.objects)}
    labels = "".join(
        f"<label><name>{_text(name)}</name><color>#{bytes(colors[name]).hex()}</color><attributes></attributes></label>"
        for name in video.classes
    )
    size = f"<width>{video.width}</width><height>{video.height}</height>"
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task>'
        f"<name>{_text(video.source)}</name><size>{video.count}</size><mode>interpolation</mode><overlap>0</overlap>"
        f"<start_frame>0</start_frame><stop_frame>{video.count - 1}</stop_frame><frame_filter></frame_filter>"
        f"<labels>{labels}</labels><original_size>{size}</original_size></task></meta>\n"
    ).encode()


def _text(text: str) -> str:
    return escape(text, {'"': "&quot;"})


def _join(video: SegmentedVideo, texts: Spool, out: BinaryIO, labels: dict[int, str]) -> None:
    out.write(_head(video))
    for number, each in enumerate(each for each in video.objects if texts.has(each.id)):
        out.write(f'<track id="{number}" label={labels[each.id]} source="rtseg">\n'.encode())
        texts.copy(out, each.id)
        out.write(b"</track>\n")
    out.write(b"</annotations>\n")
