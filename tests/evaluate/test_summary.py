"""Means of the right rows, and intervals that hold what they promise."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rtseg.base.errors import ConfigError
from rtseg.evaluate import bootstrap
from rtseg.evaluate.blocks import WITHIN
from rtseg.evaluate.bootstrap import MIN_GROUPS, OVER, Figure, Values, estimate
from rtseg.evaluate.paired import paired
from rtseg.evaluate.result import ClassRow, Result, Row, Tracked
from rtseg.evaluate.summary import by_group, difference, summarise


def row(sequence: str, object_: int, frame: int, iou: float, **values: Any) -> Row:
    """A visible object of 100 pixels on a frame of 1000, all figures of which follow from one."""
    base = Row(
        sequence=sequence, object=object_, label="", category="", frame=frame, given=False, pixels=1000,
        truth_area=100, mask_area=100, overlap_area=50, score=1.0,
        dice=iou / 2, iou=iou, boundary=iou / 4, hd95=10 * iou, surface=iou / 8,
    )  # fmt: skip
    return replace(base, **values)


def absent(sequence: str, object_: int, frame: int, mask_area: int) -> Row:
    iou = float(mask_area == 0)
    figures = {"dice": iou, "boundary": iou, "hd95": None, "surface": None}
    return row(sequence, object_, frame, iou, truth_area=0, mask_area=mask_area, overlap_area=0, **figures)


def random_result(seed: int, sequences: int = 8, worse: float = 0.0) -> Result:
    """Sequences that differ in how hard they are; `worse` is taken off every figure, give or take a little."""
    rng, noise = np.random.default_rng(seed), np.random.default_rng(seed + 1000)
    result = Result({}, {})
    for s in range(sequences):
        ease = rng.uniform(0.3, 0.9)
        for o in range(1, int(rng.integers(2, 5))):
            iou = ease + rng.normal(0, 0.02) - worse * noise.uniform(0.8, 1.2)
            result.rows += [row(f"s{s}", o, t, iou, category=f"c{o}", given=t == 0) for t in range(5)]
            result.classes += [ClassRow(f"s{s}", t, f"c{o}", 1000, 1000, int(2000 * iou / (1 + iou))) for t in range(5)]
    return result


# means


def test_objects_weigh_the_same_however_long_they_are() -> None:
    rows = [row("a", 1, t, 0.8) for t in range(9)] + [row("a", 2, 0, 0.2), row("b", 1, 0, 0.5)]
    summary = summarise(Result({}, {}, rows))
    assert [(o.sequence, o.object, o.frames, o.iou) for o in summary.objects] == [
        ("a", 1, 9, pytest.approx(0.8)),
        ("a", 2, 1, 0.2),
        ("b", 1, 1, 0.5),
    ]
    assert (summary.overall["iou"].value, summary.overall["iou"].count) == (pytest.approx(0.5), 3)
    assert summary.overall["jf"].value == pytest.approx(0.5 * 1.25 / 2)
    assert summary.overall["dice"].value == pytest.approx(0.25)
    assert summary.overall["hd95"].value == pytest.approx(5)
    assert summary.sequences["a"]["iou"].value == pytest.approx(0.5)
    assert summary.sequences["b"]["iou"].value == pytest.approx(0.5)
    assert summary.classes == {}


def test_the_dice_of_a_volume_is_of_all_its_slices_together() -> None:
    """Empty slices that nobody drew on, and small ones, weigh what they hold; a slice that was given, nothing."""
    areas = {0: (100, 100, 100), 1: (90, 110, 80), 2: (10, 0, 0), 3: (0, 0, 0)}
    names = ("truth_area", "mask_area", "overlap_area")
    rows = [row("v", 1, t, 0.5, given=t == 0, **dict(zip(names, areas[t], strict=True))) for t in areas]
    found = summarise(Result({}, {}, rows, tracked={"v": Tracked(volume=True)}))
    assert found.objects[0].volume_dice == found.overall["volume_dice"].value == 2 * 80 / 210
    assert found.objects[0].dice == 0.25  # the mean over slices is another figure
    film = summarise(Result({}, {}, rows, tracked={"v": Tracked()}))
    assert film.objects[0].volume_dice is None and "volume_dice" not in film.overall
    alone = summarise(Result({}, {}, rows[:1], tracked={"v": Tracked(volume=True)}))
    assert alone.objects[0].volume_dice is None


def test_given_masks_are_nobody_s_merit() -> None:
    rows = [row("a", 1, 0, 1.0, given=True), row("a", 1, 1, 0.4), row("a", 2, 0, 1.0, given=True)]
    summary = summarise(Result({}, {}, rows))
    assert [(o.frames, o.iou, o.jf) for o in summary.objects] == [(1, 0.4, 0.25), (0, None, None)]
    assert summary.overall["iou"] == Figure(0.4, None, None, 1)


def test_classes_are_those_of_the_data_set() -> None:
    rows = [row("a", 1, 0, 0.2, category="hook"), row("a", 2, 0, 0.6, category="clip"), row("a", 3, 0, 0.9)]
    rows += [row("b", 1, 0, 0.4, category="hook")]
    classes = [ClassRow("a", 0, "hook", 10, 10, 5), ClassRow("b", 0, "hook", 10, 10, 10)]
    classes += [ClassRow("a", 0, "clip", 0, 10, 0)]
    summary = summarise(Result({}, {}, rows, classes))
    assert {name: figures["iou"].value for name, figures in summary.classes.items()} == {
        "hook": pytest.approx(0.3),
        "clip": 0.6,
    }
    hook = (5 / 15 + 1) / 2
    assert summary.overall["challenge_iou"].value == pytest.approx(hook)
    assert summary.overall["isi_iou"].value == pytest.approx((5 / 15 / 2 + 1) / 2)
    assert summary.overall["mc_iou"].value == pytest.approx(hook / 2)
    assert summary.classes["hook"]["mc_iou"].value == pytest.approx(hook)
    assert "challenge_iou" not in summary.classes["clip"]


def test_presence() -> None:
    rows = [row("a", 1, 0, 0.9)]
    rows += [absent("a", 1, 1, 100), absent("a", 1, 2, 0), absent("a", 1, 3, 20)]
    rows += [row("a", 1, 4, 0.0, mask_area=0, hd95=None, surface=None), row("a", 1, 5, 0.8)]
    rows += [row("a", 2, t, 0.8) for t in range(6)]
    summary = summarise(Result({}, {}, rows))
    first, second = summary.objects
    assert first.false_area == pytest.approx(0.04)
    assert first.false_frames == pytest.approx(2 / 3)
    assert (first.missed, second.missed) == (pytest.approx(1 / 3), 0)
    assert (first.returns, second.returns) == ((1,), ())
    assert second.false_area is None
    assert summary.overall["false_area"] == Figure(pytest.approx(0.04), None, None, 1)  # of objects that were absent
    assert summary.overall["missed"].value == pytest.approx(1 / 6)
    assert summary.overall["reacquired"] == Figure(1, None, None, 1)
    assert summary.overall["reacquisition_frames"] == Figure(1, None, None, 1)


def test_a_return_that_failed_is_longer_than_any_other() -> None:
    def returning(object_: int, *ious: float) -> list[Row]:
        gone = [row("a", object_, 0, 1.0), *(absent("a", object_, t, 0) for t in (1, 2, 3))]
        return gone + [row("a", object_, 4 + t, iou) for t, iou in enumerate(ious)]

    found, late, failed = returning(1, 0, 0.9), returning(2, *[0.0] * 11, 0.9), returning(3, 0, 0)
    overall = summarise(Result({}, {}, found + late + failed)).overall
    assert overall["reacquired"] == Figure(pytest.approx(1 / 3), None, None, 3)
    assert overall["reacquisition_frames"].value == 11
    assert "reacquisition_frames" not in summarise(Result({}, {}, found + failed)).overall


@pytest.mark.parametrize("protocol", ["forward", "backward", "both"])
def test_nothing_is_found_again_against_time(protocol: str) -> None:
    """A backward pass knows the object from after its return; what it does there is no answer to having lost it."""
    rows = [row("a", 1, 0, 0.9), *(absent("a", 1, t, 10) for t in (1, 2, 3)), row("a", 1, 4, 0.9)]
    summary = summarise(Result({"protocol": protocol}, {}, rows))
    assert summary.objects[0].returns == ((0,) if protocol == "forward" else ())
    names = {"reacquired", "reacquisition_frames"}
    assert names & summary.overall.keys() == (names if protocol == "forward" else set())
    assert "false_area" in summary.overall


def clicked(object_: int, *clicks: int) -> list[Row]:
    return [row("a", object_, t, 0.5 + 0.1 * t, clicks=of_frame) for t, of_frame in enumerate(clicks)]


def test_clicks_are_counted_where_people_help_as_it_is_needed() -> None:
    rows = clicked(1, 3, 0, 3, 1) + clicked(2, 0, 0, 2) + clicked(3, 0, 0)
    summary = summarise(Result({"protocol": "interactive"}, {}, rows))
    assert [(o.frames, o.clicks, o.corrected) for o in summary.objects] == [(4, 7, 2), (3, 2, 1), (2, 0, 0)]
    assert summary.overall["clicks"] == Figure(3, None, None, 3) == summary.sequences["a"]["clicks"]
    assert summary.overall["corrected"] == Figure(1, None, None, 3)
    assert summary.objects[1].iou == pytest.approx(0.6)  # of all frames, those with clicks included
    video = summarise(Result({"protocol": "video"}, {}, rows))
    assert {o.clicks for o in video.objects} == {o.corrected for o in video.objects} == {None}
    assert not {"clicks", "corrected"} & video.overall.keys()


def test_speed() -> None:
    tracked = {"a": Tracked(ms=[10.0] * 18), "b": Tracked(ms=[40.0] * 2)}
    speed = summarise(Result({}, {}, tracked=tracked)).speed
    assert speed is not None
    assert (speed.steps, speed.median_ms, speed.p95_ms, speed.median_fps, speed.p95_fps) == (20, 10, 40, 100, 25)
    assert summarise(Result({}, {})).speed is None


def test_a_summary_is_json_and_always_the_same() -> None:
    result = random_result(1)
    documents = {json.dumps(summarise(result).to_json(), allow_nan=False) for _ in range(2)}
    assert len(documents) == 1
    document = json.loads(documents.pop())
    assert document["overall"]["iou"]["low"] < document["overall"]["iou"]["value"] < document["overall"]["iou"]["high"]
    assert document["intervals"]["resampled"] == "groups"
    assert document["objects"][0]["sequence"] == "s0"


# intervals


def videos(rng: np.random.Generator, sequences: int) -> dict[str, list[float]]:
    """Objects of a video have much in common; the true mean is 0.7."""
    hard = rng.normal(0.7, 0.1, sequences)
    return {f"s{i:02}": list(h + rng.normal(0, 0.03, rng.integers(1, 6))) for i, h in enumerate(hard)}


def covered(values: Sequence[Values]) -> float:
    figures = [estimate(one) for one in values]
    return float(np.mean([f is not None and f.low is not None and f.low <= 0.7 <= f.high for f in figures]))


def test_clips_of_one_video_are_one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen videos of one to ten clips each, which have more in common than clips of others; the true mean is 0.7."""
    monkeypatch.setattr(bootstrap, "DRAWS", 1000)

    rng, nested, apart = np.random.default_rng(1), [], []
    for _ in range(300):
        hard = rng.normal(0.7, 0.1, 12)
        clips = {f"v{v}/{c}": h + rng.normal(0, 0.03) for v, h in enumerate(hard) for c in range(rng.integers(1, 11))}
        tracked = {name: Tracked(group=name.partition("/")[0]) for name in clips}
        nested.append(by_group(clips.items(), Result({}, {}, tracked=tracked).group))
        apart.append(by_group(clips.items(), Result({}, {}).group))
    assert 0.90 < covered(nested) < 0.99
    assert covered(apart) < 0.75  # as if each clip were a video of its own


