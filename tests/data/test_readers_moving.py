"""Readers of videos and of volumes, on tiny ones made here."""

from __future__ import annotations

import json
from collections.abc import Sequence as Series
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import nibabel
import numpy as np
import numpy.typing as npt
import pytest

from rtseg.base.errors import ConfigError, SourceError
from rtseg.base.mask_images import write_palette_png
from rtseg.base.rle import encode_rle
from rtseg.data import frame_reader, open_dataset
from rtseg.data.dataset import Sequence
from rtseg.grab.medical import nifti_file

Array = npt.NDArray[Any]
H, W = 32, 48
FRAMES = 20


def one(path: Path, **options: Any) -> Sequence:
    (sequence,) = open_dataset(path, **options).sequences
    return sequence


def record(path: Path, frames: int = FRAMES) -> Path:
    """A video whose frames are grey, brighter by ten each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1" if path.suffix == ".mkv" else "mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        for t in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((H, W, 3), 20 + 10 * t, np.uint8), format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_map(path: Path, number: int, shape: tuple[int, int] = (H, W)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    map_hw = np.zeros(shape, np.uint8)
    map_hw[4:8, 6:12] = number
    write_palette_png(path, map_hw)
    return path


def number_of(image_hwc: Array) -> int:
    return round((float(image_hwc.mean()) - 20) / 10)


# Videos


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])  # Matroska does not declare how many frames it has
def test_a_video_and_its_masks(tmp_path: Path, suffix: str) -> None:
    record(tmp_path / f"clip{suffix}")
    write_map(tmp_path / "clip_masks/00003.png", 2)
    write_map(tmp_path / "clip_masks/00019.png", 5)
    sequence = one(tmp_path)
    assert (sequence.name, sequence.count, [target.id for target in sequence.targets]) == ("clip", FRAMES, [2, 5])
    assert [number_of(sequence.image(t)) for t in (0, 1, 19, 3, 17)] == [0, 1, 19, 3, 17]  # in any order
    truth = sequence.truth(3)
    assert truth is not None and list(truth) == [2] and int(truth[2].sum()) == 24
    assert sequence.truth(4) is None


def test_going_forward_and_a_little_back_decodes_each_frame_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts: list[Path] = []
    original = frame_reader.open_source
    monkeypatch.setattr(frame_reader, "open_source", lambda path, **how: starts.append(path) or original(path, **how))
    plays, clip = frame_reader.FrameReader(), record(tmp_path / "clip.mp4")
    order = [0, 1, 2, 10, 9, 4, 11, 12]
    assert [number_of(plays.image(clip, t)) for t in order] == order and len(starts) == 1
    assert number_of(plays.image(clip, 2)) == 2 and len(starts) == 2  # no longer kept
    with pytest.raises(SourceError, match=f"clip.mp4: ends after {FRAMES} frames; expected a frame {FRAMES}"):
        plays.image(clip, FRAMES)
    other = record(tmp_path / "other.mp4", 3)
    assert [number_of(plays.image(path, 1)) for path in (other, clip)] == [1, 1]


def test_several_videos_and_one_with_plain_masks(tmp_path: Path) -> None:
    for name in ("a", "b"):
        record(tmp_path / "many" / f"{name}.mp4", 2)
        write_map(tmp_path / "many" / f"{name}_masks/00000.png", 1)
    record(tmp_path / "many/c.mp4", 2)  # without masks
    assert [sequence.name for sequence in open_dataset(tmp_path / "many").sequences] == ["a", "b"]
    record(tmp_path / "single/clip.mp4", 2)
    write_map(tmp_path / "single/masks/00001.png", 255)
    assert [target.id for target in one(tmp_path / "single").targets] == [1]  # 0 and 255: one object


def test_the_folder_that_segment_wrote(tmp_path: Path) -> None:
    clip = record(tmp_path / "clip.mp4", 3)
    for t in range(3):
        write_map(tmp_path / f"clip/masks/{t:05d}.png", 3)
    record(tmp_path / "clip/overlay.mp4", 3)  # drawn on: no source
    (tmp_path / "clip/run.json").write_text(json.dumps({"source": str(clip)}))
    beside, itself = one(tmp_path), one(tmp_path / "clip")
    for sequence in (beside, itself):
        truth = sequence.truth(2)
        assert (sequence.name, sequence.count) == ("clip", 3) and truth is not None and list(truth) == [3]
    (tmp_path / "clip/run.json").unlink()
    with pytest.raises(ConfigError, match="of no known layout"):  # a network is not judged on its own drawing
        open_dataset(tmp_path / "clip")
    (tmp_path / "clip/run.json").write_text('{"source": "/elsewhere/clip.mp4"}')
    assert one(tmp_path / "clip").count == 3  # moved with its video
    clip.unlink()
    with pytest.raises(SourceError, match=r"run\.json: its source '/elsewhere/clip\.mp4' is not found"):
        open_dataset(tmp_path / "clip")


def test_folders_of_images_and_masks(tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        for frame in ("a9", "a10"):
            write_map(tmp_path / name / f"images/{frame}.png", 9)
        write_map(tmp_path / name / "masks/a10.png", 4)
    sequences = open_dataset(tmp_path).sequences
    assert [sequence.name for sequence in sequences] == ["p1", "p2"]
    assert sequences[0].truth(0) is None and list(sequences[0].truth(1) or ()) == [4]  # a10 comes after a9


def test_masks_that_do_not_fit_their_video(tmp_path: Path) -> None:
    record(tmp_path / "clip.mp4", 3)
    write_map(tmp_path / "masks/00001.png", 1, (H, W + 2))
    with pytest.raises(SourceError, match=r"00001\.png: the mask is 50x32, the frames of clip\.mp4 48x32"):
        one(tmp_path).truth(1)
    write_map(tmp_path / "masks/00003.png", 1)
    with pytest.raises(SourceError, match=r"00003\.png: .*clip\.mp4 has 3 frames"):
        _ = one(tmp_path).count
    write_map(tmp_path / "masks/frame.png", 1)
    with pytest.raises(SourceError, match=r"frame\.png: expected a frame number"):
        open_dataset(tmp_path)


def test_sa_v_plays_its_video(tmp_path: Path) -> None:
    record(tmp_path / "sav_000001.mp4", 6)
    mask_hw = np.zeros((H, W), np.bool_)
    mask_hw[4:8, 6:12] = True
    coded = {"size": [H, W], "counts": encode_rle(mask_hw).decode("ascii")}
    content = {"video_frame_count": 6.0, "masklet_id": [0], "masklet": [[coded], [coded]]}
    (tmp_path / "sav_000001_manual.json").write_text(json.dumps(content))
    sequence = one(tmp_path)
    assert (sequence.count, number_of(sequence.image(5)), sequence.truth(5)) == (6, 5, None)
    np.testing.assert_array_equal((sequence.truth(4) or {})[1], mask_hw)
    (tmp_path / "sav_000001.mp4").unlink()
    with pytest.raises(SourceError, match=r"sav_000001\.mp4 and sav_000001/00000\.jpg are missing"):
        open_dataset(tmp_path)


# Volumes

SHAPE = (12, 10, 5)  # left, posterior, superior
MM = (0.5, 0.7, 3.0)
LIVER = (slice(2, 6), slice(1, 4), slice(2, 4))


def body() -> tuple[Array, Array]:
    """Hounsfield units with a gradient in every direction, and labels, axes L, P, S."""
    x, y, z = np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")
    hu = (10 * x + y - 100 * z).astype(np.int16)
    hu[0, 0, 0] = -1000
    label = np.zeros(SHAPE, np.uint8)
    label[LIVER] = 1
    label[8:, 8:, 4] = 3
    return hu, label


def nifti(path: Path, array_lps: Array, axes: str = "LPS", mm: Series[float] = MM, unit: str = "mm") -> Path:
    """Store an array of axes L, P, S with those axes that are asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    orientations = nibabel.orientations
    affine = np.diag([-mm[0], -mm[1], mm[2], 1.0])  # the world is R, A, S
    image = nibabel.Nifti1Image(array_lps, affine)
    image.header.set_xyzt_units(unit)
    turn = orientations.ornt_transform(
        orientations.axcodes2ornt(("L", "P", "S")), orientations.axcodes2ornt(tuple(axes))
    )
    nibabel.save(image.as_reoriented(turn), path)
    return path


