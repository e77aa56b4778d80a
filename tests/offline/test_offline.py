"""`segment`: every frame in order, results that agree with one another, and nothing half-written after a failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import rtseg
from rtseg.base.errors import ConfigError, OutputError, PromptError, SourceError
from rtseg.base.types import BoolMask, Prompt
from rtseg.engine.recipe import Recipe
from rtseg.offline import segment

SOURCE = "synthetic:laparoscopy?seconds=0.16&seed=7&width=160&height=120&fps=25"
FRAMES = 4
BOX = Prompt(2, box=(10.0, 20.0, 80.0, 90.0), label="tissue")


def rectangle(x0: int, y0: int, x1: int, y1: int) -> BoolMask:
    mask_hw = np.zeros((120, 160), np.bool_)
    mask_hw[y0:y1, x0:x1] = True
    return mask_hw


def iou(a_hw: BoolMask, b_hw: BoolMask) -> float:
    return float((a_hw & b_hw).sum() / (a_hw | b_hw).sum())


def test_every_file_has_the_masks_of_the_tracker_with_their_edges(tmp_path: Path, recipe: Recipe) -> None:
    segment(SOURCE, {0: [BOX]}, tmp_path / "out", recipe)
    tracker = rtseg.Tracker(rtseg.open_engine(recipe))
    tracker.give(BOX)
    differ = 0
    coco = COCO(str(tmp_path / "out" / "masks.json"))
    for frame in rtseg.open_source(SOURCE):
        masks = tracker.step(frame)
        found_hw = np.asarray(Image.open(tmp_path / "out" / "masks" / f"{frame.seq:05d}.png")) == BOX.id
        assert (found_hw == masks.mask(BOX.id)).all()
        assert (coco.annToMask(coco.loadAnns(coco.getAnnIds(imgIds=frame.seq))[0]) == found_hw).all()
        differ += int((found_hw != replace(masks, guide=None).mask(BOX.id)).sum())
    assert differ  # else the test could not fail


def test_results_agree_with_one_another(tmp_path: Path, recipe: Recipe) -> None:
    seen: list[tuple[int, int | None]] = []
    given_hw = rectangle(80, 30, 140, 100)
    prompts = {1: [Prompt(1, mask=given_hw, label="grasper")], 3: [BOX]}
    out = tmp_path / "out"
    result = segment(SOURCE, prompts, out, recipe, progress=lambda done, total: seen.append((done, total)))

    assert seen == [(i + 1, FRAMES) for i in range(FRAMES)]
    assert sorted(os.listdir(out)) == [
        "manifest.json",
        "masks",
        "masks.json",
        "overlay.mp4",
        "report.html",
        "review.json",
        "run.json",
    ]
    assert sorted(os.listdir(out / "masks")) == [f"{i:05d}.png" for i in range(FRAMES)]
    with av.open(str(out / "overlay.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == FRAMES

    coco = COCO(str(out / "masks.json"))
    assert [len(coco.getAnnIds(imgIds=[i])) for i in range(FRAMES)] == [0, 1, 1, 2]
    assert {c["id"]: c["name"] for c in coco.loadCats([1, 2])} == {1: "grasper", 2: "tissue"}
    for image in coco.loadImgs(coco.getImgIds()):
        assert image["file_name"] == f"{image['id']:05d}.jpg"
        picture = Image.open(out / image["mask_file"])
        assert picture.mode == "P"
        ids_hw = np.asarray(picture)
        covered_hw = np.zeros(ids_hw.shape, bool)
        for entry in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
            mask_hw = coco.annToMask(entry).astype(bool)
            covered_hw |= mask_hw
            assert not (ids_hw == entry["track_id"])[~mask_hw].any()
        assert np.array_equal(ids_hw > 0, covered_hw)
    prompted_hw = np.asarray(Image.open(out / "masks/00001.png")) == 1
    assert iou(prompted_hw, given_hw) > 0.8  # masks are 16 x 16 cells here
    assert iou(prompted_hw, given_hw[:, ::-1]) < 0.5

    run = json.loads((out / "run.json").read_text())
    assert (run["complete"], run["ended"], run["faults"]) == (True, "", [])
    assert run["frames"] == {"in": FRAMES, "shown": FRAMES, "dropped": {}}
    assert {"grab", "segment", "overlay", "write"} == set(run["stages_ms"])
    assert run["stages_ms"]["segment"]["count"] == FRAMES
    assert run["recipe"]["image_size"] == 64
    assert len(run["sha256"]["weights"]) == 64
    assert {**run, "out": str(out)} == json.loads(json.dumps(result, default=str))


def test_the_hash_of_the_prompts_follows_the_prompts(tmp_path: Path, recipe: Recipe) -> None:
    def hashed(name: str, prompts: dict[int, list[Prompt]]) -> str:
        return str(segment(SOURCE, prompts, tmp_path / name, recipe)["sha256"]["prompts"])

    mask_hw = rectangle(80, 30, 140, 100)
    first = hashed("a", {0: [BOX, Prompt(1, mask=mask_hw)]})
    assert first == hashed("b", {0: [Prompt(1, mask=mask_hw), BOX]})
    assert first != hashed("c", {0: [Prompt(1, mask=~mask_hw), BOX]})


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ({}, "no prompts; expected at least one"),
        ({FRAMES: [BOX]}, f"prompt on frame {FRAMES}: {SOURCE} has {FRAMES} frames; expected a frame from 0 to 3"),
        ({3: [Prompt(1, points=((160.0, 5.0, 1),))]}, "frame 3: .*lies outside the 160x120 frame"),
        ({3: [Prompt(1, mask=np.eye(4, dtype=bool))]}, "frame 3: .*the mask is 4x4, the frame is 160x120"),
        ({3: [Prompt(1, points=((5.0, 5.0, 0),))]}, "frame 3: .*only background points"),
        (
            {0: [Prompt(i, box=BOX.box) for i in range(1, 6)]},
            "prompts for 5 objects; the recipe says max_objects = 4; .* --max-objects 5",
        ),
    ],
)
def test_a_wrong_prompt_leaves_nothing(
    tmp_path: Path, recipe: Recipe, prompts: dict[int, list[Prompt]], expected: str
) -> None:
    with pytest.raises(PromptError, match=expected.replace("?", r"\?")) as caught:
        segment(SOURCE, prompts, tmp_path / "out", recipe)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_broken_source_leaves_nothing(tmp_path: Path, recipe: Recipe) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"not a video")
    with pytest.raises(SourceError, match=r"clip\.mp4"):
        segment(str(video), {0: [BOX]}, tmp_path / "out", recipe)
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_an_earlier_result_is_kept_unless_forced(tmp_path: Path, recipe: Recipe) -> None:
    out = tmp_path / "out"
    segment(SOURCE, {0: [BOX]}, out, recipe)
    before = (out / "run.json").read_text()
    with pytest.raises(ConfigError, match="--force"):
        segment(SOURCE, {1: [BOX]}, out, recipe)
    assert (out / "run.json").read_text() == before
    segment(SOURCE, {1: [BOX]}, out, recipe, force=True)
    assert (out / "run.json").read_text() != before
    assert os.listdir(tmp_path) == ["out"]


FULL_DISK = """
import resource, sys
sys.dont_write_bytecode = True  # Python would leave half a file of each module that it imports from now on
from rtseg.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("room", "code"),
    [pytest.param(0, 2, marks=pytest.mark.slow), (3000, 2), pytest.param(10_000_000, 0, marks=pytest.mark.slow)],
)
def test_a_disk_without_room_is_one_line_and_leaves_nothing(
    tmp_path: Path, recipe: Recipe, room: int, code: int
) -> None:
    prompts = tmp_path / "p.json"
    prompts.write_text('[{"frame": 0, "id": 2, "box": [10, 20, 80, 90]}]')
    engine = tmp_path / "e.toml"
    engine.write_text(f'model = "nano-hiera"\nweights = "{recipe.weights}"\nimage_size = 64\n')
    words = ["segment", SOURCE, "--prompts", str(prompts), "--out", str(tmp_path / "out"), "--engine", str(engine)]
    command = [sys.executable, "-c", FULL_DISK, str(room), *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    if code:
        assert result["kind"] == OutputError.__name__
        assert [line for line in done.stderr.splitlines() if line.startswith("rtseg segment: ")]
        assert "Traceback" not in done.stderr
        assert "cannot be written" in done.stderr
        assert sorted(os.listdir(tmp_path)) == ["e.toml", "p.json"]
    else:
        assert result["frames"]["in"] == FRAMES


def test_a_prompt_that_is_too_small_is_told_of(tmp_path: Path, recipe: Recipe) -> None:
    said: list[str] = []
    prompts = {0: [Prompt(1, mask=rectangle(80, 30, 86, 36))], 2: [Prompt(2, box=(50, 10, 51, 100))]}
    result = segment(SOURCE, prompts, tmp_path / "small", recipe, say=said.append)
    assert result["warnings"] == said == json.loads((tmp_path / "small" / "run.json").read_text())["warnings"]
    assert len(said) == 2 and said[0].startswith("frame 0: object 1: the mask covers 36 pixels")
    assert said[1].startswith("frame 2: object 2: the box covers 90 pixels") and "image_size 64" in said[1]


def test_of_an_ordinary_prompt_nothing_is_said(tmp_path: Path, recipe: Recipe) -> None:
    said: list[str] = []
    prompts = {0: [Prompt(1, mask=rectangle(80, 30, 140, 100))], 2: [BOX]}
    assert segment(SOURCE, prompts, tmp_path / "out", recipe, say=said.append)["warnings"] == said == []


def test_cuts_are_said(tmp_path: Path, recipe: Recipe) -> None:
    """Where another scene begins, in `run.json` and in a line; without one there is no line, and the list is empty."""
    from tests.track.test_cut_detector import tissue, window

    one, other = tissue(1), tissue(2)
    for name, pictures in {
        "cut": [window(one, 40 + i) for i in range(5)] + [window(other, 40 + i) for i in range(3)],
        "whole": [window(one, 40 + i) for i in range(8)],
    }.items():
        folder, said = tmp_path / name, list[str]()
        folder.mkdir()
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / f"{i:03d}.png")
        out = tmp_path / f"{name}-out"
        segment(str(folder), {0: [Prompt(1, box=(10, 20, 80, 90))]}, out, recipe, say=said.append)
        run = json.loads((out / "run.json").read_text())
        assert run["cuts"] == ([5] if name == "cut" else [])
        assert sum("another scene begins with frame 5;" in line for line in said) == (name == "cut")
        masks = [np.asarray(Image.open(out / f"masks/{i:03d}.png")).any() for i in range(8)]
        assert not any(masks[5:]) or name == "whole"
