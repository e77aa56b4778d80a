"""Each format, opened by its own reader, gives the masks of the result; polygons say what they lose."""

from __future__ import annotations

import csv
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

from rtseg.base.types import BoolMask
from rtseg.offline.formats import write_formats

from .conftest import COUNT, CUT, HEIGHT, LABELS, WIDTH, Known, iou, same_masks


def written(known: Known, name: str) -> Path:
    (folder,) = write_formats(known.folder, [name])
    assert folder == known.folder / "formats" / name
    assert not [path for path in folder.rglob("*") if path.name.startswith(".spool")]
    return folder


def test_coco_video_by_the_rules_of_youtube_vis(known: Known) -> None:
    """As its API does: an annotation's mask on frame t is segmentations[t], compressed RLE, or None."""
    document = json.loads((written(known, "coco-video") / "instances.json").read_text())
    (video,) = document["videos"]
    assert (video["length"], len(video["file_names"]), video["height"], video["width"]) == (COUNT, COUNT, HEIGHT, WIDTH)
    names = {category["id"]: category["name"] for category in document["categories"]}
    assert list(names.values()) == ["grasper", LABELS[7]]
    found = {}
    for id_, entry in zip(LABELS, document["annotations"], strict=True):
        assert names[entry["category_id"]] == LABELS[id_]
        assert {len(entry[name]) for name in ("segmentations", "bboxes", "areas")} == {COUNT}
        for t, rle in enumerate(entry["segmentations"]):
            assert (rle is None) == (entry["bboxes"][t] is None) == (entry["areas"][t] is None)
            if rle is not None:
                found[t, id_] = coco.decode(rle)
                assert coco.area(rle) == entry["areas"][t]
                assert coco.toBbox(rle).tolist() == entry["bboxes"][t]
    assert same_masks(found, known)


def _yolo_by_ultralytics(folder: Path) -> dict[tuple[int, int], list[BoolMask]]:
    """Label files as ultralytics reads them: a row with more than 6 numbers is a polygon, its points times the size,
    cut to whole pixels and filled by OpenCV. By frame and class.
    """
    found: dict[tuple[int, int], list[BoolMask]] = {}
    for path in sorted((folder / "labels/train").glob("*.txt")):
        rows = [np.array(line.split(), np.float32) for line in path.read_text().splitlines()]
        assert all(len(row) > 6 and row[1:].min() >= 0 and row[1:].max() <= 1 for row in rows)
        for row in rows:
            points = row[1:].reshape(-1, 2) * np.array([WIDTH, HEIGHT], np.float32)
            filled = np.zeros((HEIGHT, WIDTH), np.uint8)
            cv2.fillPoly(filled, [np.asarray(points, np.int32)], 1)
            found.setdefault((int(path.stem), int(row[0])), []).append(filled.astype(np.bool_))
    return found


def test_yolo_by_the_rules_of_ultralytics(known: Known) -> None:
    lines: list[str] = []
    write_formats(known.folder, ["yolo"], say=lines.append)
    folder = known.folder / "formats/yolo"
    found = _yolo_by_ultralytics(folder)
    ious = []
    for (t, id_), mask_hw in known.truth.items():
        class_, place = (1, 0) if id_ == 7 else (0, id_ - 1)
        ious.append(iou(found[t, class_][place], mask_hw))
        if id_ == 1:
            assert ious[-1] > 0.97  # its hole is left out of it, but for the line that leads there
            assert iou(np.roll(found[t, class_][place], 4, 1), mask_hw) < 0.9
    loss = json.loads((folder / "loss.json").read_text())
    assert loss["masks"] == len(known.truth) == loss["joined"]
    assert loss["iou_mean"] == pytest.approx(np.mean(ious), abs=1e-6)
    assert loss["iou_least"] == pytest.approx(min(ious), abs=1e-6) and min(ious) < 0.99
    assert lines[0].startswith(f"yolo: {len(known.truth)} masks as polygons, IoU with the masks: mean 0.")
    assert (folder / "labels/train/00009.txt").read_text() == ""  # nothing is seen


