"""The report's folder: figures as they are, pictures that show what they say, and what happens where it cannot be."""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from rtseg.base.colors import color_of
from rtseg.base.errors import ConfigError, SourceError
from rtseg.base.rle import encode_rle
from rtseg.base.types import BoolMask, ImageU8
from rtseg.data.dataset import Dataset, Sequence, Target, Truth
from rtseg.evaluate import pictures, plots, store
from rtseg.evaluate.object_figures import object_figures
from rtseg.evaluate.pictures import PREDICTION, TRUTH, contact_sheet, file_name, file_names, worst
from rtseg.evaluate.report import table, write_report
from rtseg.evaluate.result import Prediction, Result, Row, Tracked
from rtseg.evaluate.score import score
from rtseg.evaluate.sheets import objects_sheet

HEIGHT, WIDTH, FRAMES = 90, 120, 12
ABSENT = range(4, 8)  # frames without object 2
GREY = 90
ROW = Row("a", 1, "grasper", "tool", 0, False, 10800, 100, 100, 50, 0.9, 0.6, 0.5, 0.4, 2.0, 0.5)


def disc(x: float, y: float, radius: float = 12) -> BoolMask:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray(np.hypot(xs - x, ys - y) <= radius, np.bool_)


def truth_of(t: int) -> dict[int, BoolMask]:
    return {1: disc(30, 20 + 2 * t)} | ({} if t in ABSENT else {2: disc(90, 40)})


def masks_of(t: int) -> dict[int, BoolMask]:
    """Object 1 drifts off its truth; object 2 is right, but stays on one frame of its absence."""
    return {
        1: disc(30 + t, 20 + 2 * t),
        2: disc(90, 40) if t not in ABSENT or t == 6 else np.zeros((HEIGHT, WIDTH), bool),
    }


def image(t: int) -> ImageU8:
    return np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)


def row_of(name: str, target: Target, t: int) -> Row:
    truth_hw = truth_of(t).get(target.id, np.zeros((HEIGHT, WIDTH), bool))
    mask_hw = masks_of(t)[target.id]
    areas = [int(hw.sum()) for hw in (truth_hw, mask_hw, truth_hw & mask_hw)]
    union = areas[0] + areas[1] - areas[2]
    iou = areas[2] / union if union else 1.0
    dice = 2 * iou / (1 + iou)
    who = (name, target.id, target.label, target.category, t, t == 0, HEIGHT * WIDTH)
    return Row(*who, *areas, 0.9, dice, iou, iou, 1.0 if areas[2] else None, iou if areas[2] else None)


def case(names: tuple[str, ...] = ("case 1/left", "case 2")) -> tuple[Result, Dataset]:
    targets = (Target(1, "grasper|<b>[x]", "tool"), Target(2, "liver", "tissue"))
    result = Result({"protocol": "video", "prompt": "mask"}, {"engine": "nano", "versions": {"rtseg": "0.5"}})
    for name in names:
        masks = {
            t: {i: Prediction(encode_rle(mask_hw), 0.9) for i, mask_hw in masks_of(t).items()} for t in range(FRAMES)
        }
        prompts = [{"frame": 0, "id": target.id, "points": [[5, 5, 1]]} for target in targets]
        result.tracked[name] = Tracked(masks, {(0, 1), (0, 2)}, prompts, [10.0] * FRAMES)
        result.rows += [row_of(name, target, t) for t in range(FRAMES) for target in targets]
    sequences = tuple(Sequence(name, FRAMES, targets, image, truth_of) for name in names)
    return result, Dataset("discs", "made up", sequences)


def made(*names: str) -> tuple[Callable[[], Result], Dataset]:
    """As `write_report` takes it."""
    result, dataset = case(names) if names else case()
    return lambda: result, dataset


