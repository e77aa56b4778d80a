"""What `segment` wrote, as a data set: the frames that it saw, whatever the container says, and its masks on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtseg.base.errors import SourceError
from rtseg.data import frame_reader, open_dataset
from rtseg.data.dataset import Sequence
from rtseg.data.segment_result import SegmentResult
from tests.data.test_readers_moving import number_of, record, write_map


def result(folder: Path, source: Any, count: int, images: list[dict[str, Any]] | None = None, **said: Any) -> Path:
    """A result folder with a mask of object 3 on each frame."""
    images = images or [{"id": t, "file_name": f"{t:05d}.jpg", "mask_file": f"masks/{t:05d}.png"} for t in range(count)]
    for image in images:
        write_map(folder / "masks" / Path(image.get("mask_file", image["file_name"])).name, 3)
    (folder / "masks.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    (folder / "run.json").write_text(json.dumps({"source": source, "frames": {"shown": count}, **said}))
    return folder


def one(folder: Path) -> Sequence:
    (sequence,) = open_dataset(folder).sequences
    return sequence


def test_the_count_is_what_segment_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what the container says: its edit list, a damaged part, or an early end may hide frames."""
    clip = record(tmp_path / "clip.mp4", 8)
    sequence = one(result(tmp_path / "out", str(clip), 5))
    assert sequence.count == 5 and [number_of(sequence.image(t)) for t in range(5)] == list(range(5))
    assert list(sequence.truth(4) or {}) == [3] and sequence.truth(5) is None
    (tmp_path / "out/run.json").write_text(json.dumps({"source": str(clip)}))  # as older ones are
    assert one(tmp_path / "out").count == 8


def test_the_source_is_read_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, dict[str, Any]]] = []
    original = frame_reader.open_source

    def spy(uri: Any, **how: Any) -> Any:
        asked.append((uri, how))
        return original(uri)

    monkeypatch.setattr(frame_reader, "open_source", spy)
    clip = record(tmp_path / "clip.mp4", 3)
    reading = {"fps": None, "deinterlace": "auto", "damaged": "stop", "bits": None}
    number_of(one(result(tmp_path / "out", str(clip), 3, reading=reading)).image(0))
    assert asked == [(str(clip), {"deinterlace": "auto", "damaged": "stop"})]
    asked.clear()
    number_of(
        one(
            result(tmp_path / "plain", str(clip), 3, reading={**reading, "deinterlace": None, "damaged": "skip"})
        ).image(0)
    )
    assert asked == [(str(clip), {})]


def test_files_that_are_one_recording(tmp_path: Path) -> None:
    clips = [record(tmp_path / f"{name}.mp4", 2) for name in ("a", "b")]
    found = SegmentResult(result(tmp_path / "out", [str(clip) for clip in clips], 4)).video()
    assert found is not None and found.uris == tuple(map(str, clips)) and str(found).endswith("a.mp4 and 1 more")
    clips[1].unlink()
    assert SegmentResult(tmp_path / "out").video() is None


def test_masks_by_names(tmp_path: Path) -> None:
    """Of a folder whose names are numbers, but not those of its frames: 0005 is frame 1."""
    images = []
    for t, name in enumerate(("0001", "0005", "0009")):
        (tmp_path / "clip").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"clip/{name}.jpg"), np.full((32, 48, 3), 20 + 10 * t, np.uint8))
        images.append({"id": t, "file_name": f"{name}.jpg", "mask_file": f"masks/{name}.png"})
    out = result(tmp_path / "out", str(tmp_path / "clip"), 3, images)
    (out / "masks/0005.png").unlink()  # somebody threw a bad mask away: that frame is not annotated
    sequence = one(out)
    assert sequence.count == 3 and sequence.truth(1) is None
    assert all(list(sequence.truth(t) or {}) == [3] for t in (0, 2))
    assert [number_of(sequence.image(t)) for t in range(3)] == [0, 1, 2]


def test_older_results_name_the_mask_and_have_empty_annotations(tmp_path: Path) -> None:
    clip = record(tmp_path / "clip.mp4", 2)
    images = [{"id": t, "file_name": f"masks/{t:05d}.png"} for t in range(2)]
    out = result(tmp_path / "out", str(clip), 2, images)
    empty = {"id": 1, "image_id": 0, "category_id": 3, "area": 0, "bbox": [0, 0, 0, 0], "segmentation": {}}
    (out / "masks.json").write_text(json.dumps({"images": images, "annotations": [empty]}))
    assert [list(one(out).truth(t) or {}) for t in range(2)] == [[3], [3]]


def test_pictures_stand_for_a_source_that_cannot_be_read_again(tmp_path: Path) -> None:
    out = result(tmp_path / "out", "-", 2)
    with pytest.raises(SourceError, match="its source '-' is not found; copy it next to out/, or .* with --frames"):
        open_dataset(out)
    (out / "frames").mkdir()
    for t in range(2):
        cv2.imwrite(str(out / f"frames/{t:05d}.jpg"), np.full((32, 48, 3), 20 + 10 * t, np.uint8))
    sequence = one(out)
    assert sequence.count == 2 and [number_of(sequence.image(t)) for t in range(2)] == [0, 1]
    assert list(sequence.truth(1) or {}) == [3]


def test_another_file_of_that_name_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip = record(tmp_path / "clip.mp4", 3)
    file = {"uri": "clip.mp4", "path": str(clip), "bytes": clip.stat().st_size}
    out = result(tmp_path / "results/out", "clip.mp4", 3, files=[file])
    assert one(out).count == 3
    clip.rename(tmp_path / "results/clip.mp4")
    record(tmp_path / "clip.mp4", 9)
    video = SegmentResult(out).video()
    assert video is not None and video.uris == (str(tmp_path / "results/clip.mp4"),)  # beside it, and of that size
    (tmp_path / "results/clip.mp4").unlink()
    with pytest.raises(SourceError, match="clip.mp4: has .* bytes; expected the segmented file of"):
        open_dataset(out)


def test_a_video_that_is_shorter_than_it_says_is_told_with_its_account(tmp_path: Path) -> None:
    plays, clip = frame_reader.FrameReader(), record(tmp_path / "clip.mp4", 3)
    plays.image(clip, 2)
    assert plays._source is not None
    plays._source.account.ended = "the sender hung up"
    with pytest.raises(SourceError, match=r"ends after 3 frames .ended early: the sender hung up.; expected a frame 3"):
        plays.image(clip, 3)
    plays.close()
    plays.close()
