"""Readers of data sets, each on a tiny one in the data set's own layout, made here."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from rtseg.base.errors import ConfigError, SourceError
from rtseg.data import LAYOUTS, open_dataset
from rtseg.data import files as reading
from rtseg.data.dataset import Sequence

Map = npt.NDArray[Any]
H, W = 24, 32
LEFT, RIGHT = (slice(2, 10), slice(3, 9)), (slice(12, 20), slice(16, 30))  # where objects are


def id_map(shape: tuple[int, int] = (H, W), **at: int) -> Map:
    """A map with numbers at the two places: `left=1, right=2`."""
    map_hw = np.zeros(shape, np.uint8)
    for place, number in at.items():
        map_hw[{"left": LEFT, "right": RIGHT}[place]] = number
    return map_hw


def save(path: Path, pixels: Map, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255] * 85)  # not what the numbers are
    image.save(path)
    return path


def picture(path: Path, value: int, size: tuple[int, int] = (H, W)) -> Path:
    return save(path, np.full((*size, 3), (value, 0, 100), np.uint8))


def one(path: Path, **options: Any) -> Sequence:
    (sequence,) = open_dataset(path, **options).sequences
    return sequence


def areas(sequence: Sequence, t: int) -> dict[int, tuple[int, int]] | None:
    """By id, the first pixel of each mask: which of the two places it is."""
    truth = sequence.truth(t)
    if truth is None:
        return None
    assert all(mask.dtype == np.bool_ and mask.any() for mask in truth.values())
    return {i: tuple(int(n) for n in np.argwhere(mask)[0]) for i, mask in truth.items()}  # type: ignore[misc]


AT_LEFT, AT_RIGHT = (2, 3), (12, 16)


def davis(root: Path, name: str = "bear", frames: int = 3, **at: int) -> Path:
    for t in range(frames):
        picture(root / "JPEGImages" / name / f"{t:05d}.png", t)
        save(root / "Annotations" / name / f"{t:05d}.png", id_map(**at), palette=True)
    return root


# DAVIS and what follows it


def test_davis_reads_a_palettes_indices(tmp_path: Path) -> None:
    davis(tmp_path, left=1, right=7)
    (tmp_path / "Annotations/bear/00001.png").unlink()
    save(tmp_path / "Annotations/bear/00002.png", id_map(left=7))
    sequence = one(tmp_path)
    assert (sequence.name, sequence.count, [target.id for target in sequence.targets]) == ("bear", 3, [1, 7])
    assert areas(sequence, 0) == {1: AT_LEFT, 7: AT_RIGHT}
    assert sequence.truth(1) is None  # nobody annotated it
    assert areas(sequence, 2) == {7: AT_LEFT}  # object 1 is not there
    assert [tuple(sequence.image(t)[0, 0]) for t in (2, 0)] == [(2, 0, 100), (0, 0, 100)]  # RGB, in any order
    assert sequence.image(0).dtype == np.uint8 and sequence.spacing_mm is None and not sequence.volume


def test_davis_255_is_the_object_where_it_is_alone_and_void_where_it_is_not(tmp_path: Path) -> None:
    for t, at in enumerate([{}, {"left": 255}, {"right": 255}]):
        picture(tmp_path / f"JPEGImages/480p/single/{t:05d}.png", t)
        save(tmp_path / f"Annotations/480p/single/{t:05d}.png", id_map(**at))
    for t, at in enumerate([{"left": 1, "right": 255}, {"right": 255}]):
        picture(tmp_path / f"JPEGImages/480p/void/{t:05d}.png", t)
        save(tmp_path / f"Annotations/480p/void/{t:05d}.png", id_map(**at), palette=True)
    single, void = open_dataset(tmp_path).sequences
    assert [areas(single, t) for t in range(3)] == [{}, {1: AT_LEFT}, {1: AT_RIGHT}]
    assert [areas(void, t) for t in range(2)] == [{1: AT_LEFT}, {}]
    assert [[target.id for target in sequence.targets] for sequence in (single, void)] == [[1], [1]]


def test_sequences_without_maps_are_named(tmp_path: Path) -> None:
    davis(tmp_path / "train", left=1)
    picture(tmp_path / "train/JPEGImages/goat/00000.png", 0)
    dataset = open_dataset(tmp_path)
    assert [sequence.name for sequence in dataset.sequences] == ["train/bear"]
    assert dataset.unannotated == ("train/goat",)
    assert open_dataset(tmp_path, sequences=("train/bear",)).unannotated == ()


def smoothed(side: int) -> Map:
    """A white square whose edges go over in greys."""
    white_hw = np.pad(np.full((H - 12, W - 12), 255, np.uint8), 6)
    return np.asarray(cv2.GaussianBlur(white_hw, (side, side), 0), np.uint8)


@pytest.mark.parametrize("side", [3, 5, 9])
def test_smoothed_masks_are_not_taken_for_hundreds_of_objects(tmp_path: Path, side: int) -> None:
    davis(tmp_path, left=255)
    save(tmp_path / "Annotations/bear/00000.png", smoothed(side))
    with pytest.raises(SourceError, match=r"00000\.png: holds \d+ different .*: threshold the masks") as caught:
        _ = one(tmp_path).targets
    assert "\n" not in str(caught.value)


def test_many_objects_and_objects_in_greys_are_not_taken_for_smoothed_edges(tmp_path: Path) -> None:
    davis(tmp_path, left=1)
    ids_hw = np.zeros((H, W), np.uint8)
    ids_hw[:8, :16] = np.arange(128).reshape(8, 16) % 127
    ids_hw[10:], ids_hw[9] = 200, 255  # void, around an object of a high number
    file = save(tmp_path / "Annotations/bear/00000.png", ids_hw)
    assert len(one(tmp_path).targets) == 127
    ids_hw[0, 18] = 128
    save(file, ids_hw)
    with pytest.raises(SourceError, match="holds 129 different numbers, .* one for each object, at most 128"):
        _ = one(tmp_path).targets


def test_davis_image_sets_are_splits(tmp_path: Path) -> None:
    for name in ("bear", "cat", "dog"):
        davis(tmp_path, name, left=1)
    for year, split, lines in [
        ("2017", "val", "bear\ndog\n"),
        ("2017", "train", "cat\n"),
        ("2016", "train", "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png\n" * 2),
    ]:
        (tmp_path / "ImageSets" / year).mkdir(parents=True, exist_ok=True)
        (tmp_path / "ImageSets" / year / f"{split}.txt").write_text(lines)

    def chosen(*names: str) -> list[str]:
        return [sequence.name for sequence in open_dataset(tmp_path, sequences=names).sequences]

    assert chosen() == ["bear", "cat", "dog"]
    assert chosen("val") == chosen("2017/val") == chosen("dog", "bear") == ["bear", "dog"]
    assert chosen("2016/train", "cat") == ["bear", "cat"]
    with pytest.raises(ConfigError, match="no sequence 'train'; did you mean"):  # which of the two?
        chosen("train")
    (tmp_path / "ImageSets/2017/test.txt").write_text("elephant\n")
    with pytest.raises(SourceError, match="'elephant' of the split 'test' is missing"):
        chosen("test")


def test_youtube_vos_names_categories_and_counts_what_it_names(tmp_path: Path) -> None:
    for t in (0, 5, 10):
        picture(tmp_path / f"train/JPEGImages/0043f083b5/{t:05d}.png", t)
    save(tmp_path / "train/Annotations/0043f083b5/00005.png", id_map(left=2, right=3), palette=True)
    objects = {"2": {"category": "sedan", "frames": ["00005"]}, "9": {"category": "person", "frames": []}}
    (tmp_path / "train/meta.json").write_text(json.dumps({"videos": {"0043f083b5": {"objects": objects}}}))
    sequence = one(tmp_path, sequences=["train"])
    assert sequence.name == "train/0043f083b5"
    assert [areas(sequence, t) for t in range(3)] == [None, {2: AT_LEFT}, None]  # by name, not by place
    assert [(target.id, target.label, target.category) for target in sequence.targets] == [(2, "sedan 2", "sedan")]


@pytest.mark.parametrize("above", ["", "all_frames/"])  # as released, and as XMem and Cutie want it
def test_youtube_vos_goes_through_all_frames(tmp_path: Path, above: str) -> None:
    whole = tmp_path / f"{above}train_all_frames"
    for t in range(7):
        picture(whole / f"JPEGImages/0043f083b5/{t:05d}.png", t)
    picture(whole / "JPEGImages/00f88c4f0a/00000.png", 0)  # of which nobody annotated a frame
    for t, at in ((0, {"left": 2}), (5, {"right": 2})):
        save(tmp_path / f"train/Annotations/0043f083b5/{t:05d}.png", id_map(**at), palette=True)
    objects = {"2": {"category": "sedan"}}
    (tmp_path / "train/meta.json").write_text(json.dumps({"videos": {"0043f083b5": {"objects": objects}}}))
    data = open_dataset(whole)
    (sequence,) = data.sequences
    assert (data.layout, sequence.name, sequence.count) == ("davis", "0043f083b5", 7)
    assert [areas(sequence, t) for t in range(7)] == [{2: AT_LEFT}, None, None, None, None, {2: AT_RIGHT}, None]
    assert [int(sequence.image(t)[0, 0, 0]) for t in range(7)] == list(range(7))
    assert [target.category for target in sequence.targets] == ["sedan"] and data.unannotated == ("00f88c4f0a",)
    if not above:
        assert one(tmp_path, sequences=["train_all_frames"]).count == 7
    for t in (0, 5):
        picture(tmp_path / f"train/JPEGImages/0043f083b5/{t:05d}.png", t)
    assert [(found.name, found.count) for found in open_dataset(tmp_path).sequences] == [("train/0043f083b5", 2)]
    assert one(whole).count == 7
    (tmp_path / "train/Annotations").rename(tmp_path / "train/elsewhere")
    with pytest.raises(ConfigError, match="of no known layout; .* or train_all_frames/JPEGImages beside train/Ann"):
        open_dataset(whole)


def test_vos_endovis_counts_what_its_authors_prompt(tmp_path: Path) -> None:
    davis(tmp_path / "valid", "seq_2", left=1, right=11)  # an instrument and tissue
    davis(tmp_path / "train", "seq_1", left=1, right=11)
    save(tmp_path / "valid/VOS/Annotations_vos_instrument/seq_2/00000.png", id_map(left=1), palette=True)
    (tmp_path / "valid/Meta").mkdir()
    (tmp_path / "valid/Meta/seq_2.json").write_text('{"info": {"category": {"1": "bipolar forceps"}}}')
    valid = one(tmp_path, sequences=["valid/seq_2"])
    assert areas(valid, 0) == {1: AT_LEFT}
    assert [(target.id, target.category) for target in valid.targets] == [(1, "bipolar forceps")]
    assert areas(one(tmp_path, sequences=["train"]), 0) == {1: AT_LEFT, 11: AT_RIGHT}


# EndoVis


def test_endovis2017_as_released_has_an_object_a_folder_and_is_cropped(tmp_path: Path) -> None:
    video = tmp_path / "instrument_1_4_training/instrument_dataset_1"
    parts_hw = np.zeros((1080, 1920), np.uint8)
    parts_hw[28:40, 320:330], parts_hw[40:50, 320:330] = 10, 30  # shaft and claspers, in the corner of the crop
    outside_hw = np.zeros_like(parts_hw)
    outside_hw[5, 5] = 20
    for t in range(2):
        image_hwc = np.zeros((1080, 1920, 3), np.uint8)
        image_hwc[28, 320] = (9, 8, 7)
        save(video / f"left_frames/frame{t:03d}.png", image_hwc)
        save(video / f"ground_truth/Right_Prograsp_Forceps_labels/frame{t:03d}.png", outside_hw if t else parts_hw)
        save(video / f"ground_truth/Maryland_Bipolar_Forceps_labels/frame{t:03d}.png", np.dstack([parts_hw] * 3))
        save(video / f"ground_truth/type_labels/frame{t:03d}.png", parts_hw)  # what somebody derived
    sequence = one(tmp_path)
    assert [(target.id, target.label, target.category) for target in sequence.targets] == [
        (1, "Maryland Bipolar Forceps", "Bipolar Forceps"),
        (2, "Right Prograsp Forceps", "Prograsp Forceps"),
    ]
    assert sequence.image(0).shape == (1024, 1280, 3) and tuple(sequence.image(0)[0, 0]) == (9, 8, 7)
    first, second = sequence.truth(0), sequence.truth(1)
    assert first is not None and second is not None
    assert {i: (mask.shape, int(mask.sum())) for i, mask in first.items()} == {
        1: ((1024, 1280), 220),
        2: ((1024, 1280), 220),
    }
    assert list(second) == [1]  # the other is outside of the picture proper
    assert one(tmp_path, sequences=["fold0"]).name == "instrument_dataset_1"
    with pytest.raises(ConfigError, match="no sequence 'fold1'; did you mean 'fold0'"):
        open_dataset(tmp_path, sequences=["fold1"])
    (video / "ground_truth/Right_Prograsp_Forceps_labels/frame001.png").unlink()
    with pytest.raises(SourceError, match=r"Right_Prograsp_Forceps_labels/frame001\.png: is missing"):
        one(tmp_path).truth(1)


@pytest.mark.parametrize(("folder", "factor"), [("instruments_masks", 32), ("TypeSegmentation", 1)])
def test_endovis2017_coded_types(tmp_path: Path, folder: str, factor: int) -> None:
    video = tmp_path / "instrument_dataset_2"
    picture(video / "images/frame000.png", 0)
    coded = save(video / folder / "frame000.png", id_map(left=2 * factor, right=7 * factor))
    sequence = one(video)
    assert areas(sequence, 0) == {2: AT_LEFT, 7: AT_RIGHT}
    assert [target.category for target in sequence.targets] == ["Prograsp Forceps", "Other"]
    if factor == 32:
        assert one(tmp_path, sequences=["fold1"]).name == "instrument_dataset_2"
    else:  # what the challenge kept for testing is in no fold
        with pytest.raises(ConfigError, match="no sequence 'fold1'"):
            open_dataset(tmp_path, sequences=["fold1"])
    save(coded, id_map(left=7 * factor + 2))
    with pytest.raises(SourceError, match=f"value {7 * factor + 2}; expected {factor} times the type, 0 to 7"):
        sequence.truth(0)


def endovis2017_test(root: Path, number: int = 1, labels: str = "TypeSegmentation", frames: bool = True) -> Path:
    """Test video `number` in the two archives of the release, the maps' unpacked into a folder of its name."""
    archive = "instrument_9_10_testing" if number > 8 else f"instrument_{'1_4' if number < 5 else '5_8'}_testing"
    for t in (225, 226) if frames else ():
        picture(root / archive / f"instrument_dataset_{number}/left_frames/frame{t}.png", t - 225)
        picture(root / archive / f"instrument_dataset_{number}/right_frames/frame{t}.png", 9)
    for t, at in ((225, {"left": 2}), (226, {"left": 2, "right": 8})) if labels else ():
        video = root / f"instrument_2017_test/instrument_2017_test/instrument_dataset_{number}"
        save(video / labels / f"frame{t}.png", id_map(**at))
        save((video / labels).with_name("BinarySegmentation") / f"frame{t}.png", id_map(left=255))
    return root