def near(image_hwc: ImageU8, color: tuple[int, int, int]) -> int:
    """How many pixels have a colour, as it is or laid over the grey of the picture."""
    tinted = np.array(color) * pictures.OPACITY + GREY * (1 - pictures.OPACITY)
    return int(sum((np.abs(image_hwc - np.array(c)).max(axis=2) < 3).sum() for c in (color, tinted)))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("report") / "out"
    return out, write_report(*made(), out)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of something else: they take the most time."""
    monkeypatch.setattr(plots, "draw", lambda result, folder: [])


def test_the_folder_holds_everything_and_says_so(written: tuple[Path, Any]) -> None:
    out, said = written
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: rtseg[eval]")
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*.*") if path.is_file())
    assert found == sorted(
        [
            *("eval.json", "masks.json.gz", "report.md"),
            *(f"{kind}/{name}.png" for kind in ("plots", "sheets") for name in ("case_1_left", "case_2")),
            *(f"worst/{path.name}" for path in (out / "worst").iterdir()),
        ]
    )
    assert said["saved"] == ["eval.json", "masks.json.gz", "report.md", "plots/", "worst/", "sheets/"]
    assert said["out"] == str(out)
    assert store.read(out) == case()[0]


def test_the_document_is_json_and_its_figures_are_those_of_the_rows(written: tuple[Path, Any]) -> None:
    out, said = written
    document = json.loads(json.dumps(said, allow_nan=False))
    assert "rows" not in document and document["ok"]
    assert document["data"] == {
        "name": "discs", "layout": "made up", "sequences": 2, "objects": 4, "annotated_frames": 2 * FRAMES
    }  # fmt: skip
    of_object = [[row.iou for row in case()[0].rows if row.object == i and not row.given] for i in (1, 2)]
    overall = document["summary"]["overall"]
    assert overall["iou"]["value"] == pytest.approx(np.mean([np.mean(ious) for ious in of_object]))
    assert json.loads((out / "eval.json").read_text())["summary"] == document["summary"]


def test_the_tables_say_what_the_document_says(written: tuple[Path, Any]) -> None:
    out, said = written
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(said)
    text, markdown = console.export_text(), (out / "report.md").read_text()
    iou = f"{said['summary']['overall']['iou']['value']:.3f}"
    false_area = f"{100 * said['summary']['classes']['tissue']['false_area']['value']:.2f}"
    for shown in (text, markdown):
        assert re.search(rf"\bJ\b[ |]+{iou}", shown) and false_area in shown
        assert "discs (made up): 2 sequences, 4 objects" in shown
        assert "intervals are within these videos and do not extend to others" in " ".join(shown.split())
        assert "those over videos take 5 independent videos or more; there are 2" in " ".join(shown.split())
        assert "case 1/left" in shown and "tissue" in shown
    assert f"saved {out}" in text
    assert "grasper\\|\\<b>\\[x]" in markdown, "a label must not become markup"
    assert "versions.rtseg | 0.5" in markdown
    headings = ["all objects", "classes", "sequences", "settings", "made by", "worst frames"]
    assert re.findall("^## (.*)", markdown, re.MULTILINE)[:6] == headings
    for path in re.findall(r"\]\(([^)]+)\)", markdown):
        assert (out / path).is_file(), path


def clicked() -> tuple[Result, Dataset]:
    result, dataset = case()
    result.settings["protocol"] = "interactive"
    result.rows = [replace(row, clicks=3 * (row.frame in (0, 5) and row.object == 1)) for row in result.rows]
    return result, dataset


@pytest.mark.usefixtures("no_plots")
def test_clicks_stand_beside_j_where_there_were_any(tmp_path: Path) -> None:
    result, dataset = clicked()
    write_report(lambda: result, dataset, tmp_path / "out")
    everything, _, objects = (tmp_path / "out" / "report.md").read_text().partition("## objects")
    assert re.search(r"\| clicks \| 3\.0 \|  \| 4 objects \|", everything)
    assert re.search(r"\| corrected frames \| 0\.5 \|  \| 4 objects \|", everything)
    assert re.search(r"\| sequence \|.*\| clicks \| corrected frames \|", objects)
    assert re.search(r"\| 6 \| 1 \|  \|", objects) and re.search(r"\| 0 \| 0 \| 0 \|", objects)
    for sheet in table(*clicked()).sheets[1:]:
        assert sheet.columns[-1] == "clicks" and {row[-1] for row in sheet.rows} <= {"6.0", "0.0", "3.0"}
    assert all("clicks" not in sheet.columns for sheet in table(*case()).sheets)


def test_the_tolerance_of_surface_dice_has_the_unit_of_the_distances() -> None:
    result, dataset = case()
    for spacing, unit in ((None, "px"), ((0.5, 0.5), "mm")):
        spaced = replace(dataset, sequences=tuple(replace(s, spacing_mm=spacing) for s in dataset.sequences))
        (meaning,) = (row[-1] for row in table(result, spaced).sheets[0].rows if row[0] == "NSD")
        assert f"tolerance in {unit}," in meaning


def test_nothing_scored_is_said_with_the_reason() -> None:
    """As with one annotated frame, or with the prompt on the last slice."""
    result, dataset = case()
    result.rows = [replace(row, given=True) for row in result.rows if row.frame == 0]
    (why,) = (warning for warning in table(result, dataset)["warnings"] if "no frame was scored" in warning)
    assert "frames on which the object was prompted do not count" in why and "--protocol" in why
    result.rows += [row for row in case()[0].rows if row.sequence == "case 2" and row.frame == 5]
    assert any(w.startswith("2 objects of 4 had no frame to score") for w in table(result, dataset)["warnings"])
    assert not any("scored" in w or "score:" in w for w in table(*case())["warnings"])


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(
    ("protocol", "prompt", "said"),
    [
        ("video", "mask", "frames; frames on which the object was prompted do not count. For"),
        ("both", "box", "frames; frames on which the object was prompted do not count. For"),
        ("image", "points-1", "frames; all annotated frames that show the object count. For"),
        ("interactive", "mask", "frames; frames whose mask the prompt gave do not count, those that clicks corrected"),
        ("interactive", "box", "frames; all count, those that clicks corrected as they are after these. For"),
    ],
)
def test_the_report_says_which_frames_count(tmp_path: Path, protocol: str, prompt: str, said: str) -> None:
    result, dataset = case(("a",))
    result.settings |= {"protocol": protocol, "prompt": prompt}
    write_report(lambda: result, dataset, tmp_path / "out")
    assert said in (tmp_path / "out" / "report.md").read_text()


def test_volumes_have_their_dice_first_and_the_other_is_called_a_mean_over_slices() -> None:
    result, dataset = case()
    film = table(result, dataset)
    for tracked in result.tracked.values():
        tracked.volume = True
    volumes = table(result, dataset)
    everything, classes, sequences = volumes.sheets
    meanings = {row[0]: row[-1] for row in everything.rows}
    assert everything.rows[0][0] == "volume Dice" and meanings["slice Dice"].startswith("mean over slices: 2 x")
    assert all(sheet.columns[2] == "volume Dice" and "Dice" not in sheet.columns for sheet in (classes, sequences))
    objects = objects_sheet(object_figures(result))
    assert objects.columns[4:6] == ("volume Dice", "J&F")
    of_first = [float(row[4]) for row in objects.rows]
    assert of_first == sorted(of_first)
    assert (
        film.sheets[0].rows[0][0] == "J&F" and film.sheets[1].columns[2] == "J&F" and "Dice" in film.sheets[1].columns
    )


def test_sequences_that_nobody_annotated_are_named() -> None:
    result, dataset = case()
    bare = replace(dataset, unannotated=("goat", "hare", "ibis", "jay"))
    assert "4 sequences without annotations left out: goat, hare, ibis, ..." in table(result, bare)["warnings"]


@pytest.mark.parametrize(
    ("label", "said"), [("", "object 7"), ("object 7", "object 7"), ("car 7", "car 7"), ("tool 17", "7 tool 17")]
)
def test_the_number_of_an_object_is_said_once(label: str, said: str, drawn: Callable[..., Any]) -> None:
    rows = [replace(row, object=7, label=label) for row in case(("a",))[0].rows if row.object == 1]
    assert objects_sheet(object_figures(Result({}, {}, rows))).rows[0][1] == said
    assert drawn(rows, {}).axes[0].get_title(loc="left").startswith(f"{said}: J")


def test_the_caption_of_a_picture_says_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    whole = pictures.render_label
    monkeypatch.setattr(pictures, "render_label", lambda text, *args: (texts.append(text), whole(text, *args))[1])
    result, dataset = case()
    plain = replace(dataset.sequences[1], targets=(Target(1, "object 1"), Target(2, "")))
    tracked = result.tracked["case 2"]
    pictures.comparison(plain, tracked, replace(ROW, sequence="case 2", label="object 1"))
    contact_sheet(plain, tracked, count=2)
    assert any(text.startswith("case 2   object 1   frame 0") for text in texts)
    assert {"object 1", "object 2"} <= set(texts)


def test_without_a_folder_the_same_is_said(written: tuple[Path, Any], tmp_path: Path) -> None:
    said = table(*case())
    assert {**said, "saved": written[1]["saved"], "out": written[1]["out"]} == written[1]
    assert said.sheets == written[1].sheets and list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_plots")
def test_intervals_are_shown_where_there_are_any(tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="scipy is not installed: rtseg[eval]")
    result, dataset = case(tuple("abcde"))
    for number, row in enumerate(result.rows):
        result.rows[number] = replace(row, iou=row.iou * (0.9 + 0.02 * "abcde".index(row.sequence)))
    said = write_report(lambda: result, dataset, tmp_path / "out")
    figure = said["summary"]["overall"]["iou"]
    assert figure["low"] < figure["value"] < figure["high"] and said["warnings"] == []
    assert f"{figure['low']:.3f} to {figure['high']:.3f}" in (tmp_path / "out" / "report.md").read_text()


def test_without_matplotlib_one_line_and_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return whole(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    said = write_report(*made(), tmp_path / "out")
    assert plots.ABSENT in said["warnings"] and "rtseg[eval]" in plots.ABSENT
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        ["eval.json", "masks.json.gz", "report.md", "sheets", "worst"]
    )
    assert "plots/" not in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.usefixtures("no_plots")
def test_what_is_stored_is_enough_to_compute_the_figures_again(tmp_path: Path) -> None:
    pytest.importorskip("scipy", reason="scipy is not installed: rtseg[eval]")
    result, dataset = case()
    result.rows, result.classes = [], []
    for sequence in dataset.sequences:
        rows, classes = score(sequence, result.tracked[sequence.name])
        result.rows += rows
        result.classes += classes
    write_report(lambda: result, dataset, tmp_path / "out")
    found = store.read(tmp_path / "out")
    again = [score(sequence, found.tracked[sequence.name]) for sequence in dataset.sequences]
    assert [row for rows, _ in again for row in rows] == result.rows == found.rows
    assert [row for _, classes in again for row in classes] == result.classes == found.classes


@pytest.mark.usefixtures("no_plots")
def test_pictures_are_shown_as_the_network_got_them(tmp_path: Path) -> None:
    result, dataset = case(("a",))
    write_report(lambda: result, dataset, tmp_path / "clear")
    result.settings |= {"corruption": "bright", "level": 5, "seed": 0}
    write_report(lambda: result, dataset, tmp_path / "bright")
    clear, bright = (
        panels(cv2.imread(str(next((tmp_path / name / "worst").iterdir()))))[0][:300] for name in ("clear", "bright")
    )
    assert (clear == GREY).all() and (bright > 2 * GREY).all()


@pytest.mark.usefixtures("no_plots")
def test_a_picture_that_cannot_be_read_leaves_nothing(tmp_path: Path) -> None:
    def gone(t: int) -> ImageU8:
        raise SourceError("00003.png: cannot be read")

    result, dataset = case()
    broken = replace(dataset, sequences=(dataset.sequences[0], replace(dataset.sequences[1], image=gone)))
    with pytest.raises(SourceError, match="cannot be read"):
        write_report(lambda: result, broken, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_plots")
def test_only_an_earlier_report_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_report(*made("a"), out)
    with pytest.raises(ConfigError, match="not empty"):
        write_report(*made("b"), out)
    write_report(*made("b"), out, force=True)
    assert list(store.read(out).tracked) == ["b"]
    (out / "eval.json").unlink()
    with pytest.raises(ConfigError, match="--force replaces only"):
        write_report(*made("a"), out, force=True)


def test_a_run_without_a_scored_frame_says_so(tmp_path: Path) -> None:
    result, dataset = case(("a",))
    said = write_report(lambda: replace(result, rows=[]), dataset, tmp_path / "out")
    assert any("no frame was scored" in warning for warning in said["warnings"])
    assert not (tmp_path / "out" / "worst").exists() and (tmp_path / "out" / "sheets" / "a.png").is_file()


# --- the worst frames ---

row_lists = st.lists(
    st.builds(
        lambda sequence, id_, frame, iou, given: replace(
            ROW, sequence=sequence, object=id_, frame=frame, iou=iou, given=given
        ),
        st.sampled_from("ab"),
        st.integers(1, 3),
        st.integers(0, 40),
        st.sampled_from((0.0, 0.25, 0.5, 1.0)),
        st.booleans(),
    ),
    unique_by=lambda row: (row.sequence, row.object, row.frame),
)


@settings(max_examples=100, deadline=None)
@given(row_lists, st.integers(1, 8), st.integers(1, 3), st.randoms())
def test_the_worst_are_bad_few_and_apart(rows: list[Row], most: int, each: int, random: Any) -> None:
    found = worst(rows, most, each)
    faulty = [row for row in rows if row.iou < 1 and not row.given]
    by_object: dict[tuple[str, int], list[Row]] = {}
    for row in faulty:
        by_object.setdefault((row.sequence, row.object), []).append(row)
    assert set(found) <= set(faulty) and len(found) <= most
    shown = {(row.sequence, row.object) for row in found}
    assert len(shown) == min(most, len(by_object)), "each object's worst frame goes before another's second"
    assert [row.iou for row in found] == sorted(row.iou for row in found)
    for key, of_object in by_object.items():
        own = [row for row in found if (row.sequence, row.object) == key]
        assert len(own) <= each
        if own:
            assert min(row.iou for row in own) == min(row.iou for row in of_object)
        frames, span = sorted(row.frame for row in own), [row.frame for row in of_object]
        assert all(b - a >= (max(span) - min(span)) / (2 * each) for a, b in pairwise(frames))
    shuffled = random.sample(rows, len(rows))
    assert worst(shuffled, most, each) == found


def test_two_frames_of_an_object_are_not_of_one_moment() -> None:
    ious = {0: 0.9, 20: 0.1, 21: 0.0, 22: 0.1, 28: 0.3, 32: 0.4, 40: 0.5}
    rows = [replace(ROW, frame=t, iou=iou) for t, iou in ious.items()]
    assert [row.frame for row in worst(rows)] == [21, 32]


def test_each_object_is_shown_before_another_is_shown_twice() -> None:
    rows = [replace(ROW, object=1, frame=t, iou=0.0) for t in (0, 20, 40)] + [replace(ROW, object=2, iou=0.8)]
    assert [row.object for row in worst(rows, most=2)] == [1, 2]


def test_of_equally_bad_frames_the_one_with_more_wrong_pixels_is_worse() -> None:
    small, large = (replace(ROW, iou=0.0, overlap_area=0, mask_area=area, frame=t) for t, area in ((0, 5), (1, 500)))
    assert worst([small, large], 1) == [large]


# --- pictures ---


def panels(image_hwc: ImageU8) -> list[ImageU8]:
    width = (image_hwc.shape[1] - 2 * pictures.GAP) // 3
    return [image_hwc[pictures._TALL :, x : x + width] for x in range(0, image_hwc.shape[1], width + pictures.GAP)]


def test_each_panel_shows_what_it_says() -> None:
    result, dataset = case()
    sequence, tracked = dataset.sequences[1], result.tracked["case 2"]
    row = next(row for row in result.rows if row.sequence == "case 2" and row.object == 1 and row.frame == 11)
    frame, truth, predicted = panels(pictures.comparison(sequence, tracked, row))
    upper = slice(0, -pictures.LINE)  # without the plates
    assert (frame[upper] == GREY).all()
    assert near(truth[upper], TRUTH) > 50 and near(truth[upper], PREDICTION) == 0
    scale = pictures.PANEL / WIDTH
    assert near(predicted[upper], PREDICTION) == pytest.approx(row.mask_area * scale**2, rel=0.1)
    assert near(predicted[upper], TRUTH) == 0
    ys, xs = np.nonzero((truth[upper] != GREY).any(axis=2))
    assert (xs.mean() / scale, ys.mean() / scale) == pytest.approx((30, 42), abs=1), "the truth is where it was"
    ys, xs = np.nonzero((predicted[upper] != GREY).any(axis=2))
    assert (xs.mean() / scale, ys.mean() / scale) == pytest.approx((41, 42), abs=1)


def test_nothing_is_drawn_where_there_is_nothing() -> None:
    result, dataset = case()
    sequence, tracked = dataset.sequences[1], result.tracked["case 2"]
    absent = {t: next(r for r in result.rows if r.object == 2 and r.frame == t) for t in (5, 6)}
    upper = slice(0, -pictures.LINE)
    shown = {t: panels(pictures.comparison(sequence, tracked, row)) for t, row in absent.items()}
    drawn = {t: [bool((panel[upper] != GREY).any()) for panel in of_frame] for t, of_frame in shown.items()}
    assert drawn == {5: [False, False, False], 6: [False, False, True]}


def test_a_contact_sheet_is_evenly_spaced_and_in_the_colours_of_its_objects() -> None:
    result, dataset = case()
    asked: list[int] = []
    sequence = replace(dataset.sequences[0], image=lambda t: asked.append(t) or image(t))  # type: ignore[func-returns-value]
    sheet = contact_sheet(sequence, result.tracked["case 2"], count=6, columns=3, width=120)
    assert asked == [0, 2, 4, 7, 9, 11]
    assert sheet.shape == (2 * HEIGHT + pictures.GAP, 3 * WIDTH + 2 * pictures.GAP, 3)
    tiles = [sheet[y : y + HEIGHT, x : x + WIDTH] for y in (0, HEIGHT + 6) for x in (0, WIDTH + 6, 2 * WIDTH + 12)]
    assert all(near(tile, color_of(1)) > 150 for tile in tiles)
    assert [near(tile, color_of(2)) > 150 for tile in tiles] == [t not in ABSENT for t in asked]


def test_a_contact_sheet_of_few_frames_and_of_none() -> None:
    result, dataset = case()
    tracked = result.tracked["case 2"]
    few = replace(tracked, masks={t: tracked.masks[t] for t in (3, 5)})
    assert contact_sheet(dataset.sequences[0], few, width=120).shape == (HEIGHT, 2 * WIDTH + pictures.GAP, 3)
    with pytest.raises(ConfigError, match="no frame was tracked"):
        contact_sheet(dataset.sequences[0], Tracked())


@pytest.mark.parametrize("size", [(1080, 1920), (96, 96), (700, 40), (1, 1)])
def test_pictures_of_any_size(size: tuple[int, int]) -> None:
    truth_hw = np.zeros(size, bool)
    truth_hw[0, 0] = True  # a single pixel stays in sight, however much the picture is shrunk

    def truth(t: int) -> Truth:
        return {1: truth_hw}

    sequence = Sequence("a", 1, (Target(1, "x" * 200),), lambda t: np.full((*size, 3), GREY, np.uint8), truth)
    tracked = Tracked({0: {1: Prediction(encode_rle(truth_hw), 0.5)}})
    row = replace(ROW, label="x" * 200, truth_area=1, mask_area=1)
    shown = pictures.comparison(sequence, tracked, row)
    assert max(shown.shape[0] - pictures._TALL, (shown.shape[1] - 2 * pictures.GAP) // 3) == pictures.PANEL
    assert (panels(shown)[2][: -pictures.LINE] != GREY).any()


@given(st.lists(st.text(max_size=8), unique=True, max_size=8))
def test_file_names_are_safe_and_differ(names: list[str]) -> None:
    found = file_names(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", file) for file in found.values())
    assert len({file.lower() for file in found.values()}) == len(names) == len(found)
    assert file_name("../../etc/passwd") == "etc_passwd"


# --- plots ---


@pytest.fixture
def drawn() -> Iterator[Callable[..., Any]]:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: rtseg[eval]")
    result, _ = case(("a",))

    def draw(rows: list[Row] = result.rows, prompts: dict[int, list[int]] | None = None) -> Any:
        return plots.sequence("a", rows, {1: [0, 7], 2: [0]} if prompts is None else prompts)

    yield draw


def test_a_plot_has_a_row_an_object_with_its_figures(drawn: Callable[..., Any]) -> None:
    rows = [row for row in case(("a",))[0].rows if row.object == 1]
    first, second = drawn().axes
    j, f = first.get_lines()[:2]
    assert list(j.get_xdata()) == list(range(FRAMES))
    assert list(j.get_ydata()) == [row.iou for row in rows] and list(f.get_ydata()) == [row.boundary for row in rows]
    mean = np.mean([row.iou for row in rows if not row.given])
    assert first.get_title(loc="left") == f"1 grasper|<b>[x]: J {mean:.3f}, F {mean:.3f}"
    assert second.get_title(loc="left").startswith("2 liver")
    long = drawn([replace(ROW, label="x" * 200)], {}).axes[0].get_title(loc="left")
    assert long.startswith("1 xxx") and long.endswith("...: J 0.500, F 0.400") and len(long) < 110


def test_absent_spans_are_shaded_and_what_is_drawn_there_is_marked(drawn: Callable[..., Any]) -> None:
    first, second = drawn().axes
    assert not first.patches
    (span,) = second.patches
    assert (span.get_x(), span.get_x() + span.get_width()) == (3.5, 7.5)
    values = second.get_lines()[0].get_ydata()
    assert [t for t in range(FRAMES) if np.isnan(values[t])] == list(ABSENT)
    crosses = [line for line in second.get_lines() if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[6]]


def test_prompts_are_marked_on_their_object(drawn: Callable[..., Any]) -> None:
    first, second = drawn().axes
    marks = [next(line for line in axes.get_lines() if line.get_marker() == "v") for axes in (first, second)]
    assert [list(line.get_xdata()) for line in marks] == [[0, 7], [0]]
    legend = [text.get_text() for text in drawn().legends[0].get_texts()]
    assert legend == ["J (IoU)", "F (boundary)", "prompted", "absent in the truth", "drawn though absent"]
    assert "prompted" not in [text.get_text() for text in drawn(prompts={}).legends[0].get_texts()]


def test_plots_of_one_row_and_of_many_objects(drawn: Callable[..., Any], tmp_path: Path) -> None:
    drawn([ROW], {1: []}).savefig(tmp_path / "one.png")
    drawn([replace(ROW, object=i) for i in range(1, 13)], {}).savefig(tmp_path / "many.png")
    assert cv2.imread(str(tmp_path / "many.png")).shape[0] > 3 * cv2.imread(str(tmp_path / "one.png")).shape[0]


def test_of_very_many_objects_the_worst_are_drawn(drawn: Callable[..., Any]) -> None:
    figure = drawn([replace(ROW, object=i, label="", iou=1 - i / 100) for i in range(1, 41)], {})
    titles = [axes.get_title(loc="left").split(":")[0] for axes in figure.axes]
    assert titles == [f"object {i}" for i in range(25, 41)]
    assert figure.get_suptitle() == "a: 16 of 40 objects, those with the least J"


def test_of_very_many_objects_the_largest_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    whole = pictures.render_label
    monkeypatch.setattr(pictures, "render_label", lambda text, *rest: (said.append(text), whole(text, *rest))[1])
    masks = {
        i: Prediction(encode_rle(disc(6 + 11 * (i % 10), 10 + 20 * (i // 10), 1 + i // 10)), 0.9) for i in range(40)
    }
    contact_sheet(replace(case(("a",))[1].sequences[0], targets=()), Tracked({0: masks}))
    assert said == [*(f"object {i}" for i in (*range(20, 22), *range(30, 40))), "frame 0"]
