"""Two runs, paired: what changed is found, what did not is not, and what cannot be paired is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rtseg.base.errors import ConfigError
from rtseg.evaluate import store
from rtseg.evaluate.blocks import WITHIN
from rtseg.evaluate.compare import CLEAR, Comparison, Tally, compare, comparison_table
from rtseg.evaluate.result import ClassRow, Result, Row, Tracked

SETTINGS = {"protocol": "video", "prompt": "mask", "seed": 0, "corruption": None, "policy": None}
SEQUENCES, FRAMES, AREA, PIXELS = tuple("abcdefgh"), 8, 1000, 100_000
ABSENT = (3, 4, 5)  # frames without object 2

Gain = Callable[[str, int], float]


def run(gain: Gain = lambda sequence, object_: 0.0, ms: float = 10.0, sequences: tuple[str, ...] = SEQUENCES) -> Result:
    """Object 1 of each sequence has its own IoU, and `gain` more; object 2 is drawn while it is away."""
    result = Result(dict(SETTINGS), {"engine": "nano", "versions": {"rtseg": "0.5"}})
    for number, sequence in enumerate(sequences):
        for frame in range(FRAMES):
            for id_, category in ((1, "tool"), (2, "tissue")):
                absent = id_ == 2 and frame in ABSENT
                iou = 0.2 + 0.07 * number + 0.005 * frame + gain(sequence, id_)
                result.rows.append(row_of(sequence, id_, category, frame, iou, absent))
        result.tracked[sequence] = Tracked(ms=[ms + number] * FRAMES)
    return result


def row_of(sequence: str, id_: int, category: str, frame: int, iou: float, absent: bool) -> Row:
    truth, mask = (0, 500) if absent else (AREA, AREA)
    overlap = 0 if absent else round(2 * AREA * iou / (1 + iou))
    figures = (0.0, 0.0, 0.0, None, None) if absent else (2 * iou / (1 + iou), iou, 0.8 * iou, 5.0, iou)
    return Row(sequence, id_, "x", category, frame, frame == 0, PIXELS, truth, mask, overlap, 0.9, *figures)


def stored(folder: Path, result: Result) -> Path:
    folder.mkdir(parents=True)
    store.write(folder, result, {})
    return folder


def compared(tmp_path: Path, before: Result, after: Result) -> Comparison:
    return compare(stored(tmp_path / "a", before), stored(tmp_path / "b", after) / "eval.json")


@pytest.fixture(autouse=True)
def _scipy() -> None:
    pytest.importorskip("scipy", reason="scipy is not installed: rtseg[eval]")


def test_a_run_beside_itself_has_changed_in_nothing(tmp_path: Path) -> None:
    found = compared(tmp_path, run(), run())
    changes = [change for group in found.groups.values() for change in group.values()]
    assert changes and all(c.difference.value == c.difference.low == c.difference.high == 0 for c in changes)
    assert found.tallies[""] == Tally(0, 0, 2 * len(SEQUENCES))
    assert found.sequences == [] and found.differing == {}


def test_a_gain_that_is_everywhere_the_same_is_certain_however_much_sequences_differ(tmp_path: Path) -> None:
    """The point of pairing: sequences differ by 0.5, and a gain of 0.03 is known to be one."""
    found = compared(tmp_path, run(), run(lambda sequence, id_: 0.03 if id_ == 1 else 0.0))
    jf = found.groups["tool"]["jf"]
    assert jf.difference.value == pytest.approx(0.9 * 0.03)
    assert (jf.difference.low, jf.difference.high) == pytest.approx((0.9 * 0.03, 0.9 * 0.03))
    assert found.groups["tissue"]["jf"].difference.value == pytest.approx(0)
    assert found.groups[""]["iou"].difference.value == pytest.approx(0.015)
    assert found.tallies == {
        "": Tally(len(SEQUENCES), 0, len(SEQUENCES)),
        "tool": Tally(len(SEQUENCES), 0, 0),
        "tissue": Tally(0, 0, len(SEQUENCES)),
    }


def test_before_and_after_are_means_and_their_difference_is_the_difference(tmp_path: Path) -> None:
    before, after = run(), run(lambda sequence, id_: 0.1 if sequence < "d" else -0.05)
    found = compared(tmp_path, before, after)
    for name, of in (("iou", before), ("boundary", after)):
        by_object = [
            np.mean([getattr(r, name) for r in of.rows if (r.sequence, r.object) == (s, i) and not r.given])
            for s in SEQUENCES
            for i in (1, 2)
        ]
        change = found.groups[""][name]
        assert (change.before if of is before else change.after) == pytest.approx(np.mean(by_object))
    for name in ("jf", "iou", "boundary", "dice", "surface", "false_area", "reacquired", "ms"):
        change = found.groups[""][name]
        assert change.after - change.before == pytest.approx(change.difference.value), name
    assert found.groups[""]["false_area"].before == pytest.approx(500 / PIXELS)


def test_a_class_that_only_one_run_drew_where_there_is_none_counts_in_neither(tmp_path: Path) -> None:
    before, after = run(), run()
    for result, overlap in ((before, 5), (after, 8)):
        result.classes = [ClassRow(s, t, "tool", 10, 10, overlap) for s in SEQUENCES[1:] for t in (1, 2)]
    before.classes.append(ClassRow(SEQUENCES[0], 1, "tool", 0, 10, 0))
    change = compared(tmp_path, before, after).groups["tool"]["isi_iou"]
    assert (change.before, change.after) == pytest.approx((5 / 15, 8 / 12))
    assert change.difference.value == pytest.approx(8 / 12 - 5 / 15)


def test_what_is_chance_is_not_taken_for_a_change(tmp_path: Path) -> None:
    signs = dict(zip(SEQUENCES, (1, -1, 1, -1, 1, -1, 1, -1), strict=True))
    found = compared(tmp_path, run(), run(lambda sequence, id_: 0.05 * signs[sequence]))
    jf = found.groups[""]["jf"].difference
    assert jf.low is not None and jf.high is not None and jf.low < 0 < jf.high
    assert found.tallies[""].wins == found.tallies[""].losses == len(SEQUENCES)


def test_swapping_the_runs_swaps_the_signs(tmp_path: Path) -> None:
    before, after = run(ms=10), run(lambda sequence, id_: 0.1 if sequence < "c" else -0.02, ms=15)
    there, back = compared(tmp_path / "x", before, after), compared(tmp_path / "y", after, before)
    for group, changes in there.groups.items():
        for name, change in changes.items():
            other = back.groups[group][name].difference
            assert change.difference.value == pytest.approx(-other.value)
            assert (change.difference.low, change.difference.high) == pytest.approx((-other.high, -other.low))  # type: ignore[operator]
    assert (there.tallies[""].wins, there.tallies[""].losses) == (back.tallies[""].losses, back.tallies[""].wins)


def test_step_times_are_compared(tmp_path: Path) -> None:
    before, after = run(ms=10), run(ms=4)
    before.tracked |= {"unscored": Tracked(ms=[1e6]), "untimed": Tracked()}
    after.tracked |= {"untimed": Tracked(ms=[1e6])}
    ms = compared(tmp_path, before, after).groups[""]["ms"]
    assert (ms.before, ms.after) == pytest.approx((13.5, 7.5))
    assert (ms.difference.value, ms.difference.low, ms.difference.high) == pytest.approx((-6, -6, -6))


def test_a_lost_object_shows_in_the_share_that_is_found_again(tmp_path: Path) -> None:
    good = run(lambda sequence, id_: 0.4 if sequence < "d" else 0.25)
    lost = replace(good, rows=[replace(r, iou=0.0) if r.object == 2 and r.frame > 5 else r for r in good.rows])
    change = compared(tmp_path, good, lost).groups["tissue"]["reacquired"]
    assert (change.before, change.after, change.difference.value) == (1, 0, -1)


def test_sequences_that_changed_most_come_first(tmp_path: Path) -> None:
    gains = {"b": -0.15, "d": 0.1, "g": 0.001}
    found = compared(tmp_path, run(), run(lambda sequence, id_: gains.get(sequence, 0.0)))
    assert [moved.sequence for moved in found.sequences] == ["b", "d", "g"]
    assert found.sequences[0].after < found.sequences[0].before


def test_a_sequence_that_changed_has_a_paired_interval_of_its_own_frames(tmp_path: Path) -> None:
    """The gain is by turns more and less on a sequence's frames: on a never nothing, on b often a loss."""
    before = without(run(sequences=("a", "b")), lambda r: r.object == 1)
    before.rows = [replace(r, iou=0.3 + 0.25 * (r.frame % 3 == 0)) for r in before.rows]  # as pairing does not mind
    turns = {"a": 0.01, "b": 0.1}
    rows = [replace(r, iou=r.iou + 0.05 + turns[r.sequence] * (-1) ** r.frame) for r in before.rows]
    comparison = compared(tmp_path, before, replace(before, rows=rows))
    found = {moved.sequence: moved for moved in comparison.sequences}
    assert found.keys() == {"a", "b"}
    for moved in found.values():
        assert moved.difference.value == moved.after - moved.before and moved.difference.scope == WITHIN
    (low, high), (below, above) = ((found[name].difference.low, found[name].difference.high) for name in "ab")
    assert low and high and 0.019 < low < found["a"].difference.value < high < 0.031
    assert below and above and below < 0 < above
    sheet = next(sheet for sheet in comparison_table(comparison).sheets if sheet.title.startswith("sequences"))
    assert sheet.columns[-1] == f"95 % interval\n{WITHIN}"
    assert {row[0]: row[-1] for row in sheet.rows}["b"] == f"{below:+.3f} to {above:+.3f}"


