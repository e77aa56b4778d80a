"""`python -m bench.policies` on little videos: who takes turns with whom, what is compared, and what is printed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from rtseg.data.dataset import Dataset, Sequence, Target
from rtseg.engine.recipe import load_recipe
from rtseg.evaluate.result import Prediction, Result, Row, Tracked

# By its path: `bench` is a folder of scripts beside the package, and no part of it.
_SPEC = importlib.util.spec_from_file_location("bench_policies", Path(__file__).parents[2] / "bench" / "policies.py")
assert _SPEC and _SPEC.loader
policies = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = policies
_SPEC.loader.exec_module(policies)


def square(t: int) -> np.ndarray:
    mask_hw = np.zeros((48, 64), bool)
    mask_hw[12:36, 4 + 3 * t : 28 + 3 * t] = True
    return mask_hw


def moving(name: str, shown: bool = True) -> Sequence:
    """A bright square that wanders; or one that nobody annotated."""

    def image(t: int) -> np.ndarray:
        return np.where(square(t)[..., None], 220, 60).repeat(3, 2).astype(np.uint8)

    return Sequence(name, 5, (Target(1, "tool"),), image, lambda t: {1: square(t)} if shown else {})


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text('image_size = 64\nruntime = "torch"\nprecision = "fp32"\n')
    return path


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    dataset = Dataset("squares", "made", (moving("a"), moving("b", shown=False), moving("c"), moving("d")))
    monkeypatch.setattr(policies, "open_dataset", lambda path: dataset)
    return dataset


@pytest.mark.slow
def test_the_command(
    recipe: Path,
    squares: Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # intervals take their room
    out = tmp_path / "figures.json"
    command = ["squares", "--engine", str(recipe), "--policy", "fifo", "efp", "distractor", "--frames", "4"]
    assert policies.main([*command, "--json", str(out)]) == 0
    printed, said = capsys.readouterr()
    assert "policies: squares, 3 sequences" in printed and all(
        name in printed for name in ("fifo", "efp", "distractor")
    )
    turns = [line.split(": ")[1] for line in said.splitlines()]
    assert turns[:4] == ["a, fifo", "a, efp", "a, distractor", "c, efp"] and turns[6] == "d, distractor"
    (found,) = json.loads(out.read_text())
    assert list(found["rows"]) == ["fifo", "efp", "distractor"]
    assert all({"iou", "boundary", "ms"} <= set(row) for row in found["rows"].values())
    # Four frames are too few for the policies to differ: the same masks, so the difference is none.
    assert found["rows"]["fifo"]["iou"][1] is None and found["rows"]["efp"]["iou"][1]["value"] == 0
    assert {name: made["policy"] for name, made in found["made_by"].items()} == {n: n for n in found["rows"]}


def result(ious: dict[str, float], ms: float) -> Result:
    made = Result({}, {})
    for name, iou in ious.items():
        made.rows += [Row(name, 1, "tool", "", t, t == 0, 99, 9, 9, 5, 0.9, iou, iou, iou, 1.0, 1.0) for t in range(3)]
        made.tracked[name] = Tracked({t: {1: Prediction(f"{t == 0 or iou}".encode(), 0.9)} for t in range(3)})
        made.tracked[name].ms = [1000.0, ms, ms]
    return made


def test_the_difference_is_paired_with_the_first() -> None:
    names = "abcdef"
    hard = {name: 0.1 + 0.15 * i for i, name in enumerate(names)}
    better = {name: iou + 0.05 for name, iou in hard.items()}
    table = policies.compared({"fifo": result(hard, 20), "other": result(better, 30)})
    assert table["fifo"]["iou"] == (pytest.approx(0.475), None)
    value, change = table["other"]["iou"]
    assert value == pytest.approx(0.525)
    for end in (change.value, change.low, change.high):
        assert end == pytest.approx(0.05)  # though the videos differ far more
    assert table["other"]["ms"][0] == 30 and table["other"]["ms"][1].value == 10
    assert policies.same_masks(result(hard, 20), result(hard, 30)) == 1
    assert table["other"]["same"] == (pytest.approx(1 / 3), None)  # the given frames
    cells = policies.sheet("t", table, {"int8": "not built"})
    assert "+0.050 [+0.050 to +0.050]" in cells.rows[1] and "not here: int8: not built" in cells.note


def test_ablations_change_one_thing(recipe: Path) -> None:
    base = load_recipe(recipe, image_size=128)
    made = policies.ablations(base)
    first, *others = made
    assert made[first] == base and {"96 px", "160 px", "3 memories", "0 pointers", "bf16", "int8"} <= set(others)
    for name in others:
        fields = ("image_size", "precision", "memory", "weights", "max_objects", "runtime")
        assert len([f for f in fields if getattr(made[name], f) != getattr(base, f)]) == 1


def test_what_cannot_be_had_is_left_out_and_said(recipe: Path) -> None:
    recipes = {"plain": load_recipe(recipe), "int8": load_recipe(recipe, precision="int8")}
    engines, absent = policies.opened(recipes)
    assert list(engines) == ["plain"] and "int8" in absent["int8"]
    with pytest.raises(policies.EngineError):
        policies.opened({"int8": recipes["int8"]})


def test_the_ablation_has_a_table_of_its_own(
    recipe: Path, squares: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"as it is": load_recipe(recipe), "int8": load_recipe(recipe, precision="int8")}
    monkeypatch.setattr(policies, "ablations", lambda recipe: chosen)
    beside, out = tmp_path / "less.toml", tmp_path / "figures.json"
    beside.write_text(recipe.read_text() + "memory = { spatial = 2 }\n")
    command = ["squares", "--engine", str(recipe), "--policy", "efp", "--frames", "3", "--json", str(out)]
    assert policies.main([*command, "--ablate", "--beside", str(beside)]) == 0
    assert [list(found["rows"]) for found in json.loads(out.read_text())] == [["efp"], ["as it is", "less"]]
    printed = capsys.readouterr().out
    assert "ablation: squares, 3 sequences" in printed and "not here: int8: " in printed


def test_a_data_set_without_anything_to_prompt_is_one_line(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(policies, "open_dataset", lambda path: Dataset("empty", "made", (moving("b", shown=False),)))
    assert policies.main(["empty", "--engine", str(recipe), "--policy", "fifo"]) == 2
    assert "empty: no sequence shows a target" in capsys.readouterr().err
