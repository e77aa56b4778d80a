"""The table of published weights that comes with the package, and the recipes that name them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rtseg.base.errors import ConfigError, RtsegError
from rtseg.engine.buffer_sizes import parameters
from rtseg.engine.catalogue import find_entry, read_table, table
from rtseg.engine.recipe import load_recipe
from rtseg.sam2 import PRESETS, get_preset

ROOT = Path(__file__).parents[3]
NAMES = list(read_table().entries)
FILES = sorted(path for path in (ROOT / "engines").glob("*.toml"))


def test_the_families_are_there() -> None:
    for family in ("sam2-", "sam2.1-"):
        assert {f"{family}{size}" for size in ("tiny", "small", "base+", "large")} <= set(NAMES)
    assert {"edgetam", "medsam2", "surgsam2", "efficienttam-tiny", "efficienttam-small"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_a_recipe(name: str) -> None:
    entry = find_entry(name)
    recipe = load_recipe(name)
    assert (recipe.model, recipe.weights, recipe.image_size) == (entry.preset, name, entry.image_size)
    assert entry.sha256 or name.startswith("medsam2-") or not entry.addresses  # nothing else is trusted on first use
    if entry.preset in PRESETS:
        assert get_preset(recipe.model).name == entry.preset


def test_the_numbers_of_weights_fit_the_sizes_of_the_files() -> None:
    """A file has its weights in fp32, and little else: a size or preset in the wrong row would show."""
    seen = 0
    for entry in read_table().entries.values():
        if entry.preset in PRESETS and entry.bytes and entry.preset.startswith("sam2"):
            assert 1.0 <= entry.bytes / (4 * parameters(get_preset(entry.preset))) < 1.01, entry.name
            seen += 1
    assert seen >= 12


@pytest.mark.parametrize("path", [path for path in FILES if path.stem in NAMES], ids=lambda path: path.stem)
def test_a_recipe_file_of_this_name_says_the_same(path: Path) -> None:
    assert replace(load_recipe(path), path=None) == load_recipe(path.stem)


def test_a_file_of_the_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe("edgetam", policy="fifo").memory.policy == "fifo"
    (tmp_path / "edgetam").mkdir()
    assert load_recipe("edgetam").weights == "edgetam"
    (tmp_path / "edgetam").rmdir()
    (tmp_path / "edgetam").write_text('model = "micro"')
    assert load_recipe("edgetam").model == "micro"


@pytest.mark.parametrize("name", ["edgetan", "sam2.1_tiny"])
def test_a_name_that_is_none_is_told_the_nearest(name: str) -> None:
    near = {"edgetan": "edgetam", "sam2.1_tiny": "sam2.1-tiny"}[name]
    line = f"engine = '{name}': no such recipe file, and no published weights of this name; did you mean '{near}'?"
    with pytest.raises(ConfigError) as caught:
        load_recipe(name)
    assert str(caught.value) == line


GOOD = """
[licences.x]
terms = "free"
address = "https://x.example"
[[weights]]
name = "w"
preset = "nano"
image_size = 320
licence = "x"
paper = "none"
"""


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ('addresses = ["http://x.example/w.pt"]', "addresses = ['http://x.example/w.pt']; expected"),
        ("", "addresses = []; expected an address, or a page for people"),
        ('page = "https://x.example"\nsha256 = "AB"', "sha256 = 'AB'; expected"),
        ('page = "https://x.example"\nlicense = "x"', "unknown key 'license'; did you mean 'licence'?"),
        ('page = "https://x.example"\n[[weights]]\nname = "../w"', "name = '../w'; expected"),
    ],
)
def test_a_mistake_in_a_table_is_one_line(tmp_path: Path, more: str, line: str) -> None:
    path = tmp_path / "weights.toml"
    path.write_text(GOOD + more)
    with pytest.raises(RtsegError) as caught:
        table._read(path)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_listing_and_fetching_import_no_torch() -> None:
    code = (
        "import sys\nfrom rtseg.cli import main\nassert main(['weights', 'list', '--json']) == 0\n"
        "import rtseg.engine.catalogue.fetch\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "False"
