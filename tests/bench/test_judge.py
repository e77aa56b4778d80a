"""`python -m bench.judge` on a little data set: every group and prompt, nothing twice, and a card that says it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

# By its path: `bench` is a folder of scripts beside the package, and no part of it.
_SPEC = importlib.util.spec_from_file_location("bench_judge", Path(__file__).parents[2] / "bench" / "judge.py")
assert _SPEC and _SPEC.loader
judge = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = judge
_SPEC.loader.exec_module(judge)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a command: a training with one held-out sequence, an engine, and folders."""
    for name in ("mine", "held", "stills"):
        for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "png")):
            (tmp_path / "tools" / kind / name).mkdir(parents=True)
            for t in range(4):
                picture = np.zeros((60, 80), np.uint8)
                picture[10:40, 5 + 4 * t : 40 + 4 * t] = 255
                cv2.imwrite(str(tmp_path / "tools" / kind / name / f"{t:05d}.{ending}"), picture)
    training = tmp_path / "tiny.toml"
    training.write_text(
        '[[video]]\npath = "tools"\nsequences = ["mine"]\n'
        '[[validate]]\npath = "tools"\nsequences = ["held"]\n'
        '[[validate]]\npath = "tools"\nsequences = ["stills"]\nstills = true\n[[phase]]\nsteps = 5\n'
    )
    training.with_suffix(".md").write_text("\n## Beware\nof squares.\n")
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "log.jsonl").write_text(json.dumps({"loss": 1.0, "step": 5, "minutes": 2.0}) + "\n")
    recipe = tmp_path / "engine.toml"
    recipe.write_text('image_size = 64\nruntime = "torch"\nprecision = "fp32"\n')
    scenes = "synthetic:laparoscopy?seed=10000-10001&seconds=0.4&width=96&height=64"
    monkeypatch.setattr(judge, "SCENES", scenes)
    given = ["--data", tmp_path, "--engine", recipe, "--out", tmp_path / "out", "--card", tmp_path / "card.md"]
    return [str(word) for word in (training, *given, "--log", tmp_path / "log")]


def test_every_group_is_judged_once_and_the_card_says_so(
    case: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge.main([*case, "--prompt", "mask", "points-1"]) == 0
    said = capsys.readouterr().err
    assert [line for line in said.splitlines() if "," in line] == [
        "tools, mask", "tools, points-1", "tools-1, box", "tools-1, points-1", "synthetic, mask", "synthetic, points-1",
    ]  # fmt: skip
    card = (tmp_path / "card.md").read_text()
    figures = json.loads((tmp_path / "out" / "tools-mask" / "eval.json").read_text())["summary"]["overall"]
    assert f"| tools | mask | {figures['iou']['value']:.3f}" in card
    assert "5 steps, 2 minutes" in card
    assert card.endswith("of squares.\n")
    assert judge.main([*case, "--prompt", "mask", "points-1"]) == 0
    assert "tools, mask" not in capsys.readouterr().err  # it is there already


def test_a_group_alone_and_what_is_asked_of_it(
    case: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {("tools", "mask", "iou"): 0.0, ("tools", "mask", "jf"): 1.1, ("synthetic", "mask", "iou"): 0.5}
    monkeypatch.setattr(judge, "ASKED", asked)
    assert judge.main([*case, "--prompt", "mask", "--group", "tools"]) == 0
    printed, said = capsys.readouterr()
    assert said.splitlines()[-1] == "tools, mask"
    last = [line.split() for line in printed.splitlines()[-2:]]
    assert [(row[2], *row[-3:]) for row in last] == [("J", ">=", "0.000", "yes"), ("J&F", ">=", "1.100", "no")]


def test_what_is_wrong_is_one_line(case: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert judge.main([*case, "--weights", "absent.pt"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
