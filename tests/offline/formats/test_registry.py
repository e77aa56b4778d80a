"""Formats are whole or not there; what cannot work is one line; a long result takes no more memory than a short one."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from rtseg.base.errors import ConfigError, OutputError, RtsegError
from rtseg.cli import main
from rtseg.offline.formats import FORMATS, registry, spool, write_formats
from rtseg.offline.formats.segmented_video import open_result

from .conftest import COUNT, Known, build


@pytest.fixture
def copy(known: Known, tmp_path: Path) -> Path:
    shutil.copytree(known.folder, tmp_path / "op", ignore=shutil.ignore_patterns("formats"))
    return tmp_path / "op"


def line_of(folder: Path, *names: str) -> str:
    """The one line of the refusal, after which nothing is there."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(RtsegError) as caught:
        write_formats(folder, names)
    assert "\n" not in str(caught.value) and sorted(folder.rglob("*")) == before
    return str(caught.value)


def test_what_is_no_result_is_one_line(copy: Path, tmp_path: Path) -> None:
    assert "no such folder" in line_of(tmp_path / "nothing", "yolo")
    assert "there is no masks.json with a run.json in it; expected the folder that rtseg segment wrote" in line_of(
        copy / "masks", "yolo"
    )
    assert line_of(copy, "yolov") == "format 'yolov' is unknown; did you mean 'yolo'?"
    assert "expected one or more of: coco-video, yolo" in line_of(copy)
    run = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(run | {"complete": False, "ended": "the disk\nis full"}))
    assert "is incomplete (the disk is full)" in line_of(copy, "yolo")
    assert [path.name for path in write_formats(copy, ["csv"], incomplete=True)] == ["csv"]
    shutil.rmtree(copy / "formats")
    (copy / "run.json").write_text("[]")
    assert "run.json: not a map" in line_of(copy, "yolo")


def test_a_missing_library_is_named_before_anything_is_written(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    line = line_of(copy, "yolo", "zarr")
    assert line == "format 'zarr' needs zarr, which is not installed: pip install 'rtseg[formats]'"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"counts": "', '"counts": "~'),
        ('"image_id": 3', '"image_id": 30'),
        ('"bbox"', '"box"'),
        ('{"id": 5, "file_name"', '{"id": 5 "file_name"'),
        ('"images": [', '"pictures": ['),
    ],
)
def test_damaged_masks_are_one_line_and_leave_the_earlier_format(copy: Path, old: str, new: str) -> None:
    write_formats(copy, ["cvat"])
    before = (copy / "formats/cvat/masks.xml").read_bytes()
    text = (copy / "masks.json").read_text()
    assert old in text
    (copy / "masks.json").write_text(text.replace(old, new))
    with pytest.raises((OutputError, ConfigError), match=r"masks") as caught:
        write_formats(copy, ["cvat", "csv"])
    assert ("\n" not in str(caught.value) and "segment again" in str(caught.value)) or "RLE" in str(caught.value)
    assert [path.name for path in (copy / "formats").iterdir()] == ["cvat"]
    assert (copy / "formats/cvat/masks.xml").read_bytes() == before


def test_a_missing_mask_file_is_one_line(copy: Path) -> None:
    (copy / "masks/00003.png").unlink()
    assert "masks/00003.png: cannot be read" in line_of(copy, "npz")


def test_the_verb_writes_and_says_what_is_lost(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(copy), "--to", "yolo", "csv", "--json"]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out.splitlines()[-1])
    assert document["formats"] == {name: str(copy / "formats" / name) for name in ("yolo", "csv")}
    assert "yolo: 30 masks as polygons" in shown.err and document["notes"][0] in shown.err
    assert main(["export", str(copy), "--to", "coco"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "rtseg export: format 'coco' is unknown; did you mean 'coco-video'?"
    )


def test_every_format_is_written_anew_with_the_same_bytes(copy: Path) -> None:
    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in (copy / "formats").rglob("*") if path.suffix != ".npz"
                and path.is_file()}  # fmt: skip

    names = [name for name, each in FORMATS.items() if name not in ("dicom-seg", "nifti")]
    done: list[tuple[int, int | None]] = []
    write_formats(copy, names, progress=lambda i, n: done.append((i, n)))
    assert done == [(i + 1, COUNT) for _ in names for i in range(COUNT)]
    first = contents()
    write_formats(copy, names)
    assert contents() == first and len(first) > len(names)
    assert sorted(path.name for path in (copy / "formats").iterdir()) == sorted(names)


def test_the_frames_of_a_long_result_are_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "AT_ONCE", 2000)
    noise_thw = np.random.default_rng(0).random((240, 30, 30)) > 0.5

    def peak(frames: int) -> tuple[int, int]:
        folder = build(tmp_path / f"of {frames}", frames, lambda t: {1: noise_thw[t], 2: ~noise_thw[t]}).folder
        names = ["coco-video", "supervision"]
        write_formats(folder, names)  # what is imported once
        tracemalloc.start()
        write_formats(folder, names)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most, (folder / "masks.json").stat().st_size

    (few, small), (many, large) = peak(60), peak(240)
    assert large > 2.8 * small
    assert many < few + 0.1 * (large - small), (few, many)


def test_a_result_of_an_earlier_version_opens(copy: Path) -> None:
    """Without labels and IoU, and with empty annotations."""
    text = (copy / "masks.json").read_text()
    document = json.loads(text)
    for category in document["categories"]:
        del category["label"]
    lines = text.splitlines(keepends=True)
    for i, line in enumerate(lines):
        if '"category_id"' in line:
            lines[i] = line.replace('"iou"', '"old"')
        if '"mask_file"' in line:
            lines[i] = line.replace('"file_name"', '"old"').replace('"mask_file"', '"file_name"')
    lines[-1] = f'"categories": {json.dumps(document["categories"])}}}\n'
    (copy / "masks.json").write_text("".join(lines))
    video = open_result(copy)
    assert video.classes == ("grasper 1", "grasper 2", 'tissue "<&>" ß')
    assert [(frame.file_name, frame.mask_file) for frame in video.frames()][1] == ("00001.jpg", "masks/00001.png")
    assert {each.iou for frame in video.frames() for each in frame.seen} == {None}