@pytest.mark.parametrize("labels", ["TypeSegmentation", "gt/TypeSegmentation"])
@pytest.mark.parametrize("opened", [".", "instrument_2017_test", "instrument_2017_test/instrument_2017_test"])
def test_endovis2017_pairs_the_archives_of_the_test(tmp_path: Path, labels: str, opened: str) -> None:
    for number in (1, 6, 10):
        endovis2017_test(tmp_path, number, labels)
    data = open_dataset(tmp_path / opened)
    assert [sequence.name for sequence in data.sequences] == [f"instrument_dataset_{number}" for number in (1, 6, 10)]
    assert (data.layout, data.unannotated) == ("endovis2017", ())
    last = data.sequences[2]
    assert (last.count, [int(last.image(t)[0, 0, 0]) for t in range(2)]) == (2, [0, 1])
    assert [areas(last, t) for t in range(2)] == [{2: AT_LEFT}, {2: AT_LEFT, 7: AT_RIGHT}]  # 8 is an unnamed one
    assert [target.category for target in last.targets] == ["Prograsp Forceps", "Other"]


def test_endovis2017_test_beside_train(tmp_path: Path) -> None:
    endovis2017_test(tmp_path, 1)
    endovis2017_test(tmp_path, 2, labels="")
    video = tmp_path / "instrument_1_4_training/instrument_dataset_1"
    picture(video / "left_frames/frame000.png", 5)
    save(video / "ground_truth/Left_Prograsp_Forceps_labels/frame000.png", id_map(left=10))
    data = open_dataset(tmp_path)
    trained, tested = "instrument_1_4_training", "instrument_2017_test/instrument_2017_test"
    assert [sequence.name for sequence in data.sequences] == [
        f"{trained}/instrument_dataset_1", f"{tested}/instrument_dataset_1"
    ]  # fmt: skip
    assert data.unannotated == ("instrument_1_4_testing/instrument_dataset_2",)
    assert one(tmp_path, sequences=["instrument_2017_test"]).count == 2
    assert one(tmp_path, sequences=["fold0"]).name == f"{trained}/instrument_dataset_1"  # no test video
    (video / "left_frames/frame000.png").unlink()
    with pytest.raises(SourceError, match=r"training/instrument_dataset_1: holds no left_frames/frame000\.png; exp"):
        open_dataset(tmp_path)  # its frames are not those of the test


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"labels": ""}, r"testing/instrument_dataset_1: frames without maps; .* no instrument_2017_test/inst"),
        ({"frames": False}, r"dataset_1: holds no left_frames/.*, and next to .* no instrument_\*_testing/inst"),
        (
            {"labels": "PartsSegmentation"},
            r"dataset_1: no folder names an instrument; .* or gt/Type",
        ),
    ],
)
def test_endovis2017_test_with_an_archive_missing(tmp_path: Path, made: dict[str, Any], says: str) -> None:
    with pytest.raises(SourceError, match=says) as caught:
        open_dataset(endovis2017_test(tmp_path, **made))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrapped", [False, True])