def test_the_groups_are_what_is_counted() -> None:
    result = random_result(1)
    assert summarise(result).intervals["groups"] == 8
    of_four = replace(result, tracked={f"s{s}": Tracked(group=f"video {s // 2}") for s in range(8)})
    summary = summarise(of_four)
    assert summary.intervals["groups"] == 4 and summary.overall["iou"].scope == WITHIN
    assert summary.overall["iou"].value == summarise(result).overall["iou"].value and len(summary.sequences) == 8


@pytest.mark.parametrize("sequences", [5, 12])
def test_intervals_hold_the_truth_as_often_as_they_say(sequences: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "DRAWS", 1000)
    rng = np.random.default_rng(sequences)
    samples = [videos(rng, sequences) for _ in range(300)]
    assert 0.90 < covered(samples) < 0.99
    apart = [{f"{name}/{i}": [v] for name, vs in one.items() for i, v in enumerate(vs)} for one in samples]
    assert covered(apart) < 0.87  # as if each object were a video of its own


def test_of_few_videos_there_is_no_interval() -> None:
    values = {f"s{i}": [0.1 * i] for i in range(MIN_GROUPS)}
    figure = estimate(values)
    assert figure is not None
    assert figure.low is not None
    del values["s0"]
    assert estimate(values) == Figure(pytest.approx(0.25), None, None, MIN_GROUPS - 1)