def test_a_sequence_of_few_frames_has_no_interval_of_its_own(tmp_path: Path) -> None:
    few = [without(run(gain), lambda r: r.frame < 4) for gain in (lambda *_: 0.0, lambda *_: 0.1)]
    found = compared(tmp_path, *few)
    assert found.groups[""]["jf"].difference.low is not None  # over the videos
    assert {moved.difference.low for moved in found.sequences} == {None}
    (sheet,) = [sheet for sheet in comparison_table(found).sheets if sheet.title.startswith("sequences")]
    assert sheet.columns == ("", "before", "after", "difference")


def test_a_draw_is_a_difference_too_small_to_matter(tmp_path: Path) -> None:
    by = {"a": CLEAR / 2, "b": -CLEAR / 2, "c": 3 * CLEAR, "d": -3 * CLEAR}
    found = compared(tmp_path, run(), run(lambda sequence, id_: by.get(sequence, 0.0) if id_ == 1 else 0.0))
    assert found.tallies["tool"] == Tally(1, 1, len(SEQUENCES) - 2)


def test_a_mask_that_was_given_in_one_run_counts_in_neither(tmp_path: Path) -> None:
    before, after = run(), run()
    after.rows = [replace(r, given=True, iou=1.0, boundary=1.0, dice=1.0) if r.frame == 6 else r for r in after.rows]
    found = compared(tmp_path, before, after)
    jf = found.groups[""]["jf"]
    assert jf.difference.value == pytest.approx(0) and jf.before == jf.after
    assert found.sequences == [] and found.tallies[""] == Tally(0, 0, 2 * len(SEQUENCES))