def case(root: Path, axes: str = "LPS", label_axes: str = "LPS") -> Path:
    hu, label = body()
    nifti(root / "image.nii.gz", hu, axes)
    nifti(root / "label.nii.gz", label, label_axes)
    return root


@pytest.mark.parametrize(("axes", "label_axes"), [("LPS", "LPS"), ("RAS", "LPS"), ("SLP", "RAS"), ("ASR", "IPL")])
def test_slices_look_the_same_however_a_file_is_turned(tmp_path: Path, axes: str, label_axes: str) -> None:
    sequence = one(case(tmp_path / "p1", axes, label_axes), layout="nifti:brain")
    assert (sequence.count, sequence.volume) == (5, True)
    assert sequence.spacing_mm == pytest.approx((0.7, 0.5))  # down is posterior, across is left
    image_hwc = sequence.image(0)
    assert image_hwc.shape == (10, 12, 3) and (image_hwc == image_hwc[..., :1]).all()
    hu = body()[0][:, :, 0].T  # rows posterior, columns left; the brain's window is 0 to 80
    np.testing.assert_allclose(image_hwc[..., 0], np.clip(hu / 80 * 255, 0, 255), atol=0.51)
    truth = sequence.truth(2)
    assert truth is not None
    expected_hw = np.zeros((10, 12), np.bool_)
    expected_hw[1:4, 2:6] = True
    np.testing.assert_array_equal(truth[1], expected_hw)
    assert [list(sequence.truth(t) or ()) for t in range(5)] == [[], [], [1], [1], [3]]
    assert [(target.id, target.label) for target in sequence.targets] == [(1, "label 1"), (3, "label 3")]


