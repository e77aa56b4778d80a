"""`python -m bench.accuracy` on little videos: who is followed, what counts, and what is printed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import rtseg
from rtseg.adapt.data import HELD_OUT_SEED, Sequence

# By its path: `bench` is a folder of scripts beside the package, and no part of it.
_SPEC = importlib.util.spec_from_file_location("bench_accuracy", Path(__file__).parents[2] / "bench" / "accuracy.py")
assert _SPEC and _SPEC.loader
accuracy = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = accuracy
_SPEC.loader.exec_module(accuracy)


@pytest.fixture(scope="module")
def engine() -> rtseg.Engine:
    return rtseg.open_engine(image_size=64)


@pytest.fixture
def squares() -> Sequence:
    """Objects 1 and 2 from the first frame on, 3 from the second; 2 leaves."""
    ids_thw = np.zeros((5, 60, 80), np.uint8)
    for t in range(5):
        ids_thw[t, 10:40, 5 + 2 * t : 35 + 2 * t] = 1
        ids_thw[t, 45:58, 50:70] = 2 * (t < 3)
        ids_thw[t, 0:8, 60:80] = 3 * (t > 0)
    image_thwc = np.stack([40 + 80 * ids_thw, 200 - 60 * ids_thw, 90 + 0 * ids_thw], axis=-1)
    return Sequence("squares", image_thwc.astype(np.uint8), ids_thw)


class Oracle:
    """A tracker that knows the truth, but never speaks of the third frame."""

    truth = np.zeros(0)

    def __init__(self, engine: object, policy: str) -> None:
        self.t = -1

    def prompt(self, object_id: int, mask: np.ndarray) -> None:
        assert mask.any()

    def step(self, image_hwc: np.ndarray) -> Oracle:
        self.t += 1
        return self

    def mask(self, object_id: int) -> np.ndarray:
        return np.asarray((self.truth[self.t] == object_id) & (self.t not in (0, 2)))


def test_what_counts(engine: rtseg.Engine, squares: Sequence, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first frame does not; an absent object that is not seen is right; a miss is 0."""
    monkeypatch.setattr(Oracle, "truth", squares.ids_thw)
    monkeypatch.setattr("rtseg.adapt.validate.Tracker", Oracle)
    score = accuracy.score(engine, "little", squares, "efp", "mask")
    assert score.iou_per_object == {1: 0.75, 2: 0.75} and score.iou == 0.75
    assert (score.frames, score.width, score.height) == (5, 80, 60)
    monkeypatch.setattr(Oracle, "truth", np.where(squares.ids_thw == 2, 2, 0))
    assert accuracy.score(engine, "little", squares, "efp", "mask").iou_per_object == {1: 0.0, 2: 0.75}


def test_the_real_tracker_is_asked(engine: rtseg.Engine, squares: Sequence) -> None:
    masks = accuracy.follow(engine, squares, "efp")
    tracker = rtseg.Tracker(engine, "efp")
    for i in (1, 2):
        tracker.prompt(i, mask=squares.ids_thw[0] == i)
    for t, image_hwc in enumerate(squares.image_thwc):
        expected = tracker.step(image_hwc)
        assert set(masks) == set(expected.ids) == {1, 2}
        assert all(np.array_equal(masks[i][t], expected.mask(i)) for i in masks)


def test_means_are_over_objects(engine: rtseg.Engine) -> None:
    def one(name: str, ious: dict[int, float], policy: str = "efp") -> object:
        return accuracy.Score("synthetic", name, policy, 9, 8, 6, ious, 1.0)

    scores = [one("a", {1: 0.9, 2: 0.6}), one("b", {1: 0.3}), one("a", {1: 0.5, 2: 0.5}, "fifo")]
    result = accuracy.report(engine, scores)
    assert result["mean_iou"] == {"synthetic": {"efp": 0.6, "fifo": 0.5}}
    assert result["sequences"][0]["iou"] == 0.75


def test_the_command(monkeypatch: pytest.MonkeyPatch, squares: Sequence, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(accuracy, "read_sequence", lambda folder, name, side: squares)
    command = ["--size", "64", "--frames", "2", "--policy", "fifo", "efp"]
    assert accuracy.main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["image_size"] == 64 and len(result["weights_sha256"]) == 64
    assert set(result["mean_iou"]) == {"robotic-tools", "davis-subset", "synthetic"}
    assert all(set(means) == {"fifo", "efp"} for means in result["mean_iou"].values())
    assert {s["frames"] for s in result["sequences"]} == {2} and len(result["sequences"]) == 2 * (1 + 4 + 3)
    assert f"synthetic-{HELD_OUT_SEED}" in {s["sequence"] for s in result["sequences"]}
    assert accuracy.main(command) == 0
    printed = capsys.readouterr().out
    assert "IoU of nano at 64 px" in printed and result["weights_sha256"][:12] in printed


def test_what_is_missing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert accuracy.main(["--data", str(tmp_path)]) == 2
    assert "no JPEGImages/robotic-val" in capsys.readouterr().err
    assert accuracy.main(["--weights", str(tmp_path / "absent.pt")]) == 2
    assert "absent.pt: no such file" in capsys.readouterr().err
