"""Engine recipes: what is read, that each mistake costs one line that names it, and what is warned of."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from rtseg.base.errors import ConfigError
from rtseg.engine import open_engine
from rtseg.engine.recipe import MemorySettings, Recipe, load_recipe

ROOT = Path(__file__).parents[2]

RECIPE = """
model = "nano"
weights = "w/x.safetensors"
image_size = 512
runtime = "torch"
precision = "bf16"
max_objects = 2
device = "cuda:1"
memory = { policy = "fifo", spatial = 7, pointers = 8 }
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_recipe_says_everything(tmp_path: Path) -> None:
    path = write(tmp_path / "e.toml", RECIPE)
    weights = str(tmp_path / "w/x.safetensors")
    assert load_recipe(path) == Recipe(
        "nano", weights, 512, "torch", "bf16", 2, MemorySettings("fifo", 7, 8), path, "cuda:1"
    )


def test_an_empty_recipe_is_the_default(tmp_path: Path) -> None:
    path = write(tmp_path / "e.toml", "")
    assert load_recipe(path, image_size=320) == Recipe(path=path)
    assert load_recipe() == Recipe()


def test_keywords_override_and_their_paths_are_the_callers(tmp_path: Path) -> None:
    path = write(tmp_path / "e.toml", RECIPE)
    recipe = load_recipe(path, weights=Path("y.pt"), precision="fp32", policy="efp")
    assert (recipe.weights, recipe.precision, recipe.memory) == ("y.pt", "fp32", MemorySettings("efp", 7, 8))
    assert recipe.image_size == 512
    assert load_recipe(load_recipe(path), runtime="cpu").weights == str(tmp_path / "w/x.safetensors")
    with pytest.raises(ConfigError, match=r"unknown key 'precison'; did you mean 'precision'\?"):
        load_recipe(path, precison="fp32")


def test_names_are_not_paths(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path / "e.toml", 'weights = "package:nano"\nmodel = "sam2.1-tiny"'))
    assert (recipe.weights, recipe.model) == ("package:nano", "sam2.1-tiny")


@pytest.mark.parametrize("path", sorted(ROOT.glob("engines/*.toml")), ids=lambda path: path.name)
def test_the_recipes_of_the_repository_are_read(path: Path) -> None:
    assert load_recipe(path).path == path


def test_the_default_recipe_is_the_one_in_the_repository() -> None:
    path = ROOT / "engines/nano-cpu.toml"
    assert load_recipe(path) == Recipe(memory=MemorySettings(pointers=4), path=path)  # SAM 2 has 16


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


def test_a_recipe_is_checked_however_it_comes_in(tmp_path: Path) -> None:
    path = write(tmp_path / "e.toml", "image_size = 1000000000")
    said = r": image_size = (np.int64\()?1000000000\)?; expected a whole number, 64 to 4096$"
    for come_in in (
        lambda: load_recipe(path), lambda: load_recipe(image_size=10**9), lambda: load_recipe(Recipe(image_size=10**9)),
        lambda: open_engine(image_size=np.int64(10**9)),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            come_in()
        assert re.search(said, str(caught.value))
    for keywords, expected in (
        ({"image_size": "320"}, "image_size = '320'; expected a whole number"),
        ({"weights": None}, "weights = None; expected a text"),
        ({"weights": "https://host/w.pt"}, "expected a name, or the path of a file on this machine"),
        ({"memory": 5}, "memory: found 5; expected a table of: policy, spatial, pointers"),
        ({"runtime": np.array(["cpu", "torch"])}, "expected one of: torch, cpu"),
        ({"path": "x"}, "unknown key 'path'"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_recipe(**keywords)  # type: ignore[arg-type]
        assert expected in str(caught.value) and "\n" not in str(caught.value)
    found = load_recipe(image_size=np.float32(256), memory=MemorySettings(spatial=3), policy="fifo")  # type: ignore[arg-type]
    assert found == Recipe(image_size=256, memory=MemorySettings("fifo", 3)) and type(found.image_size) is int
