"""The contact sheet of a clip without truth shows what was followed, and says what is wrong in one line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import pytest

# By its path: `bench` is a folder of scripts beside the package, and no part of it.
_SPEC = importlib.util.spec_from_file_location("bench_sheet", Path(__file__).parents[2] / "bench" / "sheet.py")
assert _SPEC and _SPEC.loader
sheet = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(sheet)

PROFILE = """
source = "synthetic:laparoscopy?seconds=0.24&seed=7&width=160&height=120"
engine = "engine.toml"
[[object]]
id = 1
label = "tool"
box = {box}
"""


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    (tmp_path / "engine.toml").write_text('image_size = 64\nruntime = "torch"\nprecision = "fp32"\n')
    path = tmp_path / "stream.toml"
    path.write_text(PROFILE.format(box="[20, 20, 140, 100]"))
    return path


def test_a_sheet_has_the_frames_that_were_asked_for(stream: Path, tmp_path: Path) -> None:
    shapes = []
    for frames in (4, 6):
        assert sheet.main([str(stream), "--out", str(tmp_path / "new/sheet.jpg"), "--frames", str(frames)]) == 0
        shapes.append(cv2.imread(str(tmp_path / "new/sheet.jpg")).shape)
    assert shapes[0][1] == shapes[1][1] and shapes[1][0] > 1.9 * shapes[0][0]


def test_what_is_wrong_is_one_line(stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream.write_text(PROFILE.format(box="[500, 20, 540, 100]"))
    assert sheet.main([str(stream), "--out", str(tmp_path / "sheet.jpg")]) == 2
    said = capsys.readouterr().err
    assert "500" in said and said.count("\n") == 1
    assert not (tmp_path / "sheet.jpg").exists()
    assert sheet.main([str(stream), "--out", str(tmp_path / "sheet.gif")]) == 2
    assert "FILE.jpg" in capsys.readouterr().err