def test_endovis2018_reads_the_colours_of_labels_json(tmp_path: Path, wrapped: bool) -> None:
    alpha = [255] if wrapped else []  # as in the test release
    labels = [
        {"name": "background-tissue", "color": [0, 0, 0, *alpha], "classid": 0},
        {"name": "instrument-shaft", "color": [0, 255, 0, *alpha], "classid": 1},
        {"name": "kidney-parenchyma", "color": [255, 55, 0, *alpha], "classid": 4},
    ]
    for name in ("seq_1", "seq_2"):
        drawn_hwc = np.zeros((H, W, 3 + len(alpha)), np.uint8)
        drawn_hwc[LEFT], drawn_hwc[RIGHT], drawn_hwc[0] = [255, 55, 0, *alpha], [0, 255, 0, *alpha], 77
        picture(tmp_path / "release/release" / name / "left_frames/frame000.png", 0)
        save(tmp_path / "release/release" / name / "labels/frame000.png", drawn_hwc)
    (tmp_path / "release/release/labels.json").write_text(json.dumps({"classes": labels} if wrapped else labels))
    sequence = one(tmp_path, sequences=["val"])
    assert sequence.name == "seq_2" and areas(sequence, 0) == {1: AT_RIGHT, 4: AT_LEFT}
    assert [target.label for target in sequence.targets] == ["instrument-shaft", "kidney-parenchyma"]
    assert one(tmp_path, sequences=["train"]).name == "seq_1"
    picture(tmp_path / "test_data/seq_2/left_frames/frame000.png", 0)  # another seq_2
    save(tmp_path / "test_data/seq_2/labels/frame000.png", drawn_hwc)
    (tmp_path / "test_data/labels.json").write_text(json.dumps(labels))
    assert one(tmp_path, sequences=["val"]).name == "release/release/seq_2"
    assert one(tmp_path, sequences=["test_data"]).name == "test_data/seq_2"


