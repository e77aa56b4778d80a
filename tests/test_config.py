"""Recipes and stream profiles: what is read, and that each mistake costs one line that names it."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

import rtseg.track
from rtseg.config import POLICIES, MemoryPlan, Publish, Recipe, load_recipe, load_stream
from rtseg.errors import ConfigError
from rtseg.grab import open_source

ROOT = Path(__file__).parents[1]

RECIPE = """
model = "nano"
weights = "w/x.safetensors"
image_size = 512
runtime = "torch"
precision = "bf16"
max_objects = 2
memory = { policy = "fifo", spatial = 7, pointers = 8 }
"""

STREAM = """
source = "clip.mp4"
engine = "e.toml"
target_fps = 30
overlay = "sync"
mask_budget_ms = 80
[publish]
bind = "tcp://127.0.0.1:6000"
topics = ["video", "status"]
[[object]]
id = 1
label = "grasper"
points = [[412, 260, 1]]
[[object]]
id = 2
mask = "m.png"
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    write(tmp_path / "e.toml", RECIPE)
    mask_hw = np.zeros((8, 8), np.uint8)
    mask_hw[2:4] = 1
    cv2.imwrite(str(tmp_path / "m.png"), mask_hw)
    return write(tmp_path / "feed.toml", STREAM)


def test_a_recipe_says_everything(tmp_path: Path) -> None:
    path = write(tmp_path / "e.toml", RECIPE)
    weights = str(tmp_path / "w/x.safetensors")
    assert load_recipe(path) == Recipe("nano", weights, 512, "torch", "bf16", 2, MemoryPlan("fifo", 7, 8), path)


def test_an_empty_recipe_is_the_default(tmp_path: Path) -> None:
    path = write(tmp_path / "e.toml", "")
    assert load_recipe(path, image_size=320) == Recipe(path=path)
    assert load_recipe() == Recipe()


def test_keywords_override_and_their_paths_are_the_callers(tmp_path: Path) -> None:
    path = write(tmp_path / "e.toml", RECIPE)
    recipe = load_recipe(path, weights=Path("y.pt"), precision="fp32", policy="efp")
    assert (recipe.weights, recipe.precision, recipe.memory) == ("y.pt", "fp32", MemoryPlan("efp", 7, 8))
    assert recipe.image_size == 512
    assert load_recipe(load_recipe(path), runtime="cpu").weights == str(tmp_path / "w/x.safetensors")
    with pytest.raises(ConfigError, match=r"unknown key 'precison'; did you mean 'precision'\?"):
        load_recipe(path, precison="fp32")


def test_names_are_not_paths(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "e.toml", 'weights = "package:nano"\nmodel = "sam2.1-tiny"'))
    assert (recipe.weights, recipe.model) == ("package:nano", "sam2.1-tiny")


def test_a_stream_says_everything(stream: Path) -> None:
    profile = load_stream(stream)
    assert (profile.name, profile.source) == ("feed", str(stream.parent / "clip.mp4"))
    assert profile.engine == load_recipe(stream.parent / "e.toml")
    assert (profile.target_fps, profile.overlay, profile.mask_budget_ms) == (30.0, "sync", 80.0)
    assert profile.publish == Publish("tcp://127.0.0.1:6000", ("video", "status"))
    assert profile.objects[0].points == ((412.0, 260.0, 1),)
    assert profile.objects[0].label == "grasper"
    mask_hw = profile.objects[1].mask
    assert mask_hw is not None and mask_hw.shape == (8, 8) and mask_hw.sum() == 16


def test_a_live_stream_says_everything(tmp_path: Path) -> None:
    profile = load_stream(
        write(
            tmp_path / "s.toml",
            """source = "rtsp://tower/1"
pace = "flat-out"
deinterlace = "on"
crop = [10, 20, 300, 200]
carry = "flow"
opacity = 0.5
[control]
bind = "tcp://127.0.0.1:5556"
[metrics]
bind = "127.0.0.1:9464"
[record]
folder = "recordings"
[security]
keys = "../keys"
""",
        )
    )
    assert (profile.pace, profile.deinterlace, profile.crop) == ("flat-out", "on", (10, 20, 300, 200))
    assert (profile.carry, profile.opacity) == ("flow", 0.5)
    assert (profile.control, profile.metrics) == ("tcp://127.0.0.1:5556", "127.0.0.1:9464")
    assert (profile.record, profile.keys) == (tmp_path / "recordings", tmp_path / "../keys")
    bare = load_stream(write(tmp_path / "b.toml", 'source = "rtsp://tower/1"'))
    assert (bare.control, bare.metrics, bare.record, bare.keys) == (None, None, None, None)  # nothing uninvited


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('crop = "circle"', 'crop = \'circle\'; expected "off", "auto" or a box'),
        ("crop = [10, 20, 5, 200]", "x0 < x1"),
        ('carry = "on"', "expected one of: off, flow"),
        ("opacity = 2", "a number, 0.0 to 1.0"),
        ("[control]\nport = 1", "control: unknown key 'port'"),
        ("[record]", "record: 'folder' is missing"),
        ("[security]\nkeys = 1", "security: keys = 1; expected a text"),
    ],
)
def test_a_mistake_in_a_live_stream_is_one_line(tmp_path: Path, line: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)) as error:
        load_stream(write(tmp_path / "s.toml", f'source = "rtsp://tower/1"\n{line}'))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["synthetic:laparoscopy?seconds=60&seed=7", "rtsp://tower/1", "/dev/video0"])