def test_what_has_no_value_has_no_figure() -> None:
    assert estimate() is None
    assert estimate({}) is None
    assert estimate({"a": []}) is None
    assert estimate({"a": [], "b": [1.0]}) == Figure(1, None, None, 1)


def test_what_does_not_vary_has_an_interval_of_no_width() -> None:
    assert estimate({f"s{i}": [0.5] for i in range(9)}) == Figure(0.5, 0.5, 0.5, 9, OVER)


def test_groups_weigh_the_same() -> None:
    common, rare = {f"s{i}": [0.9] * 50 for i in range(6)}, {"s3": [0.1]}
    figure = estimate(common, rare)
    assert figure is not None
    assert figure.value == pytest.approx(0.5)
    assert figure.high == pytest.approx(0.9)  # of a resample without the rare class there is only the common one


def test_an_interval_is_student_s_for_symmetric_data() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 0.5, -0.5, 0.0]
    figure = estimate({f"s{i}": [v] for i, v in enumerate(values)})
    assert figure is not None
    low, high = stats.t.interval(0.95, 9, loc=np.mean(values), scale=stats.sem(values))
    assert figure.low == pytest.approx(low, abs=0.08)
    assert figure.high == pytest.approx(high, abs=0.08)


# pairs


def test_a_paired_difference_is_surer_than_its_two_sides() -> None:
    good, bad = random_result(3), random_result(3, worse=0.05)
    apart, paired = summarise(good).overall["iou"], difference(good, bad)["iou"]
    assert paired.value == pytest.approx(summarise(bad).overall["iou"].value - apart.value)
    assert paired.low is not None
    assert paired.low < paired.value < paired.high < 0  # and so the second is worse, for certain
    assert paired.high - paired.low < 0.2 * (apart.high - apart.low)
    back = difference(bad, good)
    assert back["iou"].low == pytest.approx(-paired.high)
    assert back["mc_iou"].value == pytest.approx(-difference(good, bad)["mc_iou"].value)
    assert all(figure.value == 0 == figure.low == figure.high for figure in difference(good, good).values())