@pytest.mark.parametrize("nested", [False, True])
def test_isinet_has_types_by_split(tmp_path: Path, nested: bool) -> None:
    between = "/" if nested else "_frame"
    for split, name in [("train", "seq1"), ("val", "seq2"), ("val", "seq15")]:
        picture(tmp_path / split / f"images/{name}{between}000.png", 0)
        save(tmp_path / split / f"annotations/{name}{between}000.png", id_map(left=4, right=1))
    data = open_dataset(tmp_path)
    assert (data.layout, [sequence.name for sequence in data.sequences]) == (
        "isinet", ["train/seq1", "val/seq2", "val/seq15"]
    )  # fmt: skip
    val = open_dataset(tmp_path, sequences=["val"]).sequences
    assert [sequence.name for sequence in val] == ["val/seq2", "val/seq15"]
    assert areas(val[0], 0) == {1: AT_RIGHT, 4: AT_LEFT}
    assert [target.category for target in val[0].targets] == ["Bipolar Forceps", "Monopolar Curved Scissors"]
    (tmp_path / "labels_2017.json").write_text('[{"name": "Vessel Sealer", "classid": 4}]')
    assert [target.category for target in one(tmp_path, sequences=["val/seq2"]).targets] == ["type 1", "Vessel Sealer"]