@pytest.mark.parametrize(
    ("mm", "count", "shape", "spacing"),
    [
        ((1, 1, 1), 5, (10, 12), (1, 1)),  # axial where nothing says otherwise
        ((1, 4, 2), 10, (5, 12), (2, 1)),  # coronal: superior by left
        ((4, 1, 2), 12, (5, 10), (2, 1)),  # sagittal: superior by posterior
    ],
)
def test_the_axis_of_the_largest_voxels_is_cut(
    tmp_path: Path, mm: tuple[float, ...], count: int, shape: tuple[int, int], spacing: tuple[float, float]
) -> None:
    hu, label = body()
    nifti(tmp_path / "image.nii", hu, mm=mm)
    nifti(tmp_path / "label.nii", label, mm=mm)
    sequence = one(tmp_path)
    assert (sequence.count, sequence.image(0).shape[:2]) == (count, shape)
    assert sequence.spacing_mm == pytest.approx(spacing) and sequence.slice_mm == pytest.approx(max(mm))
    if count != 5:
        brightness = sequence.image(5)[..., 0].astype(int)
        assert (np.diff(brightness[:, 6]) >= 0).all() and brightness[0, 6] < brightness[
            -1, 6
        ]  # darker towards the head


def test_units_are_heeded(tmp_path: Path) -> None:
    hu, label = body()
    nifti(tmp_path / "image.nii.gz", hu)
    nifti(tmp_path / "label.nii.gz", label, mm=[n / 1000 for n in MM], unit="meter")
    assert one(tmp_path).spacing_mm == pytest.approx((0.7, 0.5))
    assert one(tmp_path).image(0).shape == (10, 12, 3)  # the two fit


def test_nnunet_names_modalities_and_labels(tmp_path: Path) -> None:
    hu, label = body()
    for number in range(2):
        nifti(tmp_path / f"imagesTr/liver_001_{number:04d}.nii.gz", (hu + 1000) // (number + 1))
    nifti(tmp_path / "labelsTr/liver_001.nii.gz", label)
    about = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "liver": 1, "ignore": 3, "whole": [1, 2]},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(about))
    sequence = one(tmp_path)
    assert (sequence.name, [(target.id, target.category) for target in sequence.targets]) == (
        "liver_001", [(1, "liver")]
    )  # fmt: skip
    red, green, blue = (sequence.image(2)[..., channel] for channel in range(3))
    np.testing.assert_array_equal(red, blue)  # two modalities: the first again
    assert (abs(red.astype(int) - green) <= 1).all() and red.min() < 128 < red.max()  # each in its own percentiles
    (tmp_path / "dataset.json").write_text('{"labels": {"liver": "one"}}')
    with pytest.raises(SourceError, match=r"dataset\.json: its labels or modalities are not as nnU-Net's"):
        open_dataset(tmp_path)
    nifti(tmp_path / "labelsTr/liver_002.nii.gz", label)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(SourceError, match=r"imagesTr/liver_002_0000\.nii\.gz is missing"):
        open_dataset(tmp_path)


