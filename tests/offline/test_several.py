"""Several videos with one command: each has its result, and a failure of one stops none of the others."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtseg.cli import main
from rtseg.grab import open_source

RECIPE = 'model = "micro"\nweights = "package:micro"\nimage_size = 64\nruntime = "torch"\n'
PROMPTS = [{"frame": 0, "id": 2, "box": [10, 20, 80, 90]}]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A command for three folders of images, of which the second is broken."""
    for number, name in enumerate("abc"):
        folder = tmp_path / name
        folder.mkdir()
        for frame in open_source(f"synthetic:laparoscopy?width=160&height=120&seconds=0.12&seed={number}"):
            cv2.imwrite(str(folder / f"{frame.seq}.png"), frame.image_hwc)
    for image in (tmp_path / "b").iterdir():
        image.write_bytes(b"no image")
    (tmp_path / "p.json").write_text(json.dumps(PROMPTS))
    (tmp_path / "e.toml").write_text(RECIPE)
    given = ["--prompts", str(tmp_path / "p.json"), "--engine", str(tmp_path / "e.toml")]
    return ["segment", *(str(tmp_path / name) for name in "abc"), *given, "--out", str(tmp_path / "out")]


def test_one_that_fails_is_listed_and_the_others_are_done(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--json"]) == 1
    printed = capsys.readouterr()
    document = json.loads(printed.out.splitlines()[-1])
    assert document["done"] == ["a", "c"] and list(document["failed"]) == ["b"] and document["videos"] == 3
    assert printed.err.splitlines()[-1].startswith("rtseg segment: 1 of 3 videos failed: b: ")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "c", "index.html"]
    index = (tmp_path / "out" / "index.html").read_text()
    assert index.index(">b<") < index.index(">a<") < index.index(">c<")  # what failed comes first
    for image, good in zip(sorted((tmp_path / "b").iterdir()), sorted((tmp_path / "a").iterdir()), strict=True):
        image.write_bytes(good.read_bytes())
    assert main([*words, "--json"]) == 0  # the control: once it is mended, it alone is done
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document["done"] == ["b"] and document["skipped"] == ["a", "c"] and document["failed"] == {}


def test_each_may_have_its_own_prompts(tmp_path: Path, words: list[str]) -> None:
    folder = tmp_path / "prompts"
    folder.mkdir()
    for number, name in ((3, "a"), (4, "c")):
        (folder / f"{name}.json").write_text(json.dumps([{**PROMPTS[0], "id": number}]))
    words[words.index(str(tmp_path / "p.json"))] = str(folder)
    assert main(words) == 1  # b has none
    for number, name in ((3, "a"), (4, "c")):
        masks = json.loads((tmp_path / "out" / name / "masks.json").read_text())
        assert (
            {one["track_id"] for one in masks["annotations"]} <= {number} == {one["id"] for one in masks["categories"]}
        )


def test_two_of_one_name_are_refused_before_anything_is_begun(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a").mkdir()
    cv2.imwrite(str(tmp_path / "x/a/0.png"), np.zeros((120, 160, 3), np.uint8))
    assert main([*words[:2], str(tmp_path / "x/a"), *words[4:]]) == 2
    assert "their results would have the name 'a'" in capsys.readouterr().err and not (tmp_path / "out").exists()
