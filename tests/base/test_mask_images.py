"""Mask images: one object in black and white, or picked out of several; what could mean two things is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rtseg.base.errors import PromptError
from rtseg.base.mask_images import write_palette_png
from rtseg.base.prompt_files import load_prompts
from rtseg.base.types import BoolMask

H, W = 40, 60
MASK_HW = np.zeros((H, W), bool)
MASK_HW[10:30, 12:40] = True
IDS_HW = np.zeros((H, W), np.uint8)
IDS_HW[10:30, 12:40], IDS_HW[32:38, 5:20], IDS_HW[2:6, 50:58] = 1, 2, 5
BLOB_HW = ((np.arange(H)[:, None] - 20) ** 2 + (np.arange(W) - 30) ** 2 < 150).astype(np.uint8)


def save(folder: Path, image: Image.Image, name: str = "m.png", **options: Any) -> None:
    image.save(folder / name, **options)


def read(folder: Path, name: str = "m.png", **said: Any) -> BoolMask:
    """The mask that a prompt file with this image gives."""
    (folder / "p.json").write_text(json.dumps([{"frame": 0, "id": 1, "mask": name, **said}]))
    mask_hw = load_prompts(folder / "p.json")[0][0].mask
    assert mask_hw is not None
    return mask_hw


def refused(folder: Path, name: str = "m.png", **said: Any) -> str:
    with pytest.raises(PromptError) as caught:
        read(folder, name, **said)
    line = str(caught.value)
    assert line.startswith(f"{folder / 'p.json'}: entry 1: ") and "\n" not in line and len(line) < 1000
    return line


def palette(ids_hw: np.ndarray[Any, Any]) -> Image.Image:
    """As an id map of DAVIS: numbers, and a palette in which two of them look alike."""
    image = Image.fromarray(ids_hw, "P")
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 0, 0, 255])
    return image


KINDS: dict[str, Callable[[], Image.Image]] = {
    "one bit": lambda: Image.fromarray(MASK_HW),
    "0/1": lambda: Image.fromarray(MASK_HW.astype(np.uint8)),
    "0/255": lambda: Image.fromarray(MASK_HW.astype(np.uint8) * 255),
    "16 bits 0/1": lambda: Image.fromarray(MASK_HW.astype(np.uint16)),
    "16 bits 0/65535": lambda: Image.fromarray(MASK_HW.astype(np.uint16) * 65535),
    "colours that are grey": lambda: Image.fromarray(MASK_HW.astype(np.uint8) * 255).convert("RGB"),
    "opaque alpha": lambda: Image.fromarray(MASK_HW.astype(np.uint8) * 255).convert("RGBA"),
    "opaque grey alpha": lambda: Image.fromarray(MASK_HW.astype(np.uint8) * 255).convert("LA"),
    "a palette": lambda: palette(MASK_HW.astype(np.uint8)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_black_and_white_is_read_however_it_was_saved(tmp_path: Path, kind: str) -> None:
    save(tmp_path, KINDS[kind]())
    np.testing.assert_array_equal(read(tmp_path), MASK_HW)


def test_one_object_of_an_id_map_is_picked_by_its_number(tmp_path: Path) -> None:
    for image in (palette(IDS_HW), Image.fromarray(IDS_HW), Image.fromarray(IDS_HW.astype(np.uint16) * 300)):
        save(tmp_path, image)
        scale = 300 if image.mode.startswith("I") else 1
        for number in (1, 2, 5):
            np.testing.assert_array_equal(read(tmp_path, value=number * scale), number == IDS_HW)
        line = refused(tmp_path)
        assert f"0, {scale}, {2 * scale}, {5 * scale}; expected bool, 0/1 or 0/255; for one object" in line
        assert line.endswith(f'which: "value": {scale}')
        assert f"has no pixel of value = 3; it has the values 0, {scale}, " in refused(tmp_path, value=3)


def test_our_own_results_can_be_given_back(tmp_path: Path) -> None:
    write_palette_png(tmp_path / "m.png", IDS_HW)
    np.testing.assert_array_equal(read(tmp_path, value=2), IDS_HW == 2)
    assert '"value": 1' in refused(tmp_path)


def test_one_colour_of_a_coded_picture_is_picked(tmp_path: Path) -> None:
    colors = np.zeros((6, 3), np.uint8)
    colors[[1, 2, 5]] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    save(tmp_path, Image.fromarray(colors[IDS_HW]))
    np.testing.assert_array_equal(read(tmp_path, value=[0, 255, 0]), IDS_HW == 2)
    line = refused(tmp_path)
    assert "has the colours [0, 0, 0], [0, 0, 255], [0, 255, 0], [255, 0, 0]; expected black and white" in line
    assert "has no pixel of value = [1, 2, 3]; it has [0, 0, 0], [0, 0, 255]" in refused(tmp_path, value=[1, 2, 3])
    assert "has colours; expected a colour to pick" in refused(tmp_path, value=1)
    save(tmp_path, palette(IDS_HW))
    np.testing.assert_array_equal(read(tmp_path, value=[0, 0, 255]), IDS_HW == 5)  # by its colour in the palette


@pytest.mark.parametrize("value", [True, "1", 1.5, -1, 65536, [1, 2], [1, 2, 256], [1, 2, 3, 4], None, {}, "red"])
def test_a_value_is_a_number_or_a_colour(tmp_path: Path, value: Any) -> None:
    save(tmp_path, Image.fromarray(IDS_HW))
    assert "; expected the number of an object, 0 to 65535, or a colour [r, g, b]" in refused(tmp_path, value=value)


def test_a_value_needs_a_mask(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('[{"frame": 0, "id": 1, "points": [[1, 2, 1]], "value": 3}]')
    with pytest.raises(PromptError, match="entry 1: found a value without a mask"):
        load_prompts(tmp_path / "p.json")


def test_an_alpha_channel_is_not_guessed_at(tmp_path: Path) -> None:
    white = np.full((H, W, 4), 255, np.uint8)
    white[..., 3] = MASK_HW * 255
    save(tmp_path, Image.fromarray(white))
    assert "has an alpha channel (77% of it is not opaque); expected black and white without one" in refused(tmp_path)
    save(tmp_path, Image.fromarray(white[..., 2:]))
    assert "has an alpha channel" in refused(tmp_path)


def test_white_everywhere_and_black_everywhere_say_nothing(tmp_path: Path) -> None:
    for value in (1, 255):
        save(tmp_path, Image.new("L", (W, H), value))
        assert "covers all of its 60x40 pixels; expected background too" in refused(tmp_path)
    save(tmp_path, Image.new("RGB", (W, H), (255, 255, 255)))
    assert "covers all of its 60x40 pixels" in refused(tmp_path)
    save(tmp_path, Image.new("L", (W, H), 0))
    assert "is empty; expected at least one pixel" in refused(tmp_path)


def test_soft_edges_are_refused_where_they_might_be_ids(tmp_path: Path) -> None:
    soft = Image.fromarray(MASK_HW.astype(np.uint8) * 255).resize((W * 2 + 7, H * 2 + 3), Image.Resampling.LANCZOS)
    save(tmp_path, soft)
    assert "soft edges? threshold them at half" in refused(tmp_path)
    save(tmp_path, Image.fromarray(MASK_HW * np.uint8(128)))
    assert 'with 0, 128; expected bool, 0/1 or 0/255; for one object of an id map say which: "value": 128' in refused(
        tmp_path
    )


def test_a_lossy_mask_is_cut_at_half_where_it_is_nearly_black_and_white(tmp_path: Path) -> None:
    large_hw = np.kron(BLOB_HW, np.ones((8, 8), np.uint8))
    for quality in (50, 75, 95):
        save(tmp_path, Image.fromarray(large_hw * 255), "m.jpg", quality=quality)
        found_hw = read(tmp_path, "m.jpg")
        assert (found_hw != large_hw).mean() < 0.002
    save(tmp_path, Image.fromarray(np.kron(IDS_HW * 40, np.ones((8, 8), np.uint8))), "m.jpg")
    assert "is a JPEG with" in refused(tmp_path, "m.jpg") and "greys" in refused(tmp_path, "m.jpg")
    assert "is a JPEG, which blurs values" in refused(tmp_path, "m.jpg", value=40)
    save(tmp_path, Image.new("L", (W, H), 250), "m.jpg")
    assert "covers all" in refused(tmp_path, "m.jpg")


def test_files_that_are_no_one_picture_are_refused(tmp_path: Path) -> None:
    good = Image.fromarray(MASK_HW.astype(np.uint8) * 255)
    save(tmp_path, good, "two.tif", save_all=True, append_images=[good])
    assert "holds 2 pictures; expected one" in refused(tmp_path, "two.tif")
    save(tmp_path, good)
    whole = (tmp_path / "m.png").read_bytes()
    noise = np.random.default_rng(0).integers(0, 2, (200, 200)).astype(np.uint8)
    save(tmp_path, Image.fromarray(noise), "cut.png")
    noisy = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(noisy[: len(noisy) // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    names = ("cut.png", "text.png", "empty.png", "folder.png", "absent.png", "x" * 300 + ".png", "~nobody-here/m.png")
    for name in names:
        line = refused(tmp_path, name)
        assert "cannot be read as an image (" in line or "home folder" in line
    assert (tmp_path / "m.png").read_bytes() == whole and read(tmp_path).any()


def test_the_orientation_of_a_photographed_mask_is_obeyed(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    save(tmp_path, Image.fromarray(MASK_HW.astype(np.uint8) * 255), exif=exif)
    np.testing.assert_array_equal(read(tmp_path), MASK_HW[::-1, ::-1])


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    save(tmp_path / "home", Image.fromarray(MASK_HW))
    np.testing.assert_array_equal(read(tmp_path, "~/m.png"), MASK_HW)


def test_a_palette_says_which_number_is_the_background(tmp_path: Path) -> None:
    image = Image.fromarray(np.where(MASK_HW, 0, 1).astype(np.uint8), "P")
    image.putpalette([255, 255, 255, 0, 0, 0])  # white is 0
    for name in ("m.png", "m.gif", "m.bmp"):
        save(tmp_path, image, name)
        np.testing.assert_array_equal(read(tmp_path, name), MASK_HW)
    image.putpalette([255, 0, 0, 0, 0, 0])  # as a program that makes files small leaves it: the object is 0
    save(tmp_path, image)
    assert "has a palette with [255, 0, 0] as 0; expected black as the background, or which" in refused(tmp_path)
    np.testing.assert_array_equal(read(tmp_path, value=[255, 0, 0]), MASK_HW)
    np.testing.assert_array_equal(read(tmp_path, value=0), MASK_HW)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "F", "I", "RGBX"])
def test_pictures_of_odd_kinds_are_masks_or_one_line(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(MASK_HW.astype(np.uint8) * 255)
    image = (
        Image.new(mode, (W, H))
        if mode == "LAB"
        else grey.convert("RGB").convert(mode)
        if len(mode) > 1
        else grey.convert(mode)
    )
    image.save(tmp_path / "m.tif")
    try:
        mask_hw = read(tmp_path, "m.tif")
    except PromptError as e:
        assert "\n" not in str(e) and "expected" in str(e)
    else:
        np.testing.assert_array_equal(mask_hw, MASK_HW)


@pytest.mark.parametrize("rows", [(0, 48), (7, 20), (0, 1), (47, 48), (0, 0)])
def test_a_written_palette_png_is_read_back_as_it_was(tmp_path: Path, rows: tuple[int, int]) -> None:
    """With objects at any height, or none; and its palette is DAVIS's: red, green, olive, ..."""
    ids_hw = np.zeros((48, 65), np.uint8)
    ids_hw[rows[0] : rows[1]] = np.random.default_rng(rows).integers(0, 256, (rows[1] - rows[0], 65))
    write_palette_png(tmp_path / "x.png", ids_hw)
    with Image.open(tmp_path / "x.png") as image:
        image.verify()
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "P" and np.array_equal(np.asarray(image), ids_hw)
        assert (image.getpalette() or [])[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
