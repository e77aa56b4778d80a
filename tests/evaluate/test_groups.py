"""Which sequences belong together: clips of one operation, cuts through one patient."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from rtseg.data import open_dataset


def groups(path: Path, layout: str) -> dict[str, str]:
    return {sequence.name: sequence.group for sequence in open_dataset(path, layout).sequences}


def png(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((8, 8), value, np.uint8))


def test_clips_of_cholecseg8k_belong_to_their_video(tmp_path: Path) -> None:
    for clip in ("video01/video01_00080", "video01/video01_00160", "video12/video12_15750"):
        for ending in ("endo", "endo_watershed_mask"):
            png(tmp_path / clip / f"frame_80_{ending}.png", 50)
    assert groups(tmp_path, "cholecseg8k") == {
        "video01/video01_00080": "video01",
        "video01/video01_00160": "video01",
        "video12/video12_15750": "video12",
    }


def test_cuts_and_modalities_of_sa_med2d_belong_to_their_patient(tmp_path: Path) -> None:
    """A case of the same number in another data set is someone else."""
    cases = ("ct_00--A--Case_1--x", "ct_00--A--Case_1--y", "mr_t1--A--Case_1--z", "ct_00--B--Case_1--x")
    for case in cases:
        png(tmp_path / "images" / f"{case}_0000.png")
        png(tmp_path / "masks" / f"{case}_0000--0001_000.png", 255)
    assert groups(tmp_path, "sa-med2d") == dict(zip(cases, ("A--Case_1",) * 3 + ("B--Case_1",), strict=True))


def test_the_test_of_endovis2017_is_of_the_operations_of_its_training(tmp_path: Path) -> None:
    for number in (1, 2):
        video = tmp_path / f"instrument_1_4_training/instrument_dataset_{number}"
        png(video / "left_frames/frame000.png")
        png(video / "ground_truth/Left_Prograsp_Forceps_labels/frame000.png", 10)
    png(tmp_path / "instrument_1_4_testing/instrument_dataset_1/left_frames/frame225.png")
    png(tmp_path / "instrument_2017_test/instrument_dataset_1/TypeSegmentation/frame225.png", 2)
    found = groups(tmp_path, "endovis2017")
    assert len(found) == 3 and set(found.values()) == {"instrument_dataset_1", "instrument_dataset_2"}
    assert {group for name, group in found.items() if name.endswith("_1")} == {"instrument_dataset_1"}