def test_a_source_that_is_no_relative_path_stays(tmp_path: Path, source: str) -> None:
    assert load_stream(write(tmp_path / "s.toml", f'source = "{source}"')).source == source


@pytest.mark.parametrize("path", sorted(ROOT.glob("engines/*.toml")), ids=lambda path: path.name)
def test_the_recipes_of_the_repository_are_read(path: Path) -> None:
    assert load_recipe(path).path == path


@pytest.mark.parametrize("path", sorted(ROOT.glob("streams/*.toml")), ids=lambda path: path.name)
def test_the_profiles_of_the_repository_are_read(path: Path) -> None:
    assert load_stream(path).objects


def test_the_prompts_of_the_demo_lie_on_what_they_name() -> None:
    profile = load_stream(ROOT / "streams/demo.toml")
    frame = next(iter(open_source(profile.source)))
    truth_hw = frame.truth_hw
    assert truth_hw is not None
    for prompt in profile.objects:
        prompt.check(frame.height, frame.width, first=True)
        assert prompt.box is not None
        ys, xs = np.nonzero(truth_hw == prompt.id)
        extent = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert np.abs(np.subtract(prompt.box, extent)).max() < 8
        assert prompt.points and all(truth_hw[int(y), int(x)] == prompt.id for x, y, _ in prompt.points)


def test_policies_are_those_of_the_tracker() -> None:
    assert set(POLICIES) == set(rtseg.track.POLICIES)


def test_the_default_recipe_is_the_one_in_the_repository() -> None:
    path = ROOT / "engines/nano-cpu.toml"
    assert load_recipe(path) == Recipe(memory=MemoryPlan(pointers=4), path=path)  # SAM 2 has 16


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('modle = "nano"', "unknown key 'modle'; did you mean 'model'?"),
        ("image_size = 250", "image_size = 250; expected a multiple of 32"),
        ('image_size = "512"', "image_size = '512'; expected a whole number, 64 to 4096"),
        ("image_size = true", "image_size = True; expected a whole number, 64 to 4096"),
        ('runtime = "gpu"', "runtime = 'gpu'; expected one of: torch, cpu, cuda, tensorrt, auto"),
        ("precision = 16", "precision = 16; expected one of: fp32, bf16, fp16, int16, int8, fp8, auto"),
        ("max_objects = 0", "max_objects = 0; expected a whole number, 1 to 255"),
        ("weights = 3", "weights = 3; expected a text"),
        ('memory = "efp"', "memory: found 'efp'; expected a table of: policy, spatial, pointers"),
        ("memory = { spatail = 3 }", "memory: unknown key 'spatail'; did you mean 'spatial'?"),
        ('memory = { policy = "lru" }', "memory: policy = 'lru'; expected one of: fifo, efp-window, efp"),
        ("model = ", "not TOML"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line(tmp_path: Path, line: str, expected: str) -> None:
    path = write(tmp_path / "e.toml", line)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('source = "clip.mp4"', "", "'source' is missing; expected a text"),
        ("target_fps = 30", "targetfps = 30", "unknown key 'targetfps'; did you mean 'target_fps'?"),
        ("target_fps = 30", "target_fps = 0", "target_fps = 0; expected a number, 0.1 to 1000.0"),
        ('overlay = "sync"', 'overlay = "late"', "overlay = 'late'; expected one of: latest, sync"),
        (
            '"video", "status"',
            '"vido"',
            "publish: topics = ['vido']; expected a list of: video, overlay, masks",
        ),
        ("tcp://127.0.0.1:6000", "127.0.0.1", "publish: bind = '127.0.0.1'; expected an address like tcp://"),
        (
            "[[412, 260, 1]]",
            "[412, 260, 1]",
            "object 1: points = [412, 260, 1]; expected points like [[x, y",
        ),
        ("id = 2", "id = 1", "object 2: id = 1 is taken; expected one table per id"),
        ('mask = "m.png"', 'mask = "n.png"', "n.png' cannot be read as an image"),
        ('"e.toml"', '"f.toml"', "f.toml: cannot be read (No such file or directory); expected a TOML file"),
    ],
)
def test_a_mistake_in_a_stream_is_one_line(stream: Path, old: str, new: str, expected: str) -> None:
    assert old in STREAM
    write(stream, STREAM.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_stream(stream)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
