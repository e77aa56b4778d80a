from __future__ import annotations

import errno

import numpy as np
import pytest
from PIL import Image

from rtseg.base import files
from rtseg.base.errors import OutputError
from rtseg.base.files import atomic_path, install_folder, part_folder, write_bytes
from rtseg.base.mask_images import write_palette_png


def test_the_file_is_there_only_when_it_is_whole(tmp_path):
    final = tmp_path / "a.txt"
    with atomic_path(final) as part:
        part.write_text("half")
        assert part.parent == tmp_path
        assert not final.exists()
    assert final.read_text() == "half"
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
def test_a_failure_leaves_the_older_file(tmp_path, error):
    final = tmp_path / "a.txt"
    final.write_text("older")
    with pytest.raises(type(error)), atomic_path(final) as part:
        part.write_text("new")
        raise error
    assert final.read_text() == "older"
    assert list(tmp_path.iterdir()) == [final]


def test_a_full_disk_is_one_line(tmp_path):
    final = tmp_path / "a.txt"
    with pytest.raises(OutputError, match=r"a\.txt: cannot be written \(no space left on device\)") as caught:
        with atomic_path(final) as part:
            part.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for final in (tmp_path / "missing" / "a", tmp_path / "file" / "a", tmp_path / "folder", tmp_path / ("a" * 300)):
        with pytest.raises(OutputError, match="cannot be written"), atomic_path(final) as part:
            part.write_text("x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("swaps", [True, False])
def test_a_folder_takes_the_place_of_another_whole(tmp_path, monkeypatch, swaps):
    if not swaps:
        monkeypatch.setattr(files, "exchange", lambda one, other: False)
    final = tmp_path / "a"
    for text in ("older", "newer"):
        with part_folder(final) as part:
            (part / "x").write_text(text)
            install_folder(part, final)
        assert (final / "x").read_text() == text
    assert list(tmp_path.iterdir()) == [final]


def test_a_folder_that_cannot_be_installed_leaves_the_older_one(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "exchange", lambda one, other: False)
    final = tmp_path / "a"
    final.mkdir()
    (final / "x").write_text("older")
    with pytest.raises(OSError), part_folder(final) as part:
        part.rmdir()  # somebody tidied up
        install_folder(part, final, durable=False)
    assert (final / "x").read_text() == "older" and list(tmp_path.iterdir()) == [final]


def test_a_failure_leaves_no_part_of_a_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt), part_folder(tmp_path / "b/a") as part:
        (part / "x").write_text("half")
        raise KeyboardInterrupt
    assert list((tmp_path / "b").iterdir()) == []


def test_a_small_file_is_whole_or_gone(tmp_path):
    (tmp_path / "folder").mkdir()
    write_bytes(tmp_path / "a", b"x")
    with pytest.raises(OutputError, match="folder: cannot be written"):
        write_bytes(tmp_path / "folder", b"x")
    assert (tmp_path / "a").read_bytes() == b"x" and (tmp_path / "folder").is_dir()


def test_palette_png_holds_the_ids(tmp_path):
    ids_hw = np.random.default_rng(0).integers(0, 256, (40, 50)).astype(np.uint8)
    write_palette_png(tmp_path / "a.png", ids_hw)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), ids_hw)
        palette = image.getpalette()
    assert palette[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]  # as in DAVIS
    assert len({tuple(palette[i : i + 3]) for i in range(0, 768, 3)}) == 256
