"""The prompt file: what is read, and that each mistake names its entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rtseg.base.errors import PromptError
from rtseg.base.prompt_files import load_prompts

GOOD: dict[str, Any] = {"frame": 0, "id": 1, "points": [[1, 2, 1]]}


def write(folder: Path, entries: object) -> Path:
    path = folder / "p.json"
    path.write_text(json.dumps(entries))
    return path


def write_mask(path: Path, value: int) -> None:
    mask_hw = np.zeros((6, 8), np.uint8)
    mask_hw[1:3, 2:5] = value
    cv2.imwrite(str(path), mask_hw)


def test_points_boxes_and_masks_are_read_by_frame(tmp_path: Path) -> None:
    write_mask(tmp_path / "grasper.png", 1)
    entries = [
        {"frame": 0, "id": 1, "label": "grasper", "points": [[412, 260.5, 1], [1, 2, 0]]},
        {"frame": 0, "id": 2, "box": [10, 20, 30, 40]},
        {"frame": 40, "id": 1, "mask": "grasper.png"},
    ]
    prompts = load_prompts(write(tmp_path, entries))
    assert list(prompts) == [0, 40]
    first, second = prompts[0]
    assert (first.id, first.label, first.points) == (1, "grasper", ((412.0, 260.5, 1), (1.0, 2.0, 0)))
    assert (second.id, second.box, second.mask) == (2, (10.0, 20.0, 30.0, 40.0), None)
    mask_hw = prompts[40][0].mask
    assert mask_hw is not None and mask_hw.dtype == np.bool_ and mask_hw.sum() == 6 and mask_hw[1, 2]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"pionts": []}, "entry 2: unknown key 'pionts'; did you mean 'points'?"),
        ({"frame": -1}, "entry 2: frame = -1; expected a whole number, 0 to"),
        ({"frame": None}, "entry 2: frame = None; expected a whole number"),
        ({"id": 0}, "entry 2: id = 0; expected a whole number, 1 to 255"),
        ({"id": 256}, "entry 2: id = 256; expected a whole number, 1 to 255"),
        ({"points": [[1, 2]]}, "entry 2: points = [[1, 2]]; expected points like [[x, y, 1 or 0], ...]"),
        ({"points": [[1, 2, 0.5]]}, "entry 2: points = [[1, 2, 0.5]]; expected points like"),
        ({"points": []}, "entry 2: points = []; expected points like"),
        ({"box": [5, 5, 5, 9]}, "entry 2: box = [5, 5, 5, 9]; expected a box like [x0, y0, x1, y1] with x0 < x1"),
        ({"mask": "m.png"}, "entry 2: found points and mask; expected points, a box, points with a box, or a mask"),
        ({"label": 3}, "entry 2: label = 3; expected a text"),
    ],
)
def test_a_mistake_names_its_entry(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    path = write(tmp_path, [{**GOOD, "id": 9}, {**GOOD, **change}])
    with pytest.raises(PromptError) as caught:
        load_prompts(path)
    assert str(caught.value).startswith(f"{path}: entry 2")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_same_file_without_the_mistake_is_read(tmp_path: Path) -> None:
    assert len(load_prompts(write(tmp_path, [{**GOOD, "id": 9}, GOOD]))[0]) == 2


def test_an_entry_needs_one_kind_and_an_object_one_entry_a_frame(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="entry 1: found neither points, box nor mask"):
        load_prompts(write(tmp_path, [{"frame": 0, "id": 1}]))
    with pytest.raises(PromptError, match="entry 2: object 1 already has a prompt on frame 0"):
        load_prompts(write(tmp_path, [GOOD, GOOD]))
    with pytest.raises(PromptError, match="entry 1: 'frame' is missing"):
        load_prompts(write(tmp_path, [{"id": 1, "points": [[1, 2, 1]]}]))
    with pytest.raises(PromptError, match="entry 1: found 5; expected a table of: id, label, points, box"):
        load_prompts(write(tmp_path, [5]))


def test_an_empty_or_unreadable_mask_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [{"frame": 0, "id": 1, "mask": "m.png"}])
    with pytest.raises(PromptError, match="entry 1: .*cannot be read as an image"):
        load_prompts(path)
    write_mask(tmp_path / "m.png", 0)
    with pytest.raises(PromptError, match="entry 1: .* is empty"):
        load_prompts(path)


def test_a_file_that_is_no_list_of_prompts_is_refused(tmp_path: Path) -> None:
    for entries in ({}, [], "x"):
        with pytest.raises(PromptError, match="expected a list of prompts"):
            load_prompts(write(tmp_path, entries))
    (tmp_path / "p.json").write_text("[{")
    with pytest.raises(PromptError, match="not JSON"):
        load_prompts(tmp_path / "p.json")
    with pytest.raises(PromptError, match="No such file"):
        load_prompts(tmp_path / "q.json")
