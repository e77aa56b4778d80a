"""The example that people copy first: the code of README.md and of `rtseg`'s docstring runs as it stands."""

from __future__ import annotations

import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import rtseg

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "rtseg" / "sam2" / "shipped" / "nano.safetensors"
CLIP = "synthetic:laparoscopy?seconds=0.16&seed=3&width=320&height=240"


def read_me() -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if "open_engine" in block]
    return code


def docstring() -> str:
    return textwrap.dedent((rtseg.__doc__ or "").split("\n\n")[1])


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples name: `engines/nano-cpu.toml` and `clip.mp4`, 1280x720."""
    shutil.copytree(ROOT / "engines", tmp_path / "engines", ignore=shutil.ignore_patterns("built"))
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (1280, 720))
    for frame in rtseg.open_source("synthetic:laparoscopy?seconds=0.12&seed=7"):
        writer.write(np.ascontiguousarray(frame.image_hwc[..., ::-1]))
    writer.release()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("code", [read_me(), docstring()], ids=["README.md", "rtseg.__doc__"])
def test_the_code_that_people_copy(code: str, workplace: Path) -> None:
    names: dict[str, Any] = {"rtseg": rtseg}
    exec(compile(code, "example", "exec"), names)
    masks = names["masks"]
    assert masks.seq == names["frame"].seq == 2 and masks.ids == (1,)
    assert masks.mask(1).shape == (720, 1280) and masks.label(1) == "grasper"
    (workplace / "clip.mp4").unlink()
    with pytest.raises(rtseg.RtsegError, match="clip.mp4"):
        exec(compile(code, "example", "exec"), {"rtseg": rtseg})


@pytest.mark.parametrize("kind", ["points", "box", "mask"])
def test_one_prompt_then_frames(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of prompt means one tool, and the tracker stays on it; a `Frame` and a bare array are the same."""
    monkeypatch.chdir(ROOT)
    engine = rtseg.open_engine("engines/nano-cpu.toml", weights=str(WEIGHTS), runtime="torch", precision="fp32")
    tracker, arrays = (rtseg.Tracker(engine, policy="efp-window") for _ in range(2))
    overlaps: dict[int, list[float]] = {1: [], 2: []}
    for frame in rtseg.open_source(CLIP):
        assert frame.truth_hw is not None
        if frame.seq == 0:
            prompt = prompt_for(kind, frame.truth_hw == 1)
            tracker.prompt(7, label="grasper", **prompt)
            arrays.prompt(7, label="grasper", **prompt)
        masks, same = tracker.step(frame), arrays.step(frame.image_hwc)
        assert masks.ids == (7,) and masks.label(7) == "grasper" and masks.seq == frame.seq
        assert masks.logits(7).shape == masks.mask(7).shape == (frame.height, frame.width) == (240, 320)
        assert masks.logits(7).dtype == np.float32 and masks.mask(7).dtype == bool
        assert np.array_equal(masks.mask(7), masks.logits(7) > 0)
        assert 0.5 < masks.score(7) <= 1
        assert np.array_equal(masks.logits(7), same.logits(7))
        for tool, found in overlaps.items():
            truth_hw = frame.truth_hw == tool
            found.append(float((masks.mask(7) & truth_hw).sum() / (masks.mask(7) | truth_hw).sum()))
    assert len(overlaps[1]) == 4
    assert np.mean(overlaps[1]) > np.mean(overlaps[2])  # it is the tool that was meant, more than the other one
    if kind == "mask":
        assert min(overlaps[1]) > 0.7 and max(overlaps[2]) < 0.1


def prompt_for(kind: str, truth_hw: np.ndarray) -> dict[str, Any]:
    """What a person would say about this object: a click in its thickest part, a box around it, or its mask."""
    if kind == "mask":
        return {"mask": truth_hw}
    rows, columns = np.nonzero(truth_hw)
    if kind == "box":
        return {"box": (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)}
    depth_hw = cv2.distanceTransform(truth_hw.astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(depth_hw.argmax(), depth_hw.shape)
    return {"points": [(int(x), int(y), 1)]}
