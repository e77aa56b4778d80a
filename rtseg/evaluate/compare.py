"""Compare two evaluations of the same objects: what changed, by how much, and whether it may be chance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from ..base.errors import ConfigError
from . import blocks, bootstrap, frame_terms, store
from .bootstrap import Figure
from .object_figures import BY_OBJECT, ObjectFigures, object_figures
from .paired import paired
from .result import Result, Row
from .sheets import NONE, SMALLER, Document, Sheet, flat, intervals, number, short_names, titles
from .summary import by_group, difference_of_pair, overall

# Settings that have to be equal; corruption and engine may differ, and are listed if they do.
ASKED = ("protocol", "prompt", "every", "clicks", "frames", "slices", "seed", "tolerance")
CLEAR = 0.01  # J&F: an object with a smaller difference is a draw
MOST = 10  # sequences that are listed

Key = tuple[str, int]  # sequence and object
Pairs = list[tuple[ObjectFigures, ObjectFigures]]


@dataclass(frozen=True, slots=True)
class Change:
    """A figure in both runs, and the second minus the first, with its paired interval."""

    before: float
    after: float
    difference: Figure


@dataclass(frozen=True, slots=True)
class Tally:
    """The numbers of objects on which the second run is better, worse, or within `CLEAR` of the first, by J&F."""

    wins: int
    losses: int
    draws: int


@dataclass(frozen=True, slots=True)
class Moved:
    """A sequence's J&F in both runs, as the mean over its objects, and the second minus the first.

    The paired interval is within the sequence: how much depends on which frames were annotated. None: too few frames.
    """

    sequence: str
    before: float
    after: float
    difference: Figure


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of the files `before` and `after`.

    `groups` has the figures by name, of all objects under "" and of each class under its name: those of `Summary`, and
    for all objects `ms`, the median time of a frame as the mean over sequences. `tallies` has the same keys.
    `sequences` are those that changed most, largest change first. `differing` has both values of each setting, version
    and other fact that differs.
    """

    before: str
    after: str
    groups: dict[str, dict[str, Change]]
    tallies: dict[str, Tally]
    sequences: list[Moved]
    differing: dict[str, tuple[str, str]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(a: Path, b: Path) -> Comparison:
    """Compare evaluation `b` with `a`; each is an `eval.json`, or the folder that holds one.

    A frame whose mask was given in one of them counts in neither. Raises `ConfigError` for a file that cannot be read,
    and for two that cannot be paired because their data, objects, frames or settings differ.
    """
    before, after = (store.read(path, masks=False) for path in (a, b))
    unlike = _unlike(before, after)
    if unlike:
        raise ConfigError(f"{a} and {b} cannot be paired: {unlike} (first and second); evaluate both on the same")
    before, after = paired(before, after)
    if all(row.given for row in before.rows):
        raise ConfigError(
            f"{a} and {b}: no frame was scored in both: frames on which the object was prompted do not count; "
            "annotate other frames, or choose another protocol"
        )
    categories = dict.fromkeys(row.category for row in before.rows if row.category)
    groups = {"": _changes(before, after) | _step_times(before, after)}
    pairs = _pairs(before, after)
    tallies = {"": _tally(pairs)}
    for category in categories:
        groups[category] = _changes(_of_class(before, category), _of_class(after, category))
        tallies[category] = _tally([pair for pair in pairs if pair[0].category == category])
    return Comparison(str(a), str(b), groups, tallies, _moved(before, after, pairs), _differing(before, after))


def _unlike(before: Result, after: Result) -> str:
    """The first reason why two runs cannot be paired; "" if there is none."""
    for name in ASKED:
        values = before.settings.get(name), after.settings.get(name)
        # If prompts need no seed, a run has one only for its corruption, which may differ.
        if values[0] != values[1] and not (name == "seed" and None in values):
            return f"{name} {values[0]} and {values[1]}"
    first, second = (_by_object(result.rows) for result in (before, after))
    sequences = tuple({sequence for sequence, _ in of} for of in (first, second))
    if sequences[0] != sequences[1]:
        return f"sequences {_only(*sequences)}"
    for key in sorted(first.keys() | second.keys()):
        reason = _unlike_object(first.get(key, {}), second.get(key, {}))
        if reason:
            return f"sequence {key[0]}, object {key[1]}: {reason}"
    return "" if first else "nothing was scored in either"


def _unlike_object(first: Mapping[int, Row], second: Mapping[int, Row]) -> str:
    if not first or not second:
        return "scored only in the first" if first else "scored only in the second"
    if first.keys() != second.keys():
        return f"scored frames {_only(first.keys(), second.keys())}"
    for frame, row in first.items():
        other = second[frame]
        if (row.truth_area, row.pixels) != (other.truth_area, other.pixels):
            areas = f"{row.truth_area} and {other.truth_area} pixels of {row.pixels} and {other.pixels}"
            return f"on frame {frame} the truth has {areas}"
        if row.category != other.category:
            return f"class {row.category!r} and {other.category!r}"
    return ""


def _only(first: Collection[Any], second: Collection[Any]) -> str:
    """What only one of the two contains, as a part of a line."""
    parts = []
    for name, extra in (("first", set(first) - set(second)), ("second", set(second) - set(first))):
        if extra:
            shown = ", ".join(map(str, sorted(extra)[:3])) + (f" and {len(extra) - 3} more" if len(extra) > 3 else "")
            parts.append(f"{shown} only in the {name}")
    return ", ".join(parts)


def _by_object(rows: Sequence[Row]) -> dict[Key, dict[int, Row]]:
    found: dict[Key, dict[int, Row]] = {}
    for row in rows:
        found.setdefault((row.sequence, row.object), {})[row.frame] = row
    return found


def _of_class(result: Result, category: str) -> Result:
    rows = [row for row in result.rows if row.category == category]
    return replace(result, rows=rows, classes=[row for row in result.classes if row.category == category])


def _changes(before: Result, after: Result) -> dict[str, Change]:
    """The change of each figure that both runs have. An object without the figure in one run counts in neither.

    The same holds for a sequence that has rows of classes in only one of them.
    """
    shared = {row.sequence for row in before.classes} & {row.sequence for row in after.classes}
    before, after = (
        replace(of, classes=[row for row in of.classes if row.sequence in shared]) for of in (before, after)
    )
    first, second = overall(before), overall(after)
    pairs = _pairs(before, after)
    for name in BY_OBJECT:
        both = [(a, b) for o, p in pairs if (a := getattr(o, name)) is not None and (b := getattr(p, name)) is not None]
        if both:
            first[name], second[name] = (fmean(values) for values in zip(*both, strict=True))
    differences = difference_of_pair(before, after)
    return {name: Change(first[name], second[name], figure) for name, figure in differences.items()}


def _step_times(before: Result, after: Result) -> dict[str, Change]:
    """The change of the median ms of a frame, as the mean over the sequences that were timed in both runs."""
    timed = [name for name in before.tracked.keys() & after.tracked.keys() if before.tracked[name].ms]
    timed = sorted(name for name in timed if after.tracked[name].ms)
    first, second = (
        by_group([(name, median(of.tracked[name].ms)) for name in timed], before.group) for of in (before, after)
    )
    figure = bootstrap.difference([first], [second])
    if figure is None:
        return {}
    before_ms, after_ms = (fmean(ms for of_group in of.values() for ms in of_group) for of in (first, second))
    return {"ms": Change(before_ms, after_ms, figure)}


def _pairs(before: Result, after: Result) -> Pairs:
    """Each object in both runs."""
    there = {(o.sequence, o.object): o for o in object_figures(after)}
    return [(o, there[o.sequence, o.object]) for o in object_figures(before)]


def _tally(pairs: Pairs) -> Tally:
    changes = [b.jf - a.jf for a, b in pairs if a.jf is not None and b.jf is not None]
    wins, losses = sum(change > CLEAR for change in changes), sum(change < -CLEAR for change in changes)
    return Tally(wins, losses, len(changes) - wins - losses)


def _moved(before: Result, after: Result, pairs: Pairs) -> list[Moved]:
    """The sequences whose J&F changed, largest change first, at most `MOST`."""
    of_sequence: dict[str, list[tuple[float, float]]] = {}
    for a, b in pairs:
        if a.jf is not None and b.jf is not None:
            of_sequence.setdefault(a.sequence, []).append((a.jf, b.jf))
    found = []
    for name, both in of_sequence.items():
        first, second = map(fmean, zip(*both, strict=True))
        found.append(Moved(name, first, second, Figure(second - first, None, None, len(both))))
    changed = sorted((m for m in found if m.before != m.after), key=lambda m: -abs(m.difference.value))[:MOST]
    tracks = [_by_object(result.rows) for result in (before, after)]

    def bounded(m: Moved) -> Moved:
        rows = ([of.values() for (name, _), of in run.items() if name == m.sequence] for run in tracks)
        parts = ([frame_terms.object_part("jf", of_object) for of_object in of_run] for of_run in rows)
        return replace(m, difference=frame_terms.with_interval(m.difference, *parts))

    return [bounded(m) for m in changed]


def _differing(before: Result, after: Result) -> dict[str, tuple[str, str]]:
    first, second = (flat({"settings": of.settings, "made_by": of.made_by}) for of in (before, after))
    names = [name for name in dict.fromkeys((*first, *second)) if first.get(name) != second.get(name)]
    return {name: (first.get(name, NONE), second.get(name, NONE)) for name in names}


def comparison_table(comparison: Comparison) -> Document:
    """The comparison as a JSON document, which a terminal shows as tables."""
    heading = [f"before: {comparison.before}", f"after:  {comparison.after}"]
    sheets = [_changes_sheet(comparison.groups[""], comparison.tallies[""])]
    if len(comparison.groups) > 1:
        sheets.append(_classes_sheet(comparison))
    if comparison.sequences:
        sheets.append(_sequences_sheet(comparison.sequences))
    if comparison.differing:
        cells = tuple((name, *values) for name, values in comparison.differing.items())
        sheets.append(Sheet("what differs between the runs", "lll", ("", "before", "after"), cells))
    notes = [] if comparison.differing else ["the runs differ in no setting, and in nothing that made them"]
    scopes = {change.difference.scope for change in comparison.groups[""].values()}
    if scopes and bootstrap.OVER not in scopes:
        notes.append(bootstrap.few(within=blocks.WITHIN in scopes))
    return Document({"ok": True, **comparison.to_json()}, heading, sheets, notes)


def _changes_sheet(changes: Mapping[str, Change], tally: Tally) -> Sheet:
    """All figures of all objects."""
    rows, called = [], titles(changes)
    ordered = {name: changes[name] for name in called if name in changes}
    heading, between = intervals(((name, change.difference) for name, change in ordered.items()), "+")
    for (name, change), cell in zip(ordered.items(), between, strict=True):
        values = number(name, change.before), number(name, change.after), _signed(name, change.difference)
        better = "smaller is better" if name in SMALLER else ""
        better += ", where both runs drew it" if name == "hd95" else ""
        rows.append((called[name], *values, cell, better))
    note = f"J&F of objects: {tally.wins} better, {tally.losses} worse, {tally.draws} within {CLEAR:g}"
    if any(change.difference.low is not None for change in changes.values()):
        note += "; *: 0 is not in the interval"
    columns = ("", "before", "after", "difference", heading, "")
    return Sheet("all objects", "lrrrrl", columns, tuple(rows), note).trimmed()


def _classes_sheet(comparison: Comparison) -> Sheet:
    """The differences of each class, and the numbers of its objects on which the second run is better or worse."""
    first, *others = names = short_names(comparison.groups.values())
    rows, called = [], titles(names)
    classes = {category: changes for category, changes in comparison.groups.items() if category}
    main = ((first, changes[first].difference if first in changes else None) for changes in classes.values())
    heading, between = intervals(main, "+")
    for (category, changes), ends in zip(classes.items(), between, strict=True):
        tally = comparison.tallies[category]
        cells = (_signed(name, changes[name].difference) if name in changes else NONE for name in names)
        rows.append((category, next(cells), ends, *cells, *map(str, (tally.wins, tally.losses, tally.draws))))
    columns = ("", called[first], heading, *(called[name] for name in others), "better", "worse", "draw")
    note = f"smaller is better: {', '.join(called[name] for name in names if name in SMALLER)}"
    return Sheet("classes: difference", "l" + "r" * (len(columns) - 1), columns, tuple(rows), note).trimmed()


def _sequences_sheet(sequences: Sequence[Moved]) -> Sheet:
    """The sequences that changed most. They get no star, because of many sequences some change much by chance."""
    heading, between = intervals((("jf", m.difference) for m in sequences), "+")
    rows = tuple(
        (m.sequence, number("jf", m.before), number("jf", m.after), number("jf", m.difference.value, "+"), ends)
        for m, ends in zip(sequences, between, strict=True)
    )
    columns = ("", "before", "after", "difference", heading)
    return Sheet("sequences that changed most, J&F", "lrrrr", columns, rows).trimmed()


def _signed(name: str, figure: Figure) -> str:
    """A difference, with a star if its interval does not contain 0."""
    low, high = figure.low, figure.high
    sure = low is not None and high is not None and (low > 0 or high < 0)
    return number(name, figure.value, "+") + ("*" if sure else " ")
