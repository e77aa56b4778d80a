"""`label-studio`: predictions to import into Label Studio, in two kinds of tasks, because its videos have only boxes.

    video.json, video.xml            one task with the recording: the box of each object on every frame
    frames-00000.json, frames.xml    a task for each frame: the exact masks, as brush labels in Label Studio's RLE
    ...                              in files of at most `AT_ONCE` frames, named by the first

The .xml files are the labelling configurations of the two projects. Videos and frames are named as local files:
set LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT to the folder that has the recording and `frames/`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from ...base.colors import color_of
from .runs import Runs, row_runs
from .segmented_video import SeenObject, SegmentedFrame, SegmentedVideo
from .spool import Spool, spool

AT_ONCE = 500  # frames a file: a file of much more than 100 MB is refused by Label Studio
LOCAL = "/data/local-files/?d="
# Label Studio's RLE: a run's length is written with 3, 4, 8 or 16 bits.
LENGTH_BITS = (3, 4, 8, 16)
LONGEST = 1 << LENGTH_BITS[-1]


def write(video: SegmentedVideo, folder: Path) -> list[str]:
    """Write the tasks and the configurations."""
    labels = "".join(
        f'    <Label value={quoteattr(name)} background="#{bytes(color).hex()}"/>\n'
        for name, color in {each.label: color_of(each.id) for each in reversed(video.objects)}.items()
    )
    (folder / "video.xml").write_text(VIDEO_XML.format(labels=labels), "utf-8")
    (folder / "frames.xml").write_text(FRAMES_XML.format(labels=labels), "utf-8")
    with spool(folder) as texts:
        boxes, tasks = _Boxes(video, texts), _Tasks(video, folder)
        for frame in video.frames():
            boxes.add(frame)
            tasks.add(frame)
        tasks.close()
        boxes.join(folder / "video.json")
    return ["a video has boxes only, because Label Studio has no masks on videos; the frames have the exact masks"]


class _Tasks:
    """The tasks of the frames, one line each, in files of `AT_ONCE`."""

    def __init__(self, video: SegmentedVideo, folder: Path) -> None:
        self._folder, self._labels = folder, {each.id: each.label for each in video.objects}
        self._model = _model(video)
        self._path: Path | None = None

    def add(self, frame: SegmentedFrame) -> None:
        if frame.index % AT_ONCE == 0:
            self.close()
            self._path = self._folder / f"frames-{frame.index:06d}.json"
            self._path.write_text("[\n", "ascii")
        regions = [_brush(each, self._labels[each.id], frame.index) for each in frame.seen]
        data = {"image": f"{LOCAL}frames/{frame.file_name}", "frame": frame.seq, "seconds": frame.seconds}
        task = {"data": data, "predictions": [{"model_version": self._model, "result": regions}]}
        self._append(f"{',' if frame.index % AT_ONCE else ''}{json.dumps(task)}\n")

    def _append(self, text: str) -> None:
        if self._path:
            with self._path.open("a", encoding="ascii") as file:
                file.write(text)

    def close(self) -> None:
        self._append("]\n")


def _model(video: SegmentedVideo) -> str:
    return f"rtseg {video.run.get('versions', {}).get('rtseg', '')}".strip()


def _brush(seen: SeenObject, label: str, index: int) -> dict[str, Any]:
    value = {"format": "rle", "rle": list(_packed(_whole_rows(seen))), "brushlabels": [label]}
    region = _region(f"f{index}o{seen.id}", "brushlabels", "masks", "frame", seen.id)
    size = {"original_width": seen.width, "original_height": seen.height, "image_rotation": 0}
    return {**region, **size, "score": seen.score, "value": value}


def _region(id_: str, kind: str, of: str, to: str, object_id: int) -> dict[str, Any]:
    text = [f"object {object_id}"]
    return {"id": id_, "type": kind, "from_name": of, "to_name": to, "meta": {"text": text}}


def _whole_rows(seen: SeenObject) -> Runs:
    """The run lengths of the whole mask, row by row."""
    x0, y0, x1, y1 = seen.box
    rows_hw = np.zeros((y1 - y0, seen.width), np.bool_)
    rows_hw[:, x0:x1] = seen.crop()
    runs = row_runs(rows_hw)
    before, after = y0 * seen.width, (seen.height - y1) * seen.width
    runs[0] += before
    if runs.size % 2:  # it ends with what is no object
        runs[-1] += after
        return runs
    return np.concatenate([runs, [after]]) if after else runs


def _packed(runs: Runs) -> bytes:
    """Runs in Label Studio's RLE: of a picture with four channels, all of them 255 where the object is, else 0.

    A head of 32 bits (how many values), 5 (bits of a value, less 1) and four times 4 (bits of a length, less 1); then
    for each run a bit that says that it is one, 2 for how many bits its length has, its length less 1, its value.
    """
    bits = [f"{int(runs.sum()) * 4:032b}{7:05b}", *(f"{size - 1:04b}" for size in LENGTH_BITS)]
    for i, run in enumerate((runs * 4).tolist()):
        value = "1" * 8 if i % 2 else "0" * 8
        while run:
            part = min(run, LONGEST)
            which = next(n for n, size in enumerate(LENGTH_BITS) if part <= 1 << size)
            bits.append(f"1{which:02b}{part - 1:0{LENGTH_BITS[which]}b}{value}")
            run -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


class _Boxes:
    """The boxes of each object, in percent, and an end after the last frame on which it was seen."""

    def __init__(self, video: SegmentedVideo, texts: Spool) -> None:
        self._video, self._texts = video, texts
        self._last: dict[int, dict[str, float]] = {}
        self._first_s, self._last_s = 0.0, 0.0

    def add(self, frame: SegmentedFrame) -> None:
        if not frame.index:
            self._first_s = frame.seconds
        self._last_s = frame.seconds - self._first_s
        for gone in self._last.keys() - {each.id for each in frame.seen}:
            self._keyframe(gone, frame.index, self._last.pop(gone), False)
        for each in frame.seen:
            x0, y0, x1, y1 = each.box
            across, down = 100 / self._video.width, 100 / self._video.height
            box = {"x": x0 * across, "y": y0 * down, "width": (x1 - x0) * across, "height": (y1 - y0) * down}
            self._last[each.id] = {name: round(value, 4) for name, value in box.items()}
            self._keyframe(each.id, frame.index, self._last[each.id], True)

    def _keyframe(self, id_: int, index: int, box: dict[str, float], enabled: bool) -> None:
        entry = {"frame": index + 1, "enabled": enabled, "rotation": 0, "time": round(self._last_s, 6), **box}
        self._texts.add(f"{',' if self._texts.has(id_) else ''}\n{json.dumps(entry)}", id_)

    def join(self, path: Path) -> None:
        video = self._video
        head = {"data": {"video": f"{LOCAL}{video.source}"}, "predictions": [{"model_version": _model(video)}]}
        with path.open("wb") as out:
            out.write(f'[{json.dumps(head)[:-3]}, "result": ['.encode())
            for i, each in enumerate(each for each in video.objects if self._texts.has(each.id)):
                value = {"framesCount": video.count, "duration": round(self._last_s, 6), "labels": [each.label]}
                region = _region(f"o{each.id}", "videorectangle", "box", "video", each.id)
                text = f'{json.dumps(region)[:-1]}, "value": {json.dumps(value)[:-1]}, "sequence": ['
                out.write(f"{',' if i else ''}\n{text}".encode())
                self._texts.copy(out, each.id)
                out.write(b"]}}")
            out.write(b"]}]}]\n")


VIDEO_XML = """<View>
  <Video name="video" value="$video"/>
  <VideoRectangle name="box" toName="video"/>
  <Labels name="labels" toName="video">
{labels}  </Labels>
</View>
"""
FRAMES_XML = """<View>
  <Image name="frame" value="$image"/>
  <BrushLabels name="masks" toName="frame">
{labels}  </BrushLabels>
</View>
"""
