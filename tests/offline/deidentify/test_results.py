"""`segment` with `deidentify`: what is out-of-body is in no file, and neither are names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch

from rtseg.base.errors import ConfigError
from rtseg.base.types import ImageU8, Prompt
from rtseg.engine.recipe import Recipe, load_recipe
from rtseg.offline import segment
from rtseg.offline.settings import Reading
from rtseg.sam2 import Sam2, get_preset, save_weights
from rtseg.synthetic.source import EndoscopeSource

BODY = "synthetic:laparoscopy?seconds=5&seed=1018&width=160&height=120&fps=25"
INSIDE, OUTSIDE = 30, 6
BOX = Prompt(2, box=(10.0, 20.0, 80.0, 90.0), label="tissue")
NAME = "DOE_JANE_1961"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_weights(Sam2(get_preset("nano-hiera"), 64), path)
    return replace(load_recipe(weights=path, image_size=64), model="nano-hiera")


def face() -> ImageU8:
    """Something that would be known again: stripes and discs on a blue wall."""
    image_hwc = np.full((120, 160, 3), (120, 150, 200), np.uint8)
    image_hwc[::8] = 255
    return np.asarray(cv2.circle(image_hwc, (80, 60), 30, (20, 20, 20), 6), np.uint8)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients") / NAME
    folder.mkdir()
    source = EndoscopeSource(BODY)
    pictures = [*(source.frame(seq).image_hwc for seq in range(INSIDE)), *(face() for _ in range(OUTSIDE))]
    for n, image_hwc in enumerate(pictures):
        cv2.imwrite(str(folder / f"{NAME}_{n:03d}.png"), image_hwc[..., ::-1])
    return folder


def written(out: Path) -> list[ImageU8]:
    """Every picture of a result: of the overlay, and of files."""
    with av.open(str(out / "overlay.mp4")) as video:
        found = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    files = [path for path in out.rglob("*") if path.suffix in (".jpg", ".png") and path.parent.name != "masks"]
    return found + [np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), np.uint8) for path in files]


def shows_face(image_hwc: ImageU8) -> bool:
    """Whether the stripes are there: rows differ from the next as they do in the face."""
    rows = np.float32(image_hwc).mean((1, 2))
    return float(np.abs(np.diff(rows)).mean()) > 6


def run(recording: Path, out: Path, recipe: Recipe, **options: Any) -> dict[str, Any]:
    return segment(recording, {0: [BOX]}, out, recipe, frames="png", **options)


def test_what_is_outside_is_in_no_file(recording: Path, tmp_path: Path, recipe: Recipe) -> None:
    lines: list[str] = []
    run(recording, tmp_path / "a", recipe, deidentify=["out-of-body"], say=lines.append)
    run(recording, tmp_path / "b", recipe)
    count = INSIDE + OUTSIDE
    assert len(written(tmp_path / "a")) == len(written(tmp_path / "b")) == 2 * count
    assert not any(map(shows_face, written(tmp_path / "a")))
    assert sum(map(shows_face, written(tmp_path / "b"))) == 2 * OUTSIDE
    document = json.loads((tmp_path / "a" / "run.json").read_text())["deidentified"]
    assert document["stretches"][-1] == [INSIDE, count - 1, "out-of-body"] or document["stretches"][-1][1] == count - 1
    assert document["hidden"] + document["shown"] == count and document["shown"] > 0
    assert "does not replace a person's check" in document["note"]
    assert any("does not replace a person's check" in line and "de-identified" in line for line in lines)


def test_the_network_sees_the_untouched_picture(recording: Path, tmp_path: Path, recipe: Recipe) -> None:
    run(recording, tmp_path / "a", recipe, deidentify=["out-of-body", "text"])
    run(recording, tmp_path / "b", recipe)
    masks = [sorted((tmp_path / name / "masks").iterdir()) for name in "ab"]
    assert len(masks[0]) == INSIDE + OUTSIDE
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*masks, strict=True))


def test_names_and_times_of_files_are_in_no_file(recording: Path, tmp_path: Path, recipe: Recipe) -> None:
    def named(out: Path) -> list[Path]:
        files = [path for path in out.rglob("*") if path.is_file()]
        return [path for path in files if NAME in path.name or NAME.encode() in path.read_bytes()]

    run(recording, tmp_path / "a", recipe, deidentify=["out-of-body"])
    run(recording, tmp_path / "b", recipe)
    assert named(tmp_path / "a") == [] and len(named(tmp_path / "b")) > 2
    text = (tmp_path / "a" / "run.json").read_text()
    assert "changed_ns" not in text and str(recording.parent) not in text
    assert json.loads(text)["source"] == "source"


def test_a_picture_on_a_gpu_is_refused(recording: Path, tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="--deidentify needs each picture in host memory"):
        segment(recording, {0: [BOX]}, tmp_path / "a", recipe, reading=Reading(decoder="nvdec"), deidentify=["text"])
    assert not (tmp_path / "a").exists()
