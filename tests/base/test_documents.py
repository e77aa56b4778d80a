"""Files that people write, as editors, shells and other programs leave them: read, or refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rtseg.adapt.config import read_config
from rtseg.base.errors import ConfigError, PromptError
from rtseg.base.prompt_files import load_prompts
from rtseg.engine.recipe import load_recipe
from rtseg.live.profile import load_stream
from rtseg.sam2 import get_preset

PROMPTS = '[{"frame": 0, "id": 1, "label": "Häkchen", "points": [[1, 2, 1]]}]\r\n'
RECIPE = 'model = "micro"\r\nweights = "package:micro"\r\n# Größe\r\nimage_size = 320\r\n'
STREAM = 'source = "clip.mp4"\n[[object]]\nid = 1\nlabel = "Häkchen"\npoints = [[1, 2, 1]]\n'
CODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
MARKS = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}


def write(path: Path, text: str, coding: str) -> Path:
    path.write_bytes(MARKS.get(coding, b"") + text.encode(coding))
    return path


@pytest.mark.parametrize("coding", CODINGS)
def test_whatever_an_editor_saved_is_read(tmp_path: Path, coding: str) -> None:
    assert load_prompts(write(tmp_path / "p.json", PROMPTS, coding))[0][0].label == "Häkchen"
    assert load_recipe(write(tmp_path / "e.toml", RECIPE, coding)).model == "micro"
    assert load_stream(write(tmp_path / "s.toml", STREAM, coding)).objects[0].label == "Häkchen"


def test_latin_1_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"not text in UTF-8 \(line 1: .*save it as UTF-8"):
        load_prompts(write(tmp_path / "p.json", PROMPTS, "latin-1"))
    with pytest.raises(ConfigError, match=r"not text in UTF-8 \(line 3: .*save it as UTF-8"):
        load_recipe(write(tmp_path / "e.toml", RECIPE, "latin-1"))


def test_prompts_come_by_a_pipe_and_by_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(PROMPTS, "utf-8"))
    writer.start()
    assert load_prompts(tmp_path / "pipe")[0][0].id == 1
    writer.join()
    code = "from rtseg.base.prompt_files import load_prompts; print(load_prompts('-')[0][0].points)"
    given: dict[str, Any] = {"input": PROMPTS.encode("utf-8-sig"), "capture_output": True, "cwd": tmp_path}
    done = subprocess.run([sys.executable, "-c", code], **given, check=True)
    assert done.stdout.strip() == b"((1.0, 2.0, 1),)"


def test_a_table_that_says_a_thing_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text('[{"frame": 0, "id": 1, "id": 2, "points": [[1, 2, 1]]}]')
    with pytest.raises(PromptError, match="'id' is there twice in .*; expected each key once"):
        load_prompts(path)


DEEP = 100_000
BROKEN = {
    "empty": "", "blank": " \n", "half": "[{", "deep": "[" * DEEP + "]" * DEEP, "a number": "1",
    "a table": '{"frame": 0}', "no entries": "[]", "too many digits": f'[{{"frame": {"9" * 5000}}}]', "NaN": "NaN",
    "401 digits": f'[{{"frame": 0, "id": {"9" * 401}, "points": [[1, 2, 1]]}}]',
    "a coordinate of 401 digits": f'[{{"frame": 0, "id": 1, "points": [[{"9" * 401}, 2, 1]]}}]',
    "a box of 401 digits": f'[{{"frame": 0, "id": 1, "box": [0, 0, 1, {"9" * 401}]}}]',
    "a frame of 401 digits and a point": f'[{{"frame": 1e{"9" * 401}, "id": 1, "points": [[1, 2, 1]]}}]',
    "half a character": '[{"frame": 0, "id": 1, "label": "\\ud800", "points": [[1, 2, 1]]}]',
    "half a character in a path": '[{"frame": 0, "id": 1, "mask": "\\ud800.png"}]',
    "NUL in a path": '[{"frame": 0, "id": 1, "mask": "a\\u0000.png"}]',
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_prompt_file_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "p.json").write_text(BROKEN[name])
    with pytest.raises(PromptError) as caught:
        load_prompts(tmp_path / "p.json")
    line = str(caught.value)
    assert line.startswith(f"{tmp_path / 'p.json'}: ") and "expected" in line and "\n" not in line and len(line) < 400


NUMBERS = ("image_size", "max_objects")


@pytest.mark.parametrize("value", ["9" * 401, "9" * 5000, "1e400", "nan", "inf", "-1", "1.5", '"320"', "true", "[320]"])
def test_a_number_that_is_none_is_one_line_in_a_recipe(tmp_path: Path, value: str) -> None:
    for key in NUMBERS:
        (tmp_path / "e.toml").write_text(f"{key} = {value}")
        with pytest.raises(ConfigError) as caught:
            load_recipe(tmp_path / "e.toml")
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    (tmp_path / "e.toml").write_text("image_size = 320.0")  # which is whole
    assert load_recipe(tmp_path / "e.toml").image_size == 320


def test_places_where_no_file_can_be_read_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "deep.toml").write_text("a = " + "[" * DEEP + "]" * DEEP)
    (tmp_path / "binary.toml").write_bytes(bytes(range(256)) * 9)
    names: list[Any] = ["folder", "absent", "deep.toml", "binary.toml", "x" * 300, "nul\0", "\ud800", "~nobody-here/x"]
    for name in names:
        path = name if name.startswith("~") else str(tmp_path / name)
        for read, error in (
            (load_recipe, ConfigError), (load_stream, ConfigError), (load_prompts, PromptError),
            (read_config, ConfigError), (lambda path: get_preset(f"{path}.toml"), ConfigError),
        ):  # fmt: skip
            with pytest.raises(error) as caught:
                read(path)
            assert "\n" not in str(caught.value) and "expected" in str(caught.value)
    for wrong in (5, b"p.json", ["p.json"], 1.5):
        with pytest.raises((ConfigError, PromptError), match="expected the path of a file"):
            load_prompts(wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="expected the path of a file"):
            load_recipe(wrong)  # type: ignore[arg-type]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "p.json", PROMPTS, "utf-8")
    path.chmod(0)
    with pytest.raises(PromptError, match=r"cannot be read \(Permission denied\)"):
        load_prompts(path)


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(PromptError, match="over 64 MiB; expected a JSON file of prompts"):
        load_prompts("/dev/zero")


def test_home_folders_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "e.toml").write_text('model = "~/m.toml"\nweights = "~/w.pt"')
    (tmp_path / "s.toml").write_text(
        'source = "~/clip.mp4"\nengine = "~/e.toml"\n[record]\nfolder = "~/r"\n[security]\nkeys = "~/k"\n'
    )
    (tmp_path / "p.json").write_text(PROMPTS, "utf-8")
    profile = load_stream("~/s.toml")
    assert (profile.source, profile.record, profile.keys) == (
        str(tmp_path / "clip.mp4"), tmp_path / "r", tmp_path / "k",
    )  # fmt: skip
    assert profile.engine == load_recipe("~/e.toml")
    assert (profile.engine.model, profile.engine.weights) == (str(tmp_path / "m.toml"), str(tmp_path / "w.pt"))
    assert (
        load_recipe(weights="~/w.pt").weights == load_recipe(weights=Path("~/w.pt")).weights == str(tmp_path / "w.pt")
    )
    assert load_prompts("~/p.json")[0][0].id == 1
    assert json.loads(PROMPTS)[0]["id"] == 1