@pytest.mark.parametrize("split", ["fold0", "0"])  # ISINet's, and SurgicalSAM's
def test_isinet_folds_are_of_2017(tmp_path: Path, split: str) -> None:
    picture(tmp_path / split / "images/seq1_frame000.png", 0)
    save(tmp_path / split / "annotations/seq1_frame000.png", id_map(left=4))
    assert [target.category for target in one(tmp_path, sequences=[split]).targets] == ["Vessel Sealer"]


# CholecSeg8k, SA-Med2D, SA-V


@pytest.mark.parametrize("kind", ["watershed_mask", "color_mask"])
def test_cholecseg8k_reads_codes_or_colours(tmp_path: Path, kind: str) -> None:
    clip = tmp_path / "video01/video01_00080"
    for frame in (100, 80, 81):
        picture(clip / f"frame_{frame}_endo.png", frame)
        save(clip / f"frame_{frame}_endo_mask.png", id_map(left=99))  # the annotation tool's own
        codes_hw = id_map(left=31, right=22)  # grasper, gallbladder
        codes_hw[-1], codes_hw[0] = 255, 50
        if kind == "color_mask":
            drawn_hwc = np.full((H, W, 3), 127, np.uint8)
            drawn_hwc[LEFT], drawn_hwc[RIGHT], drawn_hwc[-1] = (170, 255, 0), (255, 160, 165), 255
        save(clip / f"frame_{frame}_endo_{kind}.png", np.dstack([codes_hw] * 3) if kind[0] == "w" else drawn_hwc)
    sequence = one(tmp_path, sequences=["video01"])
    assert (sequence.name, sequence.count) == ("video01/video01_00080", 3)
    assert [int(sequence.image(t)[0, 0, 0]) for t in range(3)] == [80, 81, 100]
    assert areas(sequence, 0) == {5: AT_LEFT, 10: AT_RIGHT}
    assert [(target.id, target.label) for target in sequence.targets] == [(5, "Grasper"), (10, "Gallbladder")]


def test_cholecseg8k_knows_all_thirteen_classes() -> None:
    from rtseg.data.cholecseg8k import CLASS_OF_CODE, CLASSES

    assert len(CLASSES) == len({known.code for known in CLASSES}) == len({known.color for known in CLASSES}) == 13
    assert [int(CLASS_OF_CODE[code]) for code in (50, 11, 21, 13, 12, 31, 23, 24, 25, 32, 22, 33, 5)] == list(range(13))
    assert CLASS_OF_CODE[[0, 35, 255]].tolist() == [0, 0, 0]  # nobody's


def test_sa_med2d_joins_slices_and_instances(tmp_path: Path) -> None:
    case = "ct_00--AbdomenCT1K--Case_00011"
    for number in (100, 9):
        picture(tmp_path / f"images/{case}--x_{number:04d}.png", number)
    picture(tmp_path / f"images/{case}--z_0003.png", 3)
    picture(tmp_path / "images/x_ray--crass--a_b--2d_none.png", 0)
    for name, at in [
        (f"{case}--x_0009--0003_000", {"left": 255}),
        (f"{case}--x_0009--0003_001", {"right": 255}),
        (f"{case}--x_0009--0104_000", {"right": 255}),
        ("x_ray--crass--a_b--2d_none--0000_000", {"left": 255}),
    ]:
        save(tmp_path / f"masks/{name}.png", id_map(**at))
    (tmp_path / "SAMed2D_v1_class_mapping_id.json").write_text('{"AbdomenCT1K": {"liver": "0003"}}')
    data = open_dataset(tmp_path)
    assert data.layout == "sa-med2d"
    by_name = {sequence.name: sequence for sequence in data.sequences}
    assert set(by_name) == {f"{case}--x", f"{case}--z", "x_ray--crass--a_b--2d"}
    volume = by_name[f"{case}--x"]
    assert volume.volume and volume.count == 2 and int(volume.image(0)[0, 0, 0]) == 9
    assert [(target.id, target.label) for target in volume.targets] == [(1, "liver"), (2, "class 0104")]
    assert areas(volume, 0) == {1: AT_LEFT, 2: AT_RIGHT} and volume.truth(1) is None
    truth = volume.truth(0)
    assert truth is not None and truth[1][RIGHT].all()  # both instances
    assert not by_name["x_ray--crass--a_b--2d"].volume
    (tmp_path / "annotations").mkdir()
    (tmp_path / "SAMed2D_v1_class_mapping_id.json").rename(tmp_path / "annotations/SAMed2D_v1_class_mapping_id.json")
    assert one(tmp_path, sequences=[f"{case}--x"]).targets == volume.targets
    (tmp_path / "annotations/SAMed2D_v1_class_mapping_id.json").write_text('{"AbdomenCT1K": {"liver": "three"}}')
    with pytest.raises(SourceError, match=r"annotations/SAMed2D_v1_class_mapping_id\.json: not like"):
        open_dataset(tmp_path)