def test_decathlon_has_modalities_on_a_fourth_axis(tmp_path: Path) -> None:
    hu, label = body()
    image = np.stack([hu, hu[::-1], hu[:, ::-1], hu * 0], axis=-1)
    nifti(tmp_path / "imagesTr/BRATS_001.nii.gz", image)
    nifti(tmp_path / "labelsTr/BRATS_001.nii.gz", label)
    (tmp_path / "imagesTr/._BRATS_001.nii.gz").write_bytes(b"left behind")
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "CT"}, "labels": {"0": "background", "1": "edema"}}')
    sequence = one(tmp_path, layout="nifti:brain")
    shown = sequence.image(0)
    np.testing.assert_array_equal(shown[..., 1], shown[:, ::-1, 0])
    np.testing.assert_array_equal(shown[..., 2], shown[::-1, :, 0])
    assert sequence.targets[0].label == "edema"


def brats(root: Path, in_one_file: bool) -> Path:
    """Four modalities, a constant each: 50, 100, 150, 200; the last is a CT's, to have a window of its own."""
    names = dict(enumerate(["FLAIR", "T1w", "T1gd", "CT"]))
    volumes = [np.full(SHAPE, 50 * (n + 1), np.int16) for n in names]
    for values in volumes:
        values[0] = 1  # so that percentiles have a range
    if in_one_file:
        nifti(root / "imagesTr/BRATS_001.nii.gz", np.stack(volumes, axis=-1))
    else:
        for n, values in enumerate(volumes):
            nifti(root / f"imagesTr/BRATS_001_{n:04d}.nii.gz", values)
    nifti(root / "labelsTr/BRATS_001.nii.gz", body()[1])
    (root / "dataset.json").write_text(json.dumps({"modality": {str(n): name for n, name in names.items()}}))
    return root