def test_only_what_both_have_is_compared() -> None:
    good, bad = random_result(4), random_result(4, worse=0.1)
    expected = difference(good, bad)["iou"]
    more = [row("other", 1, 0, 0.0), *good.rows, *(row("s0", 9, t, 0.0) for t in range(5))]
    assert difference(replace(good, rows=more), bad)["iou"] == expected


def test_what_is_paired_is_paired_for_good() -> None:
    good, bad = random_result(5), random_result(5, worse=0.1)
    bad.rows[2] = replace(bad.rows[2], given=True)
    once = paired(replace(good, rows=[*good.rows, row("other", 1, 0, 0.5)]), bad)
    assert paired(*once) == once != (good, bad)
    assert [r.given for r in once[0].rows] == [r.given for r in once[1].rows] == [r.given for r in bad.rows]


def test_a_mask_given_to_one_counts_for_neither() -> None:
    rows = [[row("a", 1, t, iou, category="c") for t in range(3)] for iou in (0.5, 0.6)]
    classes = [[ClassRow("a", t, "c", 10, 10, area) for t in range(3)] for area in (4, 6)]
    plain, other = (Result({}, {}, r, c) for r, c in zip(rows, classes, strict=True))
    plain.rows[0] = replace(plain.rows[0], iou=1.0, given=True)
    other.rows[1] = replace(other.rows[1], iou=1.0, given=True)
    figures = difference(plain, other)
    assert figures["iou"].value == pytest.approx(0.1)
    assert figures["challenge_iou"].value == pytest.approx(6 / 14 - 4 / 16)
    assert figures["challenge_iou"].count == 1