def helped(clicks: int, gain: float = 0.0) -> Result:
    """Clicked on frames 2 and 6 so many times each, in every sequence; IoUs are those after the clicks."""
    result = run(lambda *_: gain)
    result.settings |= {"protocol": "interactive", "clicks": 3, "frames": 8}
    result.rows = [replace(row, clicks=clicks if row.frame in (2, 6) else 0) for row in result.rows]
    return result


def test_corrected_frames_count_and_clicks_are_compared_beside_j(tmp_path: Path) -> None:
    found = compared(tmp_path, helped(3), helped(0, 0.02))
    groups = found.groups
    assert groups["tool"]["iou"].difference.value == pytest.approx(0.02)
    means = [
        np.mean([r.iou for r in helped(3).rows if (r.sequence, r.object) == (s, i) and not r.given])
        for s in SEQUENCES
        for i in (1, 2)
    ]
    assert groups[""]["iou"].before == pytest.approx(np.mean(means))
    for of in (groups[""], groups["tool"], groups["tissue"]):
        assert [(of[n].before, of[n].after, of[n].difference.value) for n in ("clicks", "corrected")] == [
            (6, 0, -6), (2, 0, -2)
        ]  # fmt: skip
    console = Console(width=180, record=True, file=(tmp_path / "out.txt").open("w"))
    console.print(comparison_table(found))
    text = console.export_text()
    assert text.count("-6.0*") == 3 and text.count("-2.0*") == 1, "all objects, and each class"
    assert "clicks" not in compared(tmp_path / "video", run(), run()).groups[""]


