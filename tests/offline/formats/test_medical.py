"""NIfTI and DICOM Segmentation of medical sources: opened by their own readers, each voxel where it belongs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest

from rtseg.base.errors import OutputError
from rtseg.base.rle import decode_rle
from rtseg.base.types import Prompt
from rtseg.engine.recipe import load_recipe
from rtseg.offline import Reading, segment
from rtseg.offline.formats import write_formats
from tests.grab.dicom_files import FRAME_OF_REFERENCE, ct, dicom
from tests.grab.test_nifti_source import oblique, volume

RECIPE = load_recipe(model="micro", weights="package:micro", image_size=64, runtime="torch")
H, W, N = 40, 48, 5


def segmented(source: Path | list[Path], out: Path, **reading: Any) -> np.ndarray:
    """Segment two objects that overlap. Returns their masks, bool [object, frame, H, W], as masks.json has them."""
    prompts = {0: [Prompt(1, box=(2, 1, 8, 4), label="liver"), Prompt(2, box=(3, 2, 11, 5), label="tumour")]}
    segment(source, prompts, out, RECIPE, reading=Reading(**reading))
    document = json.loads((out / "masks.json").read_text())
    image = document["images"][0]
    masks = np.zeros((2, len(document["images"]), image["height"], image["width"]), bool)
    for each in document["annotations"]:
        counts = each["segmentation"]["counts"].encode()
        masks[each["track_id"] - 1, each["image_id"]] = decode_rle(counts, image["height"], image["width"])
    return masks


def places(index_n3: np.ndarray, affine: Any) -> np.ndarray:
    """Where voxels lie, in mm to a tenth."""
    return np.round((np.c_[index_n3, np.ones(len(index_n3))] @ np.array(affine).T)[:, :3], 1) + 0.0


def blob(shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(2).integers(-100, 200, shape)
    values[..., 2:9, 3:10] += 600
    return values.astype(np.int16)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_nifti_lies_on_its_source(tmp_path: Path, plane: str) -> None:
    volume(tmp_path / "v.nii.gz")
    masks = segmented(tmp_path / "v.nii.gz", tmp_path / "o", plane=plane, window="500/0")
    assert masks.any()
    (written,) = write_formats(tmp_path / "o", ["nifti"])
    image, source = nibabel.load(written / "labels.nii.gz"), nibabel.load(tmp_path / "v.nii.gz")
    assert image.shape == source.shape and image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.affine, oblique(), atol=1e-4)
    assert image.get_sform(coded=True)[1] == 1 and image.header.get_xyzt_units()[0] == "mm"
    labels = np.asanyarray(image.dataobj)
    geometry = json.loads((tmp_path / "o/run.json").read_text())["geometry"]
    to_voxel = np.linalg.inv(source.affine) @ np.array(geometry["affine"])
    union_nhw = masks.any(axis=0)
    assert int((labels > 0).sum()) == int(union_nhw.sum())
    for n, row, column in np.argwhere(union_nhw):
        i, j, k = np.rint(to_voxel @ [column, row, n, 1])[:3].astype(int)
        assert labels[i, j, k] in (1, 2) and masks[labels[i, j, k] - 1, n, row, column]
    names = json.loads((written / "labels.json").read_text())["labels"]
    assert names == {"background": 0, "liver": 1, "tumour": 2}


def test_a_ct_series_as_dicom_segmentation_and_as_nifti(tmp_path: Path) -> None:
    paths = ct(tmp_path / "ct", blob((N, H, W)))
    masks = segmented(tmp_path / "ct", tmp_path / "o")
    assert masks.any(axis=(1, 2, 3)).all()
    seg_folder, nifti_folder = write_formats(tmp_path / "o", ["dicom-seg", "nifti"])
    seg = highdicom.seg.segread(seg_folder / "segmentation.dcm")
    assert pydicom.dcmread(seg_folder / "segmentation.dcm").Modality == "SEG"
    assert seg.FrameOfReferenceUID == FRAME_OF_REFERENCE and seg.PatientID == "P1"
    described = [seg.get_segment_description(n) for n in seg.segment_numbers]
    assert [each.segment_label for each in described] == ["liver", "tumour"]
    by_place = sorted(paths, key=lambda p: float(pydicom.dcmread(p).ImagePositionPatient[2]))
    uids = [pydicom.dcmread(path).SOPInstanceUID for path in by_place]
    found = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(found, masks.transpose(1, 2, 3, 0))  # with the overlap
    assert not np.array_equal(found, np.roll(masks, 1, axis=1).transpose(1, 2, 3, 0))
    geometry = json.loads((tmp_path / "o/run.json").read_text())["geometry"]
    ours = {tuple(place) for place in places(np.argwhere(masks[0])[:, [2, 1, 0]], geometry["affine"])}
    boxed = seg.get_volume(segment_numbers=[1])
    lps = places(np.argwhere(boxed.array[..., 0] > 0), boxed.affine)
    assert ours == {(-x, -y, z) for x, y, z in lps}
    image = nibabel.load(nifti_folder / "labels.nii.gz")
    np.testing.assert_allclose(image.affine, geometry["affine"], atol=1e-4)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj).transpose(2, 1, 0) > 0, masks.any(axis=0))
    again = write_formats(tmp_path / "o", ["dicom-seg"])[0] / "segmentation.dcm"
    assert pydicom.dcmread(again).SOPInstanceUID == seg.SOPInstanceUID


def test_an_ultrasound_clip_has_no_place_for_either(tmp_path: Path) -> None:
    path = dicom(tmp_path / "us.dcm", blob((N, H, W)).clip(0, 255).astype(np.uint8), FrameTime="40")
    segmented(path, tmp_path / "o")
    with pytest.raises(OutputError, match="no frame of reference"):
        write_formats(tmp_path / "o", ["dicom-seg"])
    with pytest.raises(OutputError, match="its source is no volume; expected NIfTI"):
        write_formats(tmp_path / "o", ["nifti"])


def gone(folder: Path) -> None:
    (folder / "us.dcm").unlink()


def other(folder: Path) -> None:
    (folder / "us.dcm").write_bytes((folder / "us.dcm").read_bytes() + b"\0\0")


@pytest.mark.parametrize(("harm", "line"), [(gone, "is gone; .*put it back"), (other, "another file now")])
def test_a_source_that_is_not_there_is_one_line(tmp_path: Path, harm: Callable[[Path], None], line: str) -> None:
    path = dicom(tmp_path / "us.dcm", blob((N, H, W)).clip(0, 255).astype(np.uint8), FrameTime="40")
    segmented(path, tmp_path / "o")
    harm(tmp_path)
    with pytest.raises(OutputError, match=line):
        write_formats(tmp_path / "o", ["dicom-seg"])
    assert not (tmp_path / "o/formats").exists()


def test_a_source_of_another_kind_is_one_line(tmp_path: Path) -> None:
    volume(tmp_path / "v.nii.gz")
    segmented(tmp_path / "v.nii.gz", tmp_path / "o")
    with pytest.raises(OutputError, match="its source is no DICOM image"):
        write_formats(tmp_path / "o", ["dicom-seg"])