def test_yolo_of_simple_masks_is_exact_and_supervision_reads_it(tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    from .conftest import build

    def shapes(t: int) -> dict[int, BoolMask]:
        generator = np.random.default_rng(t)
        mask = cv2.GaussianBlur(generator.random((HEIGHT, WIDTH)), (0, 0), 5) > 0.5
        _, parts = cv2.connectedComponents(mask.astype(np.uint8))
        largest = (parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])).astype(np.uint8)
        outer, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        return {1: cv2.drawContours(largest, outer, -1, 1, -1).astype(np.bool_)}  # without holes

    known = build(tmp_path / "op", shapes=shapes)
    frames = known.folder / "frames"
    frames.mkdir()
    for t in range(COUNT):
        cv2.imwrite(str(frames / f"{t:05d}.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    lines: list[str] = []
    (folder,) = write_formats(known.folder, ["yolo"], say=lines.append)
    assert len(lines) == 1 and "mean 1.0000" in lines[0]
    assert same_masks({(t, 1): masks[0] for (t, _), masks in _yolo_by_ultralytics(folder).items()}, known)
    images, labels = folder / "images/train", folder / "labels/train"
    data = sv.DetectionDataset.from_yolo(str(images), str(labels), str(folder / "data.yaml"), force_masks=True)
    assert data.classes == ["grasper"]
    found = {}
    for path, _, detections in data:
        (found[int(Path(path).stem), 1],) = detections.mask
    assert same_masks(found, known)


def _cvat(path: Path) -> list[tuple[str, str, list[Any]]]:
    """Tracks as CVAT's importer reads them: label, group, and the shapes that are key frames."""
    tracks = []
    for track in ElementTree.parse(path).getroot().iter("track"):
        shapes = []
        for shape in track:
            here = shape.attrib
            assert here["keyframe"] == "1" and int(here["z_order"]) == 0
            if shape.tag == "mask":
                left, top, width, height = (int(here[name]) for name in ("left", "top", "width", "height"))
                points: list[Any] = [*map(int, here["rle"].split(",")), left, top, left + width - 1, top + height - 1]
            else:
                points = [float(number) for pair in here["points"].split(";") for number in pair.split(",")]
            shapes.append((int(here["frame"]), here["outside"] == "1", points))
        tracks.append((track.attrib["label"], track.attrib.get("group_id", ""), shapes))
    return tracks


def test_cvat_masks_by_its_importers_rules_and_its_sdk(known: Known) -> None:
    masks = pytest.importorskip("cvat_sdk.masks")
    folder = written(known, "cvat")
    found = {}
    for label, group, shapes in _cvat(folder / "masks.xml"):
        ((t, outside, points),) = shapes  # CVAT takes the first mask of a track, and only that
        assert label == LABELS[int(group)] and not outside
        found[t, int(group)] = masks.decode_mask(points, image_width=WIDTH, image_height=HEIGHT)
        assert points == masks.encode_mask(known.truth[t, int(group)])
    assert same_masks(found, known)


def test_cvat_tracks_end_where_the_object_leaves_and_are_exact_by_area(known: Known) -> None:
    folder = written(known, "cvat")
    root = ElementTree.parse(folder / "tracks.xml").getroot()
    assert [each.text for each in root.findall("meta/task/labels/label/name")] == ["grasper", LABELS[7]]
    assert (root.findtext("version"), root.findtext("meta/task/size")) == ("1.1", str(COUNT))
    found = {}
    for id_, (label, _, shapes) in zip(LABELS, _cvat(folder / "tracks.xml"), strict=True):
        assert label == LABELS[id_]
        for t, outside, points in shapes:
            if not outside:
                found[t, id_] = coco.decode(coco.frPyObjects([points], HEIGHT, WIDTH))[..., 0]
        gone = [t for t in range(1, COUNT) if (t - 1, id_) in known.truth and (t, id_) not in known.truth]
        assert [t for t, outside, _ in shapes if outside] == gone
    assert same_masks(found, known)
    assert json.loads((folder / "loss.json").read_text())["iou_least"] == 1.0


def test_label_studio_by_its_sdk(known: Known) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    folder = written(known, "label-studio")
    tasks = json.loads((folder / "frames-000000.json").read_text())
    found = {}
    for t, task in enumerate(tasks):
        assert task["data"]["image"].endswith(f"frames/{t:05d}.jpg")
        (prediction,) = task["predictions"]
        for region in prediction["result"]:
            id_ = int(region["id"].partition("o")[2])
            assert region["value"]["brushlabels"] == [LABELS[id_]]
            whole = brush.decode_rle(region["value"]["rle"]).reshape(HEIGHT, WIDTH, 4)
            assert (whole == whole[..., :1]).all()
            found[t, id_] = whole[..., 3] == 255
            theirs = brush.decode_rle(brush.mask2rle(known.truth[t, id_].astype(np.uint8) * 255))
            assert np.array_equal(theirs.reshape(HEIGHT, WIDTH, 4), whole)
    assert len(tasks) == COUNT and same_masks(found, known)


def test_label_studio_gets_the_boxes_on_the_video(known: Known) -> None:
    folder = written(known, "label-studio")
    (task,) = json.loads((folder / "video.json").read_text())
    assert task["data"]["video"].endswith("op.mp4")
    for id_, region in zip(LABELS, task["predictions"][0]["result"], strict=True):
        assert region["value"]["framesCount"] == COUNT and region["value"]["labels"] == [LABELS[id_]]
        shown = {each["frame"] - 1: each for each in region["value"]["sequence"] if each["enabled"]}
        assert set(shown) == {t for t, other in known.truth if other == id_}
        rows, columns = known.truth[0, id_].nonzero()
        assert shown[0]["x"] == pytest.approx(columns.min() / WIDTH * 100, abs=1e-3)
        assert shown[0]["height"] == pytest.approx((rows.max() + 1 - rows.min()) / HEIGHT * 100, abs=1e-3)


@pytest.mark.slow
def test_label_studio_finds_the_predictions_to_fit_the_configurations(known: Known) -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface", reason="label-studio-sdk needs xmljson for it")
    folder = written(known, "label-studio")
    for name, tasks in (("frames", "frames-000000.json"), ("video", "video.json")):
        config = interface.LabelInterface((folder / f"{name}.xml").read_text())
        text = (folder / f"{name}.xml").read_text()
        other = interface.LabelInterface(text.replace("grasper", "scissors").replace('"box"', '"other"'))
        for task in json.loads((folder / tasks).read_text()):
            assert not config.validate_prediction(task["predictions"][0], return_errors=True)
            if task["predictions"][0]["result"]:
                assert other.validate_prediction(task["predictions"][0], return_errors=True)


def test_supervision_gets_the_masks_and_the_rows_of_its_own_sink(known: Known, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    from rtseg.offline.formats import read_detections

    folder = written(known, "supervision")
    found = {}
    with sv.CSVSink(str(tmp_path / "theirs.csv")) as sink:
        for seq, detections in read_detections(known.folder):
            assert np.array_equal(detections.xyxy - np.array([0, 0, 1, 1]), sv.mask_to_xyxy(detections.mask))
            assert list(detections.data["class_name"]) == [LABELS[id_] for id_ in detections.tracker_id]
            found |= {(seq, id_): mask for id_, mask in zip(detections.tracker_id, detections.mask, strict=True)}
            sink.append(detections, {"frame": seq, "seconds": known.seconds[seq]})
    assert same_masks(found, known)
    ours, theirs = (list(csv.DictReader(path.open())) for path in (folder / "detections.csv", tmp_path / "theirs.csv"))
    assert ours == theirs and len(ours) == len(known.truth)


def test_npz_and_zarr_have_the_id_maps(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    zarr = pytest.importorskip("zarr")
    from PIL import Image

    from rtseg.offline.formats import npz_volume, zarr_volume

    monkeypatch.setattr(npz_volume, "UNPACKED", 5 * HEIGHT * WIDTH)
    monkeypatch.setattr(zarr_volume, "CHUNK", 5 * HEIGHT * WIDTH)
    monkeypatch.setattr(zarr_volume, "TIMES", 7)
    lines: list[str] = []
    npz, zipped = write_formats(known.folder, ["npz", "zarr"], say=lines.append)
    maps_thw = np.stack([np.array(Image.open(known.folder / f"masks/{t:05d}.png")) for t in range(COUNT)])
    parts = [np.load(path) for path in sorted(npz.iterdir())]
    assert [part["labels"].shape[0] for part in parts] == [5, 5, 2]
    assert np.array_equal(np.concatenate([part["labels"] for part in parts]), maps_thw)
    assert parts[0]["ids"].tolist() == [1, 2, 7] and parts[0]["names"].tolist() == ["grasper 1", "grasper 2", LABELS[7]]
    group = zarr.open_group(str(zipped / "labels.zarr"), mode="r")
    assert group["labels"].chunks == (5, HEIGHT, WIDTH) and np.array_equal(group["labels"][:], maps_thw)
    for read in (np.concatenate([part["seconds"] for part in parts]), group["seconds"][:]):
        assert np.array_equal(read, known.seconds)
    assert group["frames"][:].tolist() == list(range(COUNT)) and group.attrs["objects"][2]["label"] == LABELS[7]
    overlap = sum(map(np.sum, known.truth.values())) - np.count_nonzero(maps_thw)
    assert [line.partition(": ")[2] for line in lines] == [
        f"objects overlap on {COUNT - 1} frames ({overlap} pixels), where a map has one of them"
    ] * 2
    assert not np.array_equal(group["labels"][:-1], maps_thw[1:])


def test_tables_have_what_is_measured_on_the_masks(known: Known) -> None:
    folder = written(known, "csv")
    tables = {path.stem: list(csv.DictReader(path.open(encoding="utf-8"))) for path in folder.iterdir()}
    before: dict[str, tuple[float, float]] = {}
    for row in tables["objects"]:
        t, id_ = int(row["frame"]), int(row["object"])
        mask_hw = known.truth.get((t, id_))
        assert (row["visible"] == "1") == (mask_hw is not None) and float(row["seconds"]) == known.seconds[t]
        assert float(row["score"]) == pytest.approx(0.5 + 0.01 * id_ + 0.001 * t)
        if mask_hw is None:
            assert row["area"] == row["speed"] == row["iou"] == ""
            before.pop(row["object"], None)
            continue
        ys, xs = mask_hw.nonzero()
        assert [int(row[name]) for name in ("area", "x0", "y0", "x1", "y1")] == [
            len(xs), xs.min(), ys.min(), xs.max() + 1, ys.max() + 1,
        ]  # fmt: skip
        assert float(row["centroid_x"]) == pytest.approx(xs.mean(), abs=1e-3)
        assert float(row["centroid_y"]) == pytest.approx(ys.mean(), abs=1e-3)
        if row["object"] in before and t != CUT:
            moved = np.hypot(xs.mean() - before[row["object"]][0], ys.mean() - before[row["object"]][1])
            assert float(row["speed"]) == pytest.approx(
                moved / (known.seconds[t] - known.seconds[t - 1]), rel=1e-3, abs=1e-3
            )
        else:
            assert row["speed"] == ""
        before[row["object"]] = xs.mean(), ys.mean()
    assert len(tables["objects"]) == 3 * COUNT
    second = [
        (row["first_frame"], row["last_frame"], row["frames"]) for row in tables["intervals"] if row["object"] == "2"
    ]
    assert second == [("0", "3", "4"), ("6", "8", "3"), ("10", "10", "1")]
    (total,) = [row for row in tables["totals"] if row["object"] == "2"]
    in_view = sum(known.seconds[t + 1] - known.seconds[t] for t in (0, 1, 2, 3, 6, 7, 8, 10))
    assert float(total["in_view_s"]) == pytest.approx(in_view, abs=1e-5)
    assert float(total["in_view_s"]) == pytest.approx(
        sum(float(row["duration_s"]) for row in tables["intervals"] if row["object"] == "2"), abs=1e-5
    )
    assert (total["intervals"], total["frames"], total["label"]) == ("3", "8", "grasper")


def test_parquet_has_the_same_tables(known: Known) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    from rtseg.offline.formats import parquet_tables

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_tables, "AT_ONCE", 10)
        folder = written(known, "parquet")
    texts = written(known, "csv")
    for name in ("objects", "intervals", "totals"):
        table = parquet.read_table(folder / f"{name}.parquet")
        rows = list(csv.DictReader((texts / f"{name}.csv").open(encoding="utf-8")))
        assert table.column_names == list(rows[0]) and table.num_rows == len(rows)
        for theirs, ours in zip(table.to_pylist(), rows, strict=True):
            for column, value in theirs.items():
                text = "" if value is None else str(int(value)) if isinstance(value, bool) else str(value)
                assert text == ours[column], column
    assert parquet.ParquetFile(folder / "objects.parquet").num_row_groups > 1