def test_a_corruption_brings_its_seed_and_two_of_them_have_to_agree(tmp_path: Path) -> None:
    """Masks are prompts without a seed; so only the spoilt run has one."""
    runs = [run() for _ in range(3)]
    for result, more in zip(runs, ({}, {"seed": 0}, {"seed": 1}), strict=True):
        del result.settings["seed"]
        result.settings |= {"corruption": "smoke", "level": 3, **more} if more else {}
    assert compared(tmp_path / "x", runs[0], runs[1]).differing["settings.corruption"] == ("-", "smoke")
    with pytest.raises(ConfigError, match="seed 0 and 1"):
        compared(tmp_path / "y", runs[1], runs[2])


def test_an_object_without_a_figure_in_one_run_counts_in_neither(tmp_path: Path) -> None:
    """Where a run never draws an object there is no distance, and the other's must not stand alone."""
    before, after = run(), run()
    after.rows = [replace(r, hd95=None if r.sequence == "a" else 4.0) if r.hd95 else r for r in after.rows]
    before.rows = [replace(r, hd95=90.0) if r.sequence == "a" and r.hd95 else r for r in before.rows]
    change = compared(tmp_path, before, after).groups[""]["hd95"]
    assert (change.before, change.after, change.difference.value) == pytest.approx((5, 4, -1))


def test_what_made_the_runs_is_listed_where_it_differs(tmp_path: Path) -> None:
    after = run()
    after.settings["corruption"] = "smoke"
    after.made_by["versions"] = {"rtseg": "0.6", "torch": "2.9"}
    assert compared(tmp_path, run(), after).differing == {
        "settings.corruption": ("-", "smoke"),
        "made_by.versions.rtseg": ("0.5", "0.6"),
        "made_by.versions.torch": ("-", "2.9"),
    }


def without(result: Result, keep: Callable[[Row], bool]) -> Result:
    return replace(result, rows=[row for row in result.rows if keep(row)])


def changed(where: Callable[[Row], bool], **values: object) -> Result:
    result = run()
    return replace(result, rows=[replace(row, **values) if where(row) else row for row in result.rows])


UNPAIRED: list[tuple[Result, str]] = [
    (replace(run(), settings={**SETTINGS, "protocol": "every"}), "protocol video and every"),
    (replace(run(), settings={**SETTINGS, "prompt": "box"}), "prompt mask and box"),
    (replace(run(), settings={**SETTINGS, "seed": 1}), "seed 0 and 1"),
    (run(sequences=("a", "b", "x")), "sequences c, d, e and 3 more only in the first, x only in the second"),
    (without(run(), lambda r: (r.sequence, r.object) != ("b", 2)), "sequence b, object 2: scored only in the first"),
    (
        without(run(), lambda r: (r.sequence, r.object, r.frame) != ("b", 2, 7)),
        "object 2: scored frames 7 only",
    ),
    (changed(lambda r: r.frame == 6, truth_area=1001), "a, object 1: on frame 6 the truth has 1000 and 1001 pixels"),
    (changed(lambda r: r.sequence == "c", pixels=5), "c, object 1: on frame 0 the truth .* of 100000 and 5"),
    (changed(lambda r: r.object == 2, category="x"), "a, object 2: class 'tissue' and 'x'"),
]


