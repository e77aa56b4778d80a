"""Manifests: three forms of one thing, and each mistake with its line before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import fsspec
import numpy as np
import pytest

from rtseg.base.errors import ConfigError
from rtseg.offline.archive.manifest import ManifestError, Row, load_manifest

from .media import PROMPTS

CSV = "source,prompts,out,options\na.mp4,p.json,,\nb.mp4,p.json,ward/b,fps=30 damaged=stop\n"
JSON_LINES = (
    '{"source": "a.mp4", "prompts": "p.json"}\n\n'
    '{"source": "b.mp4", "prompts": "p.json", "out": "ward/b", "options": {"fps": 30, "damaged": "stop"}}\n'
)
TOML = (
    '[[video]]\nsource = "a.mp4"\nprompts = "p.json"\n'
    '[[video]]\nsource = "b.mp4"\nprompts = "p.json"\nout = "ward/b"\noptions = {fps = 30, damaged = "stop"}\n'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p.json").write_text(json.dumps(PROMPTS))
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(b"1234")
    return tmp_path


def load(folder: Path, name: str, text: str) -> list[Row]:
    (folder / name).write_text(text)
    return load_manifest(str(folder / name))


def faults(folder: Path, name: str, text: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load(folder, name, text)
    return [fault.replace(f"{folder}/", "") for fault in caught.value.faults]


@pytest.mark.parametrize(("name", "text", "lines"), [
    ("m.csv", CSV, [2, 3]), ("m.csv", CSV.replace("\n", "\r\n"), [2, 3]), ("m.csv", "\ufeff" + CSV, [2, 3]),
    ("m.jsonl", JSON_LINES, [1, 3]), ("m.toml", TOML, [1, 4]),
])  # fmt: skip
def test_the_forms_say_the_same(folder: Path, name: str, text: str, lines: list[int]) -> None:
    rows = load(folder, name, text)
    assert [row.line for row in rows] == lines
    assert [row.sources for row in rows] == [(str(folder / "a.mp4"),), (str(folder / "b.mp4"),)]
    assert [row.out for row in rows] == ["a", "ward/b"]
    assert [row.bytes for row in rows] == [4, 4]
    reading = rows[1].options.keywords()["reading"]
    assert (reading.fps, reading.damaged, rows[1].options.frames) == (30, "stop", None)


def test_options_of_all_rows_give_way_to_those_of_a_row(folder: Path) -> None:
    (folder / "m.csv").write_text(CSV + "b.mp4,p.json,c,also=yolo,\n".replace(",\n", "\n"))
    rows = load_manifest(str(folder / "m.csv"), {"damaged": "skip", "deidentify": ["text"], "across_cuts": True})
    assert [row.options.damaged for row in rows] == ["skip", "stop", "skip"]
    assert [row.options.deidentify for row in rows] == [("text",)] * 3
    assert rows[2].options.also == ("yolo",) and rows[2].options.across_cuts


def test_several_sources_are_one_recording(folder: Path) -> None:
    (row,) = load(folder, "m.jsonl", '{"source": ["a.mp4", "b.mp4"], "prompts": "p.json"}')
    assert (row.out, row.bytes, len(row.sources)) == ("a", 8, 2)


def test_each_mistake_is_told_with_its_line(folder: Path) -> None:
    text = (
        "source,prompts,out,options\n"
        "a.mp4,p.json,,\n"
        "a.mp4,p.json,,\n"
        "none.mp4,p.json,,\n"
        "a.mp4,none.json,n,\n"
        "a.mp4,p.json,../n,\n"
        "a.mp4,p.json,o,fpz=25\n"
        "a.mp4,p.json,p,fps=0\n"
        "a.mp4,p.json,q,fps=25,x\n"
        ",p.json,r,\n"
        "a.mp4,p.json,a/inner,\n"
        "a.mp4,p.json,archive.jsonl,\n"
        "a.mp4,p.json,s,frames=gif\n"
        "synthetic:laparoscopy,p.json,,\n"
        "s9://bucket/a.mp4,p.json,t,\n"
    )
    found = faults(folder, "m.csv", text)
    assert found == [
        "line 3: out = 'a' is that of line 2; give it another name",
        "line 4: none.mp4: no such file; expected a video file, a folder of images, or a uri",
        "line 5: none.json: cannot be read (No such file or directory); expected a JSON file of prompts",
        "line 6: out = '../n'; expected a name inside the archive's folder",
        "line 7: options: unknown key 'fpz'; did you mean 'fps'?",
        "line 8: options: fps = 0; expected a number from 0.01 to 1000",
        "line 9: 5 cells; expected 4: put cells with commas in quotes",
        "line 10: 'source' is missing; expected a text or a list of texts",
        "line 11: out = 'a/inner' is that of line 2; give it another name",
        "line 12: out = 'archive.jsonl'; that is a file of the archive; choose another name",
        "line 13: options: frames = 'gif'; expected one of: jpg, png",
        "line 14: 'out' is missing; expected a name: 'synthetic:laparoscopy' gives none",
        "line 15: s9://bucket/a.mp4: Protocol not known: s9; expected a path, or a uri such as s3://BUCKET/NAME",
    ]


@pytest.mark.parametrize(("name", "text", "expected"), [
    ("m.csv", "source,prompt\n", "line 1: unknown column 'prompt'; did you mean 'prompts'?"),
    ("m.csv", "source,out\n", "line 1: found ['source', 'out']; expected the columns"),
    ("m.csv", "source,prompts\n", "no videos; expected a row for each"),
    ("m.csv", "", "line 1: found []"),
    ("m.txt", CSV, "found .txt; expected a manifest named .csv, .jsonl or .toml"),
    ("m.toml", "[[video]\n", "not TOML"),
    ("m.toml", "[[videos]]\nsource = 'a'\n", "found 'videos'; expected [[video]]"),
    ("m.jsonl", "{\n", "line 1: not JSON"),
    ("m.jsonl", '{"source": "a.mp4", "source": "b.mp4", "prompts": "p.json"}', "a key is there twice"),
    ("m.jsonl", "[1]", "line 1: found [1]; expected a table of: source, prompts, out, options"),
    ("m.csv", 'source,prompts\n"a.mp4,p.json\n', "line 2: not CSV"),
])  # fmt: skip
def test_a_manifest_that_is_none_is_one_line(folder: Path, name: str, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(folder, name, text)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "m.csv").write_bytes(b"source,prompts\n\xff\xfe,p.json\n")
    with pytest.raises(ConfigError, match="not text in UTF-8 .line 2"):
        load_manifest(str(folder / "m.csv"))


def test_a_manifest_with_prompts_and_masks_may_lie_in_a_cloud() -> None:
    cloud = fsspec.filesystem("memory")
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 10:20] = 255
    cloud.pipe("/ward/masks/m.png", cv2.imencode(".png", mask)[1].tobytes())
    cloud.pipe("/ward/p.json", b'[{"frame": 0, "id": 1, "mask": "masks/m.png"}]')
    cloud.pipe("/ward/a.mp4", b"1234")
    cloud.pipe("/ward/m.csv", b"source,prompts\na.mp4,p.json\nmemory://ward/b.mp4,p.json\n")
    with pytest.raises(ManifestError, match=r"line 3: memory://ward/b.mp4: no such file"):
        load_manifest("memory://ward/m.csv")
    cloud.pipe("/ward/b.mp4", b"12")
    rows = load_manifest("memory://ward/m.csv")
    assert [row.sources for row in rows] == [("memory://ward/a.mp4",), ("memory://ward/b.mp4",)]
    assert [row.bytes for row in rows] == [4, 2]
    cloud.rm("/ward/masks/m.png")
    with pytest.raises(ManifestError, match="line 2: memory://ward/p.json: cannot be read"):
        load_manifest("memory://ward/m.csv")
