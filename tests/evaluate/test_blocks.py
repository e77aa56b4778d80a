"""Intervals within videos: where frames hang together they hold what they promise, and are of the right figures."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from rtseg.evaluate import blocks
from rtseg.evaluate.blocks import WITHIN, Part, block_length, interval
from rtseg.evaluate.bootstrap import OVER
from rtseg.evaluate.frame_terms import CLASSES, TERMS, class_parts, object_part
from rtseg.evaluate.object_figures import BY_OBJECT, EFFORT
from rtseg.evaluate.result import ClassRow, Result, Row, Tracked
from rtseg.evaluate.sheets import objects_sheet, overall_sheet, parts_sheet
from rtseg.evaluate.summary import difference, summarise

Series = npt.NDArray[np.float64]


@pytest.fixture(autouse=True)
def _scipy() -> None:
    pytest.importorskip("scipy", reason="scipy is not installed: rtseg[eval]")


def series(rng: np.random.Generator, size: int, r: float) -> Series:
    """Neighbours correlate by r; the true mean is 0.7, the deviation 0.1."""
    drawn = rng.normal(0, np.sqrt(1 - r * r), size + 100)
    for t in range(1, len(drawn)):
        drawn[t] += r * drawn[t - 1]
    return np.asarray(0.7 + 0.1 * drawn[100:])


def part(values: Series, name: str = "a") -> Part:
    return {name: {t: (float(value), 1.0) for t, value in enumerate(values)}}


def covered(samples: list[list[Part]]) -> float:
    found = [interval(parts) for parts in samples]
    return float(np.mean([ends is not None and ends[0] <= 0.7 <= ends[1] for ends in found]))


@pytest.mark.parametrize("r", [0.5, 0.8])
def test_of_frames_that_hang_together_the_interval_holds_the_truth(r: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    samples = [[part(series(rng, 200, r))] for _ in range(200)]
    assert 0.86 < covered(samples) < 0.99
    monkeypatch.setattr(blocks, "block_length", lambda series_t: 1)
    assert covered(samples) < (0.80 if r == 0.5 else 0.55)  # as if each frame were a sample of its own


def test_objects_of_one_video_are_drawn_together() -> None:
    """Three of them, two objects each; objects of one video are hard on the same frames."""
    rng = np.random.default_rng(6)
    samples = []
    for _ in range(150):
        common = {name: series(rng, 120, 0.7) for name in "abc"}
        samples.append([part(common[name] + rng.normal(0, 0.02, 120), name) for name in "abc" for _ in range(2)])
    assert 0.88 < covered(samples) < 0.99
    apart = [[{str(i): frames} for i, one in enumerate(parts) for frames in one.values()] for parts in samples]
    assert covered(apart) < 0.88  # as if each object were filmed by itself


def test_a_stretch_is_longer_the_more_frames_hang_together() -> None:
    rng = np.random.default_rng(7)
    lengths = [np.median([block_length(series(rng, 400, r)) for _ in range(40)]) for r in (0, 0.5, 0.8, 0.95)]
    expected = [np.cbrt(6 * r**2 / (1 - r**2) ** 2 * 400) for r in (0, 0.5, 0.8, 0.95)]
    assert lengths[0] <= 4 and lengths[1:] == pytest.approx(expected[1:], rel=0.25)
    assert block_length(np.zeros(50)) == 1 and block_length(np.arange(50.0)) == 50


def test_of_too_few_frames_there_is_none() -> None:
    assert interval([]) is interval([{}]) is interval([{"a": {}}]) is None
    assert interval([part(np.array([0.1, 0.2, 0.1, 0.2]))]) is None
    assert interval([part(np.linspace(0, 1, 90))]) is None  # one stretch, however long
    assert interval([part(np.full(5, 0.3))]) == (pytest.approx(0.3), pytest.approx(0.3))


def test_both_runs_are_drawn_with_the_same_stretches() -> None:
    rng = np.random.default_rng(8)
    hard = series(rng, 200, 0.8)
    before, after = part(hard), part(hard + 0.02 + rng.normal(0, 0.01, 200))
    alone, paired = interval([before]), interval([before], [after])
    assert alone is not None and paired is not None
    assert 0 < paired[0] < 0.02 < paired[1] and paired[1] - paired[0] < 0.15 * (alone[1] - alone[0])
    back = interval([after], [before])
    assert back == (pytest.approx(-paired[1]), pytest.approx(-paired[0]))


# of an evaluation


def evaluation(seed: int = 0, sequences: int = 2) -> Result:
    """Two objects a sequence, the second of which is away for a while; each is lost now and then."""
    rng, result = np.random.default_rng(seed), Result({}, {})
    for s in range(sequences):
        for o in (1, 2):
            for t, iou in enumerate(np.clip(series(rng, 80, 0.5), 0, 1)):
                truth, mask = 100 * (o == 1 or not 20 <= t < 45), 0 if rng.random() < 0.1 else 90 + t
                inside = round((truth + mask) * iou / (1 + iou)) if truth and mask else 0
                iou = float(iou) * (inside > 0) or float(truth == mask == 0)
                hd95, surface = (4.0 + t % 7, iou) if inside else (None, 0.0 if truth or mask else None)
                figures = (1.0, 2 * iou / (1 + iou), iou, iou**2, hd95, surface)
                result.rows.append(Row(f"s{s}", o, "", f"c{o}", t, t == 0, 1000, truth, mask, inside, *figures))
                if t and (truth or mask):
                    result.classes.append(ClassRow(f"s{s}", t, f"c{o}", truth, mask, inside))
        result.tracked[f"s{s}"] = Tracked(volume=True)
    return result


def value(parts: list[Part]) -> float:
    sums = [np.sum([s for frames in one.values() for s in frames.values()], axis=0) for one in parts if one]
    return float(np.mean([above / below for above, below in sums]))


def test_what_is_drawn_again_are_the_figures() -> None:
    result = evaluation()
    overall = summarise(result).overall
    assert {*BY_OBJECT} - {*EFFORT, "volume_hd95", "volume_surface"} == {*TERMS}
    for name in TERMS:
        by_object = [[r for r in result.rows if (r.sequence, r.object) == (s, o)] for s in ("s0", "s1") for o in (1, 2)]
        assert value([object_part(name, rows) for rows in by_object]) == pytest.approx(overall[name].value), name
    for name in CLASSES:
        assert value(class_parts(name, result.classes)) == pytest.approx(overall[name].value), name


def test_objects_sequences_and_few_videos_have_intervals_within_them() -> None:
    result = evaluation()
    summary = summarise(result)
    for figures in (summary.overall, *summary.sequences.values(), *summary.classes.values()):
        for name in (*TERMS, *CLASSES):
            figure = figures.get(name)
            if figure is None or name.startswith("false"):
                continue  # away for too few frames
            assert figure.scope == WITHIN and figure.low is not None and figure.high is not None, name
            assert figure.low <= figure.value <= figure.high, name
    assert all({"jf", "iou", "missed"} <= o.intervals.keys() for o in summary.objects)
    document = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert document["overall"]["iou"]["scope"] == "within these videos"
    assert document["intervals"]["within"]["resampled"] == "moving blocks of frames"
    assert document["objects"][0]["intervals"]["iou"] == list(summary.objects[0].intervals["iou"])
    heading = f"95 % interval\n{WITHIN}"
    assert overall_sheet(summary, "px").columns[2] == parts_sheet("sequences", summary.sequences).columns[3] == heading
    assert heading in objects_sheet(summary.objects).columns
    assert f"| 95 % interval {WITHIN} |" in overall_sheet(summary, "px").as_markdown()


def test_of_many_videos_intervals_are_over_videos_and_of_one_within_it() -> None:
    summary = summarise(evaluation(sequences=6))
    assert {figure.scope for name, figure in summary.overall.items() if name in TERMS} == {OVER}
    assert summary.sequences["s3"]["iou"].scope == WITHIN
    assert overall_sheet(summary, "px").columns[2] == "95 % interval\nover videos"
    mixed = parts_sheet("x", {"all": summary.overall, **summary.sequences})
    assert {row[3].partition(" to ")[2].partition(" ")[2] for row in mixed.rows} == {OVER, WITHIN}


def test_a_paired_difference_of_few_videos_is_sure_where_it_is_everywhere_the_same() -> None:
    before = evaluation()
    after = replace(before, rows=[replace(r, iou=r.iou * 0.9) for r in before.rows])
    figure, apart = difference(before, after)["iou"], summarise(before).overall["iou"]
    assert figure.scope == WITHIN and figure.low is not None and figure.high is not None
    assert apart.low is not None and apart.high is not None
    assert figure.low < figure.value < figure.high < 0
    assert figure.high - figure.low < 0.2 * (apart.high - apart.low)
