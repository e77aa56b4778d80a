"""`segment` with `also`: the formats are part of the result, and are added to one that is done already."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from rtseg.base.errors import ConfigError
from rtseg.base.types import Prompt
from rtseg.cli import make_parser
from rtseg.engine.recipe import Recipe
from rtseg.offline import segment

SOURCE = "synthetic:laparoscopy?seconds=0.16&seed=7&width=160&height=120&fps=25"
BOX = Prompt(2, box=(10.0, 20.0, 80.0, 90.0), label="tissue")


def test_formats_are_written_with_the_result_and_added_to_one_that_is_done(tmp_path: Path, recipe: Recipe) -> None:
    out, lines = tmp_path / "out", []
    with pytest.raises(ConfigError, match="did you mean 'csv'"):
        segment(SOURCE, {0: [BOX]}, out, recipe, also=["csw"])
    assert os.listdir(tmp_path) == []
    segment(SOURCE, {0: [BOX]}, out, recipe, also=["csv", "yolo"], say=lines.append)
    assert sorted(os.listdir(out / "formats")) == ["csv", "yolo"]
    assert any(line.startswith("yolo: ") for line in lines)
    areas = {entry["image_id"]: entry["area"] for entry in json.loads((out / "masks.json").read_text())["annotations"]}
    with (out / "formats/csv/objects.csv").open() as file:
        found = {int(row["frame"]): int(row["area"]) for row in csv.DictReader(file) if row["visible"] == "1"}
    assert found == areas and areas
    again = segment(SOURCE, {0: [BOX]}, out, recipe, also=["npz"])
    assert again["skipped"] and sorted(os.listdir(out / "formats")) == ["csv", "npz", "yolo"]
    segment(SOURCE, {0: [BOX]}, out, recipe, force=True)  # the formats of an earlier result go with it
    assert "formats" not in os.listdir(out)


def test_the_option_of_the_verb() -> None:
    args = make_parser().parse_args(["segment", "a.mp4", "--prompts", "p.json", "--out", "o", "--also", "yolo", "cvat"])
    assert args.also == ["yolo", "cvat"]