@pytest.mark.parametrize(("other", "said"), UNPAIRED, ids=[said for _, said in UNPAIRED])
def test_what_cannot_be_paired_is_refused_in_one_line(tmp_path: Path, other: Result, said: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot be paired: .*{said}") as caught:
        compared(tmp_path, run(), other)
    assert "\n" not in str(caught.value)


def test_two_runs_without_a_row_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing was scored in either"):
        compared(tmp_path, replace(run(), rows=[]), replace(run(), rows=[]))


def test_two_runs_of_which_no_frame_counts_say_why(tmp_path: Path) -> None:
    alone = changed(lambda row: True, given=True)
    with pytest.raises(ConfigError, match="no frame was scored in both: frames on which the object was prompted"):
        compared(tmp_path, alone, run())


def test_the_dice_of_volumes_comes_first_and_where_less_is_better_it_says_so(tmp_path: Path) -> None:
    before, after = run(), run(lambda *_: 0.1)
    plain = comparison_table(compared(tmp_path / "plain", before, after)).sheets[0].rows
    assert {"HD95", "false area %", "ms"} <= {row[0] for row in plain if row[-1].startswith("smaller is better")}
    assert not {"J&F", "Dice", "NSD"} & {row[0] for row in plain if row[-1]}
    for tracked in (*before.tracked.values(), *after.tracked.values()):
        tracked.volume = True
    table = comparison_table(compared(tmp_path / "volumes", before, after))
    assert table.sheets[0].rows[0][0] == "volume Dice" and "slice Dice" in [row[0] for row in table.sheets[0].rows]
    assert table.sheets[1].columns[1] == "volume Dice" and table.sheets[1].note.startswith(
        "smaller is better: slice HD95"
    )


def test_of_few_sequences_intervals_are_within_them_and_the_table_says_so(tmp_path: Path) -> None:
    """And they are paired: a gain that is on every frame the same has an interval of no width."""
    found = compared(tmp_path, run(sequences=("a", "b")), run(lambda *_: 0.1, sequences=("a", "b")))
    jf = found.groups["tool"]["jf"].difference
    assert jf.scope == WITHIN and (jf.low, jf.high) == (pytest.approx(jf.value), pytest.approx(jf.value))
    assert found.groups[""]["ms"].difference.low is None  # times are no means over frames
    table = comparison_table(found)
    assert table.notes[-1].startswith("intervals are within these videos and do not extend to others")
    assert table.sheets[0].columns[4] == table.sheets[1].columns[2] == f"95 % interval\n{WITHIN}"
    whole = comparison_table(compared(tmp_path / "more", run(), run(lambda *_: 0.1)))
    assert whole.sheets[0].columns[4] == "95 % interval\nover videos" and "intervals" not in "".join(whole.notes)


def test_the_table_and_the_document_say_the_same(tmp_path: Path) -> None:
    after = run(lambda sequence, id_: 0.05 if sequence != "a" else -0.2, ms=12)
    after.made_by["engine"] = "tiny [bf16]"
    table = comparison_table(compared(tmp_path, run(), after))
    document = json.loads(json.dumps(table, allow_nan=False))
    jf = document["groups"][""]["jf"]
    console = Console(width=150, record=True, file=(tmp_path / "out.txt").open("w"))
    console.print(table)
    text = console.export_text()
    cells = f"{jf['before']:.3f}", f"{jf['after']:.3f}", f"{jf['difference']['value']:+.3f}"
    assert " ".join(text[text.index("J&F") :].split()[:4]) == " ".join(("J&F", *cells))
    assert f"{jf['difference']['low']:+.3f} to {jf['difference']['high']:+.3f}" in text
    assert "14 better, 2 worse, 0 within 0.01" in text and "tiny [bf16]" in text
    assert "+2.0*" in text and f"{cells[2]}*" not in text, "the steps are slower for certain, J&F not higher"