@pytest.mark.parametrize("in_one_file", [True, False])
def test_any_three_of_four_modalities_are_shown(
    tmp_path: Path, in_one_file: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def middle(layout: str | None) -> list[int]:
        sequence = one(tmp_path, layout=layout)
        return [int(sequence.image(t)[5, 6, c]) for t in (2,) for c in range(3)]

    brats(tmp_path, in_one_file)
    abdomen = round((200 + 160) / 400 * 255)
    assert middle("nifti:0,1,3") == [*middle("nifti:3,0,1")[1:], abdomen] == [255, 255, abdomen]
    assert middle("nifti:3") == [abdomen] * 3 and middle("nifti:3,2") == [abdomen, 255, abdomen]
    soft = [round((50 * n + 125) / 350 * 255) for n in (1, 2, 3, 4)]  # of the mediastinum: 350 wide around 50
    assert middle("nifti:3,2,1:mediastinum") == middle("nifti:mediastinum:3,2,1") == [min(n, 255) for n in soft[:0:-1]]
    assert not caplog.records  # whoever chooses knows
    assert middle("nifti:mediastinum") == middle("nifti:0,1,2:mediastinum") == soft[:3]  # as ever
    (said,) = caplog.messages
    assert "4 modalities; three are shown, and 3 (CT) left out; choose others with a layout such as nifti:3,0,1" in said
    with pytest.raises(ConfigError, match=r"BRATS_001.*: no modality 4; expected 0 to 3"):
        middle("nifti:4")


@pytest.mark.parametrize("options", ["0,1,2,3", "0,", "0,x", "1:2", "lung:brain", "0,1:2:lung"])
def test_modalities_that_cannot_be_chosen(tmp_path: Path, options: str) -> None:
    with pytest.raises(ConfigError, match=f"layout 'nifti:{options}': expected a window, one to three modalities"):
        open_dataset(brats(tmp_path, True), layout=f"nifti:{options}")


def test_ct_has_a_window_and_others_percentiles(tmp_path: Path) -> None:
    hu, _ = body()
    abdomen = one(case(tmp_path / "ct")).image(0)[..., 0]  # values below -500 are Hounsfield units
    np.testing.assert_array_equal(abdomen, np.round(np.clip((hu[:, :, 0].T + 160) / 400 * 255, 0, 255)))
    for name in ("image", "label"):
        nifti(tmp_path / f"mr/{name}.nii.gz", body()[1] if name == "label" else (hu + 1000) * 7)
    mr = one(tmp_path / "mr")
    whole = np.stack([mr.image(t)[..., 0] for t in range(5)])
    assert whole.max() == 255 and (whole == 255).mean() < 0.03 and whole.mean() > 80
    with pytest.raises(ConfigError, match="window 'lungs': unknown; did you mean 'lung'"):
        open_dataset(tmp_path / "mr", layout="nifti:lungs")
    assert one(tmp_path / "mr", layout="nifti:percentile").image(2).tolist() == mr.image(2).tolist()


def test_scaled_values_and_voxels_outside_of_the_scan(tmp_path: Path) -> None:
    hu, label = body()
    scaled = nibabel.Nifti1Image(hu.astype(np.int16), np.diag([-0.5, -0.7, 3, 1]))
    scaled.header.set_slope_inter(2.0, -100.0)
    (tmp_path / "p").mkdir()
    nibabel.save(scaled, tmp_path / "p/image.nii.gz")
    nifti(tmp_path / "p/label.nii.gz", label)
    stored = np.asanyarray(nibabel.load(tmp_path / "p/image.nii.gz").dataobj)[:, :, 1].T
    shown = one(tmp_path / "p", layout="nifti:abdomen").image(1)[..., 0]
    np.testing.assert_allclose(shown, np.clip((stored + 160) / 400 * 255, 0, 255), atol=0.51)
    hollow = hu.astype(np.float32)
    hollow[3] = np.nan
    nifti(tmp_path / "p/image.nii.gz", hollow)
    assert one(tmp_path / "p", layout="nifti:brain").image(0)[:, 3].max() == 0


@pytest.mark.parametrize(
    ("label", "says"),
    [
        (np.full(SHAPE, 1.5, np.float32), r"label\.nii\.gz: label 1\.5; expected whole numbers from 0 to 255"),
        (np.full(SHAPE, 256, np.int16), r"label\.nii\.gz: label 256; expected whole"),
        (np.full(SHAPE, -1, np.int16), r"label\.nii\.gz: label -1; expected whole"),
        (np.zeros((*SHAPE, 2), np.uint8), r"label\.nii\.gz: 4-D; expected one label"),
        (np.zeros((12, 10, 6), np.uint8), r"image\.nii\.gz: 12x10x5 voxels of .*, its labels 12x10x6 voxels"),
    ],
)
def test_labels_that_are_wrong(tmp_path: Path, label: Array, says: str) -> None:
    nifti(tmp_path / "image.nii.gz", body()[0])
    nifti(tmp_path / "label.nii.gz", label)
    sequence = one(tmp_path)
    with pytest.raises(SourceError, match=says):
        sequence.truth(0)
        sequence.image(0)


def test_files_that_are_cut_off(tmp_path: Path) -> None:
    sequence = one(case(tmp_path))
    whole = (tmp_path / "image.nii.gz").read_bytes()
    (tmp_path / "image.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"image\.nii\.gz: .*; copy it again"):
        sequence.image(0)
    (tmp_path / "label.nii.gz").write_bytes(b"no NIfTI")
    with pytest.raises(SourceError, match=r"label\.nii\.gz: not a readable NIfTI file"):
        _ = sequence.count


def test_only_the_volumes_of_one_case_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        case(tmp_path / name)
    loaded: list[Path] = []
    original = nifti_file.load_volume
    monkeypatch.setattr("rtseg.data.nifti.load_volume", lambda path: loaded.append(path) or original(path))
    sequences = open_dataset(tmp_path).sequences
    assert len(sequences) == 3 and loaded == []
    for sequence in sequences:
        for t in range(sequence.count):
            sequence.image(t), sequence.truth(t)
    assert len(loaded) == 6  # each once, though every slice was asked for
    sequences[0].image(0)
    assert len(loaded) > 6  # not kept for ever


def test_without_nibabel_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = one(case(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(
        SourceError, match=r"nibabel, which reads NIfTI, is not installed: pip install 'rtseg\[dicom\]'"
    ):
        _ = sequence.count
