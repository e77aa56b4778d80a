"""`eval.json`: what is read is what was written, and what was not written by us is refused in one line."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtseg.base.errors import ConfigError, OutputError
from rtseg.evaluate.result import ClassRow, Prediction, Result, Row, Tracked, VolumeRow
from rtseg.evaluate.store import FILE, MASKS, VERSION, read, write

Document = dict[str, Any]

numbers = st.floats(0, allow_nan=False, allow_infinity=False)
shares = st.floats(0, 1)
names, ids, areas = st.text(max_size=6), st.integers(1, 255), st.integers(0, 10**7)
rows = st.builds(
    Row, names, ids, names, names, areas, st.booleans(), areas, areas, areas, areas, shares, shares, shares, shares,
    st.none() | numbers, st.none() | shares, areas,
)  # fmt: skip
counts = st.text(st.characters(min_codepoint=48, max_codepoint=111), min_size=1, max_size=20).map(str.encode)
masks = st.dictionaries(areas, st.dictionaries(ids, st.builds(Prediction, counts, shares), max_size=3), max_size=4)
prompts = st.fixed_dictionaries({"frame": areas, "id": ids, "points": st.lists(st.tuples(areas, areas).map(list))})
tracked = st.builds(
    Tracked,
    masks,
    st.sets(st.tuples(areas, ids)),
    st.lists(prompts, max_size=2),
    st.lists(numbers),
    st.booleans(),
    names,
)
tables = st.dictionaries(names, names | numbers | st.none() | st.booleans() | st.lists(areas), max_size=3)
class_rows = st.builds(ClassRow, names, areas, names, areas, areas, areas)
volume_rows = st.builds(VolumeRow, names, ids, st.none() | numbers, st.none() | shares)
results = st.builds(
    Result,
    tables,
    tables,
    st.lists(rows),
    st.lists(class_rows),
    st.dictionaries(names, tracked, max_size=3),
    st.lists(volume_rows),
)


def small() -> Result:
    row = Row("a", 1, "grasper", "tool", 5, False, 100, 20, 10, 5, 0.9, 1 / 3, 0.2, 0.5, None, 0.25)
    first = Tracked({5: {1: Prediction(b"05", 0.9)}}, {(5, 1)}, [{"frame": 5, "id": 1, "points": [[3, 4, 1]]}], [1.5])
    return Result({"protocol": "first"}, {"rtseg": "1"}, [row], [ClassRow("a", 5, "tool", 20, 10, 5)], {"a": first})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(results)
def test_what_is_read_is_what_was_written(tmp_path: Path, result: Result) -> None:
    write(tmp_path, result, {"j": 0.5})
    assert read(tmp_path) == result
    assert read(tmp_path / FILE) == result


def test_the_order_of_rows_masks_and_frames_is_kept(tmp_path: Path) -> None:
    row, mask = small().rows[0], Prediction(b"05", 0.5)
    back_and_forth = [replace(row, object=id_, frame=frame) for frame in (3, 1, 2) for id_ in (2, 1)]
    tracked = Tracked({7: {2: mask, 1: mask}, 3: {}, 5: {1: mask}})
    write(tmp_path, replace(small(), rows=back_and_forth, tracked={"b": tracked, "a": Tracked()}), {})
    found = read(tmp_path)
    assert found.rows == back_and_forth and list(found.tracked) == ["b", "a"]
    assert [(frame, list(ids)) for frame, ids in found.tracked["b"].masks.items()] == [(7, [2, 1]), (3, []), (5, [1])]


def test_the_same_result_is_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        write(folder, small(), {"j": 0.5})
    assert len({(folder / FILE).read_bytes() for folder in folders}) == 1
    assert len({(folder / MASKS).read_bytes() for folder in folders}) == 1
    assert (folders[0] / MASKS).read_bytes()[4:8] == bytes(4), "the time of day is none of it"


def test_an_hour_of_video_stays_small(tmp_path: Path) -> None:
    """A row costs what its figures cost to write, not the names of them; so do frames without an object."""
    row, hour = small().rows[0], 25 * 3600 // 20
    write(tmp_path, replace(small(), rows=[replace(row, frame=t) for t in range(hour)], tracked={}), {})
    each = (tmp_path / FILE).stat().st_size / hour
    assert each < 0.4 * len(json.dumps({name: getattr(row, name) for name in Row.__slots__}))


def test_without_masks_the_second_file_is_not_needed(tmp_path: Path) -> None:
    write(tmp_path, small(), {})
    (tmp_path / MASKS).unlink()
    found = read(tmp_path, masks=False)
    assert found.rows == small().rows and found.tracked["a"].ms == [1.5] and found.tracked["a"].masks == {}
    with pytest.raises(ConfigError, match=rf"{MASKS}: cannot be read \(No such file or directory\)"):
        read(tmp_path)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["score", "iou", "hd95"])
def test_a_figure_that_is_no_number_is_named_and_not_written(tmp_path: Path, name: str, bad: float) -> None:
    result = replace(small(), rows=[*small().rows, replace(small().rows[0], frame=9, **{name: bad})])
    with pytest.raises(OutputError, match=f"a, object 1, frame 9: {name} = {bad} is not a number"):
        write(tmp_path, result, {})
    assert list(tmp_path.iterdir()) == []


def test_a_score_or_a_summary_that_is_no_number_is_named(tmp_path: Path) -> None:
    broken = Tracked({4: {2: Prediction(b"05", math.nan)}})
    with pytest.raises(OutputError, match="b, object 2, frame 4: score = nan is not a number"):
        write(tmp_path, replace(small(), tracked={"b": broken}), {})
    with pytest.raises(OutputError, match="a figure of the settings, the summary"):
        write(tmp_path, small(), {"j": math.nan})


def lacks(key: str) -> Callable[[Document], object]:
    return lambda document: document.pop(key)


def puts(table: str, key: str, value: object) -> Callable[[Document], object]:
    return lambda document: document[table].__setitem__(key, value)


DAMAGE: list[tuple[Callable[[Document], object], str]] = [
    (lacks("rows"), "damaged .'rows' is missing"),
    (lambda document: document["rows"].pop("iou"), "damaged .'iou' is missing"),
    (lacks("volumes"), "damaged .'volumes' is missing"),
    (lacks("tracked"), "damaged .'tracked' is missing"),
    (puts("rows", "iou", [0.5, 0.6]), "rows: columns of different lengths"),
    (puts("rows", "iou", ["0.5"]), "rows: iou is not a list of float"),
    (puts("rows", "iou", 0.5), "rows: iou is not a list of float"),
    (puts("rows", "score", [None]), "rows: score is not a list of float"),
    (puts("rows", "given", [2]), "rows: given is not a list of bool"),
    (puts("rows", "given", [[]]), "damaged"),
    (puts("rows", "frame", [True]), "rows: frame is not a list of int"),
    (puts("rows", "track", [1]), "rows: track 1 of 1"),
    (puts("rows", "track", [-1]), "rows: track = -1; expected 0 or more"),
    (puts("rows", "iou", [1.5]), "rows: iou = 1.5; expected 0 to 1"),
    (puts("rows", "dice", [-0.1]), "rows: dice = -0.1; expected 0 to 1"),
    (puts("rows", "surface", [2]), "rows: surface = 2; expected 0 to 1"),
    (puts("rows", "truth_area", [-20]), "rows: truth_area = -20; expected 0 or more"),
    (
        puts("tracked", "a", {"prompts": [], "given": [], "ms": [], "volume": 1, "group": ""}),
        "tracked a: volume is not",
    ),
    (puts("tracked", "a", {"prompts": [], "given": [], "ms": [], "volume": True, "group": 1}), "or group no text"),
    (puts("tracked", "a", []), "damaged"),
    (puts("tracked", "a", {"prompts": [1], "given": [], "ms": []}), "tracked a: prompts or given"),
    (puts("tracked", "a", {"prompts": [], "given": [[1, 2, 3]], "ms": []}), "tracked a: prompts or given"),
    (puts("tracked", "a", {"prompts": [], "given": [], "ms": [None]}), "tracked a: ms is not a list of float"),
    (lambda document: document.update(settings=[]), "settings is not a table"),
    (lambda document: document.update(version=VERSION + 1), "of a newer rtseg; this one reads 3; update rtseg"),
    (lambda document: document.update(version=2), "version 2, of an older rtseg, .*; run rtseg eval"),
    (lambda document: document.update(version="1"), "damaged .version '1'"),
    (lambda document: document.update(format="COCO"), "not an evaluation; expected the eval.json"),
    (lacks("format"), "not an evaluation"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGE, ids=[said for _, said in DAMAGE])
def test_a_damaged_or_foreign_document_is_one_line(
    tmp_path: Path, damage: Callable[[Document], object], said: str
) -> None:
    write(tmp_path, small(), {})
    document = json.loads((tmp_path / FILE).read_text())
    damage(document)
    (tmp_path / FILE).write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=said) as caught:
        read(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / FILE}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "[" * 10**5, "\xff", '{"format": "rtseg evaluation", "x": NaN}'])
def test_what_is_no_document_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, "latin-1")
    with pytest.raises(ConfigError, match="expected .*rtseg eval wrote") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"eval.json: cannot be read \(No such file or directory\)"):
        read(tmp_path)


def test_masks_of_another_run_are_not_taken_for_this_one(tmp_path: Path) -> None:
    write(tmp_path, small(), {})
    packed = (tmp_path / MASKS).read_bytes()
    for other in (packed[:-1], gzip.compress(b"{}"), b""):
        (tmp_path / MASKS).write_bytes(other)
        with pytest.raises(ConfigError, match=f"{MASKS}: damaged .its hash is not the one in eval.json"):
            read(tmp_path)
    (tmp_path / MASKS).write_bytes(packed)
    assert read(tmp_path) == small()