def test_a_class_is_compared_where_it_has_the_same_objects() -> None:
    """In the second evaluation object 2 is not prompted before frame 1."""
    rows = [row("a", i, t, 0.5, category="c") for t in range(2) for i in (1, 2)]
    many, few = [ClassRow("a", t, "c", 20, 20, 10) for t in range(2)], ClassRow("a", 0, "c", 10, 10, 10)
    figures = difference(Result({}, {}, rows, many), Result({}, {}, [rows[0], *rows[2:]], [few, many[1]]))
    assert figures["challenge_iou"] == Figure(0, None, None, 1)
    assert figures["iou"].count == 2


def test_a_class_that_neither_run_followed_is_compared_and_one_that_only_one_did_is_not() -> None:
    rows = [row("a", 1, t, 0.5, category="c") for t in range(2)]
    missed = [ClassRow("a", t, "hook", 10, 0, 0) for t in range(2)]
    before, after = ([ClassRow("a", t, "c", 10, 10, area) for t in range(2)] for area in (5, 10))
    first, second = (Result({}, {}, rows, [*classes, *missed]) for classes in (before, after))
    figures = difference(first, second)
    assert figures["challenge_iou"].value == pytest.approx((1 - 5 / 15) / 2)
    assert "hook" in summarise(first).classes and summarise(first).classes["hook"]["mc_iou"].value == 0
    hook = [row("a", 2, t, 0.5, category="hook") for t in range(2)]
    alone = difference(first, Result({}, {}, [*rows, *hook], [*after, *missed]))
    assert alone["challenge_iou"].value == pytest.approx(1 - 5 / 15)


def test_a_figure_that_one_lacks_is_not_compared() -> None:
    plain = Result({}, {}, [row("a", 1, 0, 0.5), row("a", 2, 0, 0.5)])
    nothing = replace(plain.rows[0], iou=0.0, mask_area=0, hd95=None, surface=None)
    figures = difference(plain, Result({}, {}, [nothing, row("a", 2, 0, 0.7)]))
    assert figures["hd95"] == Figure(pytest.approx(2), None, None, 1)
    assert figures["iou"].count == 2


def test_who_draws_nothing_on_the_worst_frame_is_not_the_better_one() -> None:
    """Both runs are the same, but on the worst frame the second draws nothing at all."""
    drawn = [row("a", 1, t, 0.5, hd95=60.0 if t == 5 else 4.0, surface=0.1 if t == 5 else 0.8) for t in range(6)]
    empty = {"iou": 0.0, "dice": 0.0, "boundary": 0.0, "mask_area": 0, "overlap_area": 0, "hd95": None, "surface": 0.0}
    poor, gone = Result({}, {}, drawn), Result({}, {}, [*drawn[:5], replace(drawn[5], **empty)])
    figures = difference(poor, gone)
    assert figures["hd95"].value == 0 and figures["missed"].value == pytest.approx(1 / 6)
    assert figures["surface"].value == pytest.approx(-0.1 / 6)
    alone = [summarise(of).overall["hd95"].value for of in (poor, gone)]
    assert alone[1] < alone[0]  # each by itself: what pairing has to undo
    assert paired(*paired(poor, gone)) == paired(poor, gone)
    both_poor = Result({}, {}, [replace(r, hd95=9.0) for r in drawn])
    assert difference(poor, both_poor)["hd95"].value == pytest.approx(9 - 80 / 6)  # where both draw, all frames count


def test_evaluations_of_other_data_are_refused() -> None:
    with pytest.raises(ConfigError, match="no frame of an object in common"):
        difference(Result({}, {}, [row("a", 1, 0, 0.5)]), Result({}, {}, [row("b", 1, 0, 0.5)]))


def test_a_missing_scipy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.special", None)
    with pytest.raises(ConfigError, match=r"pip install 'rtseg\[eval\]'"):
        estimate({f"s{i}": [float(i)] for i in range(6)})
