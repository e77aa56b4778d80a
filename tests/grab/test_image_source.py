"""Folders of images: order, depth, sizes, and images that are not whole."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtseg.base.errors import SourceError
from rtseg.grab import open_source

NOISE_HWC = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8), (40, 30))


def save(path: Path, image: np.ndarray) -> None:
    assert cv2.imwrite(str(path), image)


def test_natural_order_identity_and_rate(tmp_path: Path) -> None:
    for number in (10, 9, 1, 100):
        save(tmp_path / f"frame{number}.png", np.full((4, 6, 3), number, np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._frame1.png").write_bytes(b"left behind by a file manager")
    source = open_source(tmp_path, fps=12.5)
    frames = list(source)
    assert [int(f.image_hwc[0, 0, 0]) for f in frames] == [1, 9, 10, 100]
    assert [f.seq for f in frames] == [f.pts for f in frames] == [0, 1, 2, 3]
    assert (source.width, source.height, source.fps, source.frame_count) == (6, 4, 12.5, 4)
    assert frames[0].time_base == Fraction(2, 25) and frames[0].session == source.session
    assert [f.seq for f in source] == [0, 1, 2, 3]


def test_twenty_five_frames_a_second_unless_told(tmp_path: Path) -> None:
    save(tmp_path / "a.png", NOISE_HWC)
    assert open_source(tmp_path).fps == 25


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".TIF"])
def test_lossless_images_arrive_as_rgb(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"a{suffix}", NOISE_HWC)
    (frame,) = open_source(tmp_path)
    np.testing.assert_array_equal(frame.image_hwc, NOISE_HWC[..., ::-1])


def test_jpeg_is_close(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", NOISE_HWC)
    (frame,) = open_source(tmp_path)
    difference = np.abs(frame.image_hwc.astype(int) - NOISE_HWC[..., ::-1]).mean()
    swapped = np.abs(frame.image_hwc.astype(int) - NOISE_HWC).mean()
    assert difference < 8 < 30 < swapped


def test_grey_deep_and_transparent_become_8_bit_rgb(tmp_path: Path) -> None:
    save(tmp_path / "1.png", np.full((4, 6), 77, np.uint8))
    save(tmp_path / "2.png", np.full((4, 6), 200 * 257, np.uint16))
    save(tmp_path / "3.png", np.full((4, 6, 4), (10, 20, 30, 128), np.uint8))
    grey, deep, transparent = (f.image_hwc for f in open_source(tmp_path))
    assert grey.shape == deep.shape == transparent.shape == (4, 6, 3)
    assert (grey == 77).all() and (deep == 200).all() and (transparent == (30, 20, 10)).all()


def test_another_size_is_named(tmp_path: Path) -> None:
    save(tmp_path / "1.png", NOISE_HWC)
    save(tmp_path / "2.png", NOISE_HWC[:20])
    frames = iter(open_source(tmp_path))
    next(frames)
    with pytest.raises(SourceError, match=r"2\.png: 40x20, but the first image is 40x30"):
        next(frames)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_a_cut_image_is_named_and_never_shown(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"1{suffix}", np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))
    coded = (tmp_path / f"1{suffix}").read_bytes()
    (tmp_path / f"2{suffix}").write_bytes(coded[: len(coded) * 2 // 3])
    frames = iter(open_source(tmp_path))
    next(frames)
    with pytest.raises(SourceError, match=f"2{suffix}") as error:
        next(frames)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "1.png").write_bytes(content)
    with pytest.raises(SourceError, match=r"1\.png: not a readable image"):
        open_source(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no images in this folder"):
        open_source(tmp_path)


def test_the_account_counts_what_was_shown(tmp_path: Path) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    source = open_source(tmp_path)
    frames = iter(source)
    next(frames)
    assert source.account.shown == 1
    assert len(list(source)) == source.account.shown == source.account.count == 3