def test_sa_med2d_counts_odd_names_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    case = "ct_00--AbdomenCT1K--Case_00011--x"
    picture(tmp_path / f"images/{case}_0009.png", 9)
    save(tmp_path / f"masks/{case}_0009--0003_000.png", id_map(left=255))
    assert len(open_dataset(tmp_path).sequences) == 1 and not caplog.records
    (tmp_path / "images/readme.txt").write_text("")
    picture(tmp_path / "images/ct_00--AbdomenCT1K--x_0001.png", 0)
    for name in (f"{case}_0010--0005_000", f"{case}_0009--five_000", "mr_00--A--B--x_0001--0003_000"):
        save(tmp_path / f"masks/{name}.png", id_map(left=255))
    sequence = one(tmp_path)
    assert (sequence.count, areas(sequence, 0)) == (1, {1: AT_LEFT})
    assert [target.label for target in sequence.targets] == ["class 0003"]  # and no 0005
    (said,) = caplog.messages
    assert "5 names left out, which are unexpected or of masks without an image: " in said and "\n" not in said


def empty_sa_med2d(root: Path, cases: int, slices: int, masks: int) -> Path:
    """Names alone, as many as are asked for."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for case in range(cases):
        for t in range(slices):
            stem = f"ct_00--AbdomenCT1K--Case_{case:05d}--x_{t:04d}"
            (root / f"images/{stem}.png").touch()
            for i in range(masks):
                (root / f"masks/{stem}--{i:04d}_000.png").touch()
    return root


def test_sa_med2d_keeps_little_of_each_name(tmp_path: Path) -> None:
    """At its full size, 4.6 million pictures, 4.3 masks each, it is to fit into memory many times over."""
    empty_sa_med2d(tmp_path, cases=20, slices=100, masks=4)
    wanted, other = (f"ct_00--AbdomenCT1K--Case_{case:05d}--x" for case in (7, 8))
    open_dataset(tmp_path)  # whatever is kept once

    def peak(*sequences: str) -> float:
        """Bytes a picture."""
        tracemalloc.start()
        found = open_dataset(tmp_path, sequences=sequences).sequences
        used = tracemalloc.get_traced_memory()[1] / 2000
        tracemalloc.stop()
        assert len(found) == (1 if sequences else 20) and found[0].count == 100
        return used

    assert peak() < 200 and peak(wanted) < 60
    assert one(tmp_path, sequences=[other]).name == other
    with pytest.raises(ConfigError, match=rf"no sequence '{wanted}y'; did you mean '{wanted}'"):
        open_dataset(tmp_path, sequences=[f"{wanted}y"])


def rle(mask_hw: Map) -> dict[str, Any]:
    from pycocotools import mask as coco

    coded = coco.encode(np.asfortranarray(mask_hw.astype(np.uint8)))
    return {"size": list(coded["size"]), "counts": coded["counts"].decode("ascii")}


def masklets(root: Path, rows: list[Any], ids: list[int], frames: int = 9, kind: str = "manual") -> Path:
    content = {"video_frame_count": float(frames), "masklet_id": ids, "masklet": rows}
    (root / f"sav_000001_{kind}.json").write_text(json.dumps(content))
    return root / f"sav_000001_{kind}.json"


def sa_v(root: Path, frames: int = 9) -> None:
    for t in range(frames):
        picture(root / f"sav_000001/{t:05d}.png", t)


def test_sa_v_masklets_are_on_every_fourth_frame(tmp_path: Path) -> None:
    sa_v(tmp_path)
    left, right, none = (rle(id_map(**at) > 0) for at in ({"left": 1}, {"right": 1}, {}))
    masklets(tmp_path, [[left, right], [none, left], [None, None]], [0, 7])
    masklets(tmp_path, [[right]], [0], kind="auto")  # not what people drew
    sequence = one(tmp_path)
    assert (sequence.name, sequence.count, [target.id for target in sequence.targets]) == ("sav_000001", 9, [1, 8])
    assert areas(sequence, 0) == {1: AT_LEFT, 8: AT_RIGHT}
    assert areas(sequence, 4) == {8: AT_LEFT}
    assert [sequence.truth(t) for t in (1, 2, 3, 5, 8)] == [None] * 5


def test_sa_v_null_is_one_object_that_nobody_annotated(tmp_path: Path) -> None:
    sa_v(tmp_path)
    left, right, none = (rle(id_map(**at) > 0) for at in ({"left": 1}, {"right": 1}, {}))
    masklets(tmp_path, [[None, left], [right, None], [None, none]], [0, 7])
    sequence = one(tmp_path)
    assert [areas(sequence, t) for t in (0, 4, 8)] == [{8: AT_LEFT}, {1: AT_RIGHT}, {}]
    assert [sequence.unknown(t) for t in (0, 2, 4, 8)] == [{1}, set(), {8}, {1}]  # empty is absent, null is not
    assert replace(sequence, image=sequence.image).unknown(0) == {1}  # as an evaluation wraps it


def test_sa_v_counts_may_be_a_list(tmp_path: Path) -> None:
    from pycocotools import mask as coco

    sa_v(tmp_path)
    drawn_hw = id_map(left=1, right=1) > 0
    flat = np.r_[False, drawn_hw.ravel("F"), False]
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.r_[0, edges, drawn_hw.size]).tolist()
    plain = {"size": [H, W], "counts": runs}
    assert coco.frPyObjects(plain, H, W)["counts"].decode() == rle(drawn_hw)["counts"]  # as COCO means it
    whole = {"size": [H, W], "counts": [0, H * W]}
    masklets(tmp_path, [[plain], [whole]], [0])
    truths = [one(tmp_path).truth(t) or {} for t in (0, 4)]
    np.testing.assert_array_equal(truths[0][1], drawn_hw)
    assert truths[1][1].all()


@pytest.mark.parametrize(
    ("rows", "ids", "says"),
    [
        ([[rle(np.ones((H, W + 1)))]], [0], r"frame 0: a mask is 33x24, the video 32x24; expected one size"),
        ([[{"size": [H, W], "counts": "0000"}]], [0], r"frame 0: a mask is not COCO's RLE"),
        ([[{"size": [H, W], "counts": [0, H * W - 1]}]], [0], r"frame 0: a mask is not COCO's RLE"),
        ([[{"size": [H, W], "counts": [-1, H * W + 1]}]], [0], r"frame 0: a mask is not COCO's RLE"),
        ([[{"size": [H, W], "counts": [0, float(H * W)]}]], [0], r"frame 0: a mask is not COCO's RLE"),
        ([[{"size": [H, W]}]], [0], r"frame 0: a mask is not COCO's RLE"),
        ([[rle(np.ones((H, W)))]], [0, 1], r"frame 0: 1 masks; expected one for each of 2 masklets"),
        ([[rle(np.ones((H, W)))]], [255], r"masklet_id = \[255\]; expected different numbers, 0 to 254"),
    ],
)
def test_sa_v_masklets_that_are_wrong(tmp_path: Path, rows: list[Any], ids: list[int], says: str) -> None:
    sa_v(tmp_path, 1)
    masklets(tmp_path, rows, ids)
    sequence = one(tmp_path)
    with pytest.raises(SourceError, match=rf"sav_000001_manual.json: {says}"):
        sequence.truth(0)


def test_sa_v_val_has_a_folder_an_object(tmp_path: Path) -> None:
    for t in range(5):
        picture(tmp_path / f"JPEGImages_24fps/sav_1/{t:05d}.png", t)
    for i, t, at in [(0, 0, {"left": 1}), (0, 4, {"right": 1}), (3, 0, {"left": 1}), (3, 4, {})]:
        save(tmp_path / f"Annotations_6fps/sav_1/{i:03d}/{t:05d}.png", id_map(**at))
    sequence = one(tmp_path)
    assert [target.id for target in sequence.targets] == [1, 4]
    assert [areas(sequence, t) for t in (0, 1, 4)] == [{1: AT_LEFT, 4: AT_LEFT}, None, {1: AT_RIGHT}]  # they overlap
    assert not sequence.unknown(4)
    (tmp_path / "Annotations_6fps/sav_1/003/00004.png").unlink()
    assert (areas(one(tmp_path), 4), one(tmp_path).unknown(4)) == ({1: AT_RIGHT}, {4})


# Whatever the layout


def test_opening_reads_no_picture_and_no_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        davis(tmp_path, f"seq_{number}", frames=2, left=1)
    opened: list[Path] = []
    original = reading.read_pixels

    def counted(path: Path) -> Map:
        opened.append(path)
        return original(path)

    monkeypatch.setattr(reading, "read_pixels", counted)
    sequences = open_dataset(tmp_path).sequences
    assert len(sequences) == 30 and opened == []
    assert sequences[0].targets[0].id == 1 and len(opened) >= 2  # and the counter counts
    read = len(opened)
    assert sequences[0].targets[0].id == 1 and len(opened) == read  # once


def test_a_sequence_can_be_replaced_in_part(tmp_path: Path) -> None:
    sequence = one(davis(tmp_path, left=1))
    black = replace(sequence, image=lambda t: np.zeros_like(sequence.image(t)))
    assert (black.name, black.count, black.targets) == ("bear", 3, sequence.targets)
    assert areas(black, 0) == {1: AT_LEFT} and not black.image(2).any() and sequence.image(2).any()


def broken_picture(root: Path) -> Path:
    (root / "JPEGImages/bear/00001.png").write_bytes(b"\x89PNG and no more")
    return root


def broken_map(root: Path) -> Path:
    file = root / "Annotations/bear/00001.png"
    file.write_bytes(file.read_bytes()[:60])
    return root


def other_size(root: Path) -> Path:
    save(root / "Annotations/bear/00001.png", np.ones((H, W + 1), np.uint8))
    return root


def coloured(root: Path) -> Path:
    save(root / "Annotations/bear/00001.png", np.full((H, W, 3), (1, 2, 3), np.uint8))
    return root


def too_many(root: Path) -> Path:
    Image.fromarray(np.full((H, W), 300, np.uint16)).save(root / "Annotations/bear/00001.png")
    return root


def fractions(root: Path) -> Path:
    Image.fromarray(np.full((H, W), 0.5, np.float32)).save(root / "Annotations/bear/00001.tif")
    (root / "Annotations/bear/00001.png").unlink()
    return root


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (broken_picture, r"JPEGImages/bear/00001\.png: not a readable image"),
        (broken_map, r"Annotations/bear/00001\.png: not a readable mask \(.+\); expected a PNG; copy it again"),
        (other_size, r"00001\.png: the mask is 33x24, its image 00001\.png is 32x24; expected one size"),
        (coloured, r"00001\.png: a color image; expected numbers"),
        (too_many, r"00001\.png: object 300; expected 0 for the background, and objects from 1 to 255"),
        (fractions, r"00001\.tif: its values are float32; expected whole numbers"),
    ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path: Path, spoil: Callable[[Path], Path], says: str) -> None:
    sequence = one(spoil(davis(tmp_path, left=1)))
    assert areas(sequence, 0) == {1: AT_LEFT} and sequence.image(0).shape == (H, W, 3)  # the others are good
    with pytest.raises(SourceError, match=says) as caught:
        sequence.truth(1)
        sequence.image(1)
    assert "\n" not in str(caught.value)


def test_an_upright_mask_fits_a_picture_that_is_turned_by_its_exif(tmp_path: Path) -> None:
    davis(tmp_path, left=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    for t in range(3):
        (tmp_path / f"JPEGImages/bear/{t:05d}.png").unlink()
        Image.fromarray(np.zeros((W, H, 3), np.uint8)).save(tmp_path / f"JPEGImages/bear/{t:05d}.jpg", exif=exif)
    sequence = one(tmp_path)
    assert sequence.image(0).shape == (H, W, 3) and areas(sequence, 0) == {1: AT_LEFT}


def test_a_map_without_a_picture_is_named_at_once(tmp_path: Path) -> None:
    davis(tmp_path, left=1)
    (tmp_path / "JPEGImages/bear/00001.png").unlink()
    with pytest.raises(SourceError, match=r"Annotations/bear/00001\.png: no image has this name"):
        open_dataset(tmp_path)


def test_hidden_files_are_left_alone(tmp_path: Path) -> None:
    davis(tmp_path, left=1)
    (tmp_path / "JPEGImages/bear/._00000.png").write_bytes(b"left behind")
    (tmp_path / "Annotations/bear/._00000.png").write_bytes(b"left behind")
    (tmp_path / "Annotations/.DS_Store").write_bytes(b"")
    assert one(tmp_path).count == 3


def test_an_unknown_folder_says_what_each_layout_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="of no known layout") as caught:
        open_dataset(tmp_path)
    assert all(f"{name}: {reader.EXPECTED}" in str(caught.value) for name, reader in LAYOUTS.items())
    with pytest.raises(ConfigError, match="not laid out as davis; expected JPEGImages/SEQ"):
        open_dataset(tmp_path, layout="davis")
    with pytest.raises(ConfigError, match="layout 'davos': unknown; did you mean 'davis'"):
        open_dataset(tmp_path, layout="davos")
    with pytest.raises(ConfigError, match="only nifti has windows and modalities"):
        open_dataset(tmp_path, layout="davis:lung")
    with pytest.raises(SourceError, match="no such folder"):
        open_dataset(tmp_path / "nowhere")


def test_two_layouts_in_one_folder_are_asked_about(tmp_path: Path) -> None:
    davis(tmp_path, left=1)
    picture(tmp_path / "video01/video01_00080/frame_80_endo.png", 0)
    save(tmp_path / "video01/video01_00080/frame_80_endo_watershed_mask.png", id_map(left=31))
    with pytest.raises(ConfigError, match="matches the layouts davis and cholecseg8k; name one of them"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, layout="cholecseg8k").sequences[0].name == "video01/video01_00080"


def test_an_unknown_sequence_among_many_is_one_short_line(tmp_path: Path) -> None:
    for number in range(60):
        davis(tmp_path, f"sequence_{number:04d}", frames=1, left=1)
    with pytest.raises(ConfigError, match="expected one of 60, such as sequence_0000") as caught:
        open_dataset(tmp_path, sequences=["qqq"])
    assert len(str(caught.value)) < 400
    with pytest.raises(ConfigError, match="did you mean 'sequence_0033'"):
        open_dataset(tmp_path, sequences=["sequence_0033x"])


def test_a_synthetic_data_set_is_its_name() -> None:
    found = open_dataset("synthetic:laparoscopy?seed=10000-10002&seconds=1&fps=5&width=96&height=64")
    assert [sequence.name for sequence in found.sequences] == ["seed-10000", "seed-10001", "seed-10002"]
    first, second, _ = found.sequences
    assert first.count == 5
    truth = first.truth(3)
    assert truth and all(mask_hw.shape == (64, 96) and mask_hw.any() for mask_hw in truth.values())
    assert (first.image(3) == first.image(3)).all() and not (first.image(3) == second.image(3)).all()
    for wrong in ("10-9", "1-", "-1", "0-99999"):
        with pytest.raises(ConfigError, match="expected a number, or a range"):
            open_dataset(f"synthetic:laparoscopy?seed={wrong}")
    with pytest.raises(SourceError, match="no synthetic scene"):
        open_dataset("synthetic:moon?seed=1-2")
