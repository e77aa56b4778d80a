"""`python -m bench.cuts`: which clips are joined, and what is made of what a tracker says of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.track.test_cut_detector import tissue, window

_SPEC = importlib.util.spec_from_file_location("bench_cuts", Path(__file__).parents[2] / "bench" / "cuts.py")
assert _SPEC and _SPEC.loader
cuts = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = cuts
_SPEC.loader.exec_module(cuts)


@pytest.fixture()
def data(tmp_path: Path) -> Path:
    """Three clips of six pictures."""
    for seed in range(3):
        for kind in ("JPEGImages", "Annotations"):
            (tmp_path / kind / f"clip{seed}").mkdir(parents=True)
        for i in range(6):
            mask_hw = np.zeros((240, 320), np.uint8)
            mask_hw[60:120, 60 + i : 140 + i] = 255 * (i > 0)
            cv2.imwrite(str(tmp_path / f"JPEGImages/clip{seed}/{i:05d}.jpg"), window(tissue(seed), 40 + i)[..., ::-1])
            cv2.imwrite(str(tmp_path / f"Annotations/clip{seed}/{i:05d}.png"), mask_hw)
    return tmp_path


def test_pairs_are_of_two_clips_and_the_same_each_time(data: Path) -> None:
    found = cuts.clips([data])
    assert [clip.name for clip in found] == ["clip0", "clip1", "clip2"] and found[0].first() == 1
    joined = list(cuts.pairs(found, 6, 0))
    assert all(a is not b for a, b in joined) and len({(a.name, b.name) for a, b in joined}) == 6
    assert joined == list(cuts.pairs(found, 6, 0)) != list(cuts.pairs(found, 6, 1))


def test_a_table_is_made(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(data), "--policy", "efp", "--pairs", "2", "--runtime", "onnx", "--json", str(tmp_path / "out.json")]
    assert cuts.main(words) == 0
    before, after = capsys.readouterr().out.splitlines()[-2:]
    assert before.startswith("| efp ") and "0 of 4, 0" in before
    assert after.startswith("| efp, cuts heeded ") and "4 of 4, 0" in after and "100% the same" in after
    assert (tmp_path / "out.json").exists()
