"""Which files of a folder are its frames, and in which order."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from rtseg.grab import open_source
from rtseg.grab.image_order import frames_in, in_order


def names(*found: str) -> list[str]:
    return [path.name for path in in_order(map(Path, found))]


@pytest.mark.parametrize(
    "right",
    [
        ["t1.png", "t1.25.png", "t1.5.png", "t1.75.png", "t2.png", "t10.125.png"],
        ["frame9.png", "frame10.png", "frame100.png"],
        ["v1.8.png", "v1.9.png", "v1.10.png", "v1.11.png"],  # counters: 1.10 is no decimal
        ["2024.01.02.png", "2024.01.31.png", "2024.2.1.png"],
        ["a_0.5_10.png", "a_0.25_11.png"][::-1],
        ["s1.2.840.9.png", "s1.2.840.10.png"],
        ["2024-01-01T10.20.30.png", "2024-01-01T10.20.31.png"],
        ["A1.PNG", "a2.png", "A10.png"],
        ["x.png", "x1.png", "xy.png"],
    ],
)
def test_numbers_sort_as_numbers(right: list[str]) -> None:
    assert names(*right[::-1]) == names(*right) == right


def write(folder: Path, *found: str) -> None:
    for name in found:
        suffix = Path(name).suffix.lower()
        image_hwc = np.full((4, 6, 3), 90, np.uint8)
        done, coded = cv2.imencode(suffix if suffix in (".png", ".jpg", ".tif", ".webp", ".bmp") else ".png", image_hwc)
        assert done
        (folder / name).write_bytes(coded.tobytes())


def test_the_masks_of_cholecseg8k_are_no_frames(tmp_path: Path) -> None:
    for number in (80, 81, 100):
        stem = f"frame_{number}_endo"
        write(tmp_path, f"{stem}.png", f"{stem}_mask.png", f"{stem}_color_mask.png", f"{stem}_watershed_mask.png")
    source = open_source(tmp_path)
    assert [frame.name for frame in source] == ["frame_80_endo.png", "frame_81_endo.png", "frame_100_endo.png"]
    said = source.account.assumed["pictures"]
    assert "3 frame_#_endo_color_mask.png beside frame_#_endo.png" in said and "3 frame_#_endo_watershed_mask" in said


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        (["0001.jpg", "0002.jpg"], ["0001.png", "0002.png"]),
        (["image_1.png", "image_2.png"], ["mask_1.png", "mask_2.png", "mask_3.png"]),
        (["img-1.jpg", "img-2.jpg"], ["img-1-seg.png"]),
        (["1_rgb.png", "2_rgb.png"], ["1_gt.png", "2_gt.png"]),
        (["frame1.jpg", "frame2.jpg"], ["depth_1.png", "depth_2.png"]),
        (["cat.jpg"], ["cat_mask.png"]),
        (["001.png", "002.png"], ["1_label.png", "2_label.png"]),
        # No other kind of the same: what differs in its numbers, or shares too few.
        (["thumb_1.png", "frame_1.png", "frame_2.png", "frame_3.png"], []),
        (["frame.png", "frame_1.png", "frame_2.png"], []),
        (["1.png", "2.jpg", "3.bmp"], []),
        (["a.png", "ab.png", "abc.png"], []),
        (["mask_1.png", "mask_2.png"], []),  # of masks alone, they are what is asked for
        (["frame_1.png", "frame_1_endo.png", "frame_2_endo.png", "frame_3_endo.png"], []),
    ],
)
def test_other_kinds_of_the_same_pictures_are_left_out_and_said(kept: list[str], left: list[str]) -> None:
    found, said = frames_in([Path(name) for name in (*left, *kept)])
    assert sorted(path.name for path in found) == sorted(kept)
    assert bool(said) == bool(left)


def test_pictures_that_are_not_read_are_said_and_others_are_not(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "2.PNG", "3.WebP", "4.gif", "5.heic", "6.avif", ".hidden.png")
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "7.png").mkdir()
    source = open_source(tmp_path)
    assert [frame.name for frame in source] == ["1.png", "2.PNG", "3.WebP"]
    assert source.account.assumed["pictures"] == "1 .avif, 1 .gif, 1 .heic are not frames and were left out"


def test_a_plain_folder_says_nothing_of_its_pictures(tmp_path: Path) -> None:
    write(tmp_path, "1.png", "2.png")
    assert open_source(tmp_path, fps=25).account.assumed == {}
    assert "25 frames a second" in open_source(tmp_path).account.assumed["rate"]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([*range(1, 20), *range(21, 40)], "20 of f#.png"),
        ([n for n in range(0, 300, 10) if n not in (50, 120)], "50, 120 of f#.png"),
        (range(1, 40), ""),
        ([1, 2, 3, 50, 51, 90], ""),  # two stretches, or what was picked by hand
        ([5], ""),
    ],
)
def test_a_number_that_is_missing_is_told(tmp_path: Path, numbers: list[int], said: str) -> None:
    write(tmp_path, *(f"f{number:03}.png" for number in numbers))
    told = open_source(tmp_path, fps=25).account.assumed.get("numbers", "")
    assert said in told and bool(said) == bool(told)
