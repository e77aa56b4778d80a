"""The figures of an evaluation as tables, each drawn for a terminal or written as Markdown."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table
from rich.text import Text

from .blocks import WITHIN
from .bootstrap import Figure
from .object_figures import EFFORT, ObjectFigures
from .result import named
from .summary import Speed, Summary

NAMES = {
    "volume_dice": "volume Dice",
    "volume_hd95": "volume HD95",
    "volume_surface": "volume NSD",
    "jf": "J&F",
    "iou": "J",
    "boundary": "F",
    "dice": "Dice",
    "hd95": "HD95",
    "missed": "missed %",
    "surface": "NSD",
    "false_area": "false area %",
    "false_frames": "false frames %",
    "challenge_iou": "challenge IoU",
    "isi_iou": "ISI-IoU",
    "mc_iou": "mcIoU",
    "reacquired": "re-acquired %",
    "reacquisition_frames": "found after",
    "clicks": "clicks",
    "corrected": "corrected frames",
    "ms": "ms",
}
MEANINGS = {
    "volume_dice": "2 x overlap / both areas, of all slices together",
    "volume_hd95": "95th percentile of the Hausdorff distance in three dimensions, mm",
    "volume_surface": "normalised surface Dice in three dimensions, tolerance in mm",
    "jf": "mean of J and F",
    "iou": "IoU of mask and truth",
    "boundary": "agreement of the contours, as DAVIS defines it",
    "dice": "2 x overlap / both areas",
    "hd95": "95th percentile of the Hausdorff distance, {unit}, where both are there: see missed %",
    "missed": "of frames with the object: nothing is drawn",
    "surface": "normalised surface Dice, tolerance in {unit}, 0 where one of the two is empty",
    "false_area": "of the frame, drawn while the object is absent",
    "false_frames": "of frames without the object: something is drawn",
    "challenge_iou": "EndoVis: mean over the classes in the truth of a frame, prompted or not",
    "isi_iou": "ISINet: mean over the classes in truth or masks of a frame",
    "mc_iou": "mean over classes, those that were never prompted included",
    "reacquired": "of returns after an absence: found within 10 frames",
    "reacquisition_frames": "frames from a return to an IoU of 0.5, median over returns",
    "clicks": "made on an object, the first prompt's included; what the other figures cost",
    "corrected": "of an object: its mask was bad, and counts as it is after clicks",
}
PERCENT = ("missed", "false_area", "false_frames", "reacquired")
SMALLER = (
    "volume_hd95", "hd95", "missed", "false_area", "false_frames", "reacquisition_frames", *EFFORT, "ms"
)  # is better  # fmt: skip
ONE_DECIMAL = ("volume_hd95", "hd95", "missed", "false_frames", "reacquired", "reacquisition_frames", *EFFORT, "ms")
DECIMALS = {**dict.fromkeys(ONE_DECIMAL, 1), "false_area": 2}
VOLUME = ("volume_dice", "volume_hd95", "volume_surface")
# The names of figures that are means over slices, in tables that also have those of the volume.
SLICES = {"dice": "slice Dice", "hd95": "slice HD95", "surface": "slice NSD"}
SHORT = ("jf", "iou", "boundary", "dice", "hd95", "missed", "surface", "false_area", "reacquired")
OF_OBJECT = SHORT[:-1]
OF = {
    **dict.fromkeys(("challenge_iou", "isi_iou", "mc_iou"), "frame"),
    **dict.fromkeys(("reacquired", "reacquisition_frames"), "return"),
}
NONE = "-"

Cells = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """The content of a table. `align` has one letter for each column, l or r."""

    title: str
    align: str
    columns: Cells
    rows: tuple[Cells, ...]
    note: str = ""

    def trimmed(self) -> Sheet:
        """The sheet without columns that are empty in all rows."""
        kept = [i for i, cells in enumerate(zip(*self.rows, strict=True)) if any(cells)]
        align, columns = "".join(self.align[i] for i in kept), tuple(self.columns[i] for i in kept)
        return replace(self, align=align, columns=columns, rows=tuple(tuple(row[i] for i in kept) for row in self.rows))

    def for_terminal(self) -> Table:
        table = Table(title=f"\n{self.title}", title_justify="left", box=None, pad_edge=False)
        for column, side in zip(self.columns, self.align, strict=True):
            table.add_column(column, justify="right" if side == "r" else "left", no_wrap=side == "r")
        for row in self.rows:
            table.add_row(*map(Text, row))  # as `Text`, because a label may have brackets, which are rich's markup
        return table

    def as_markdown(self) -> str:
        rule = ["---:" if side == "r" else ":---" for side in self.align]
        rows = [[_plain(cell) for cell in row] for row in self.rows]
        columns = [" ".join(column.split()) for column in self.columns]
        lines = [f"| {' | '.join(row)} |" for row in (columns, rule, *rows)]
        return "\n".join([f"## {self.title}", "", *lines, *(["", self.note] if self.note else [])])


class Document(dict[str, Any]):
    """The result of a verb: a JSON document, which a terminal shows as tables and lines."""

    def __init__(
        self, values: Mapping[str, Any], heading: Sequence[str], sheets: Sequence[Sheet], notes: Sequence[str]
    ) -> None:
        super().__init__(values)
        self.heading, self.sheets, self.notes = list(heading), list(sheets), list(notes)

    def __rich_console__(self, console: object, options: object) -> Iterator[Table | Text]:
        yield from map(Text, self.heading)
        for sheet in self.sheets:
            yield sheet.for_terminal()
            if sheet.note:
                yield Text(sheet.note)
        yield from map(Text, self.notes)


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """A nested dictionary as a flat one of texts, with keys joined by dots; None and empty values are `NONE`."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{key}.")
        else:
            listed = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            found[f"{before}{key}"] = NONE if value is None else listed or NONE
    return found


def _plain(text: str) -> str:
    """A cell's text, escaped for Markdown."""
    for sign in "\\|*_`<[":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def number(name: str, value: float | None, sign: str = "") -> str:
    """A figure as text, with its decimals; `sign` is "+" for a difference."""
    if value is None:
        return NONE
    return f"{100 * value if name in PERCENT else value:{sign}.{DECIMALS.get(name, 3)}f}"


def counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def interval(name: str, figure: Figure, sign: str = "") -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"{number(name, figure.low, sign)} to {number(name, figure.high, sign)}"


def intervals(figures: Iterable[tuple[str, Figure | None]], sign: str = "") -> tuple[str, list[str]]:
    """The heading and the cells of a column of intervals. A scope that all share is in the heading only."""
    figures = list(figures)
    scopes = {figure.scope for _, figure in figures if figure and figure.scope}
    heading = "\n".join(["95 % interval", *(scopes if len(scopes) == 1 else ())])
    cells = ["" if figure is None else interval(name, figure, sign) for name, figure in figures]
    if len(scopes) > 1:
        cells = [f"{cell} {f.scope}" if f and cell else cell for cell, (_, f) in zip(cells, figures, strict=True)]
    return heading, cells


def short_names(groups: Iterable[Container[str]]) -> tuple[str, ...]:
    """The figures of a table with a row for each group: `SHORT`, before them those of volumes, and clicks, if any."""
    there = {name for figures in groups for name in (*VOLUME, "clicks") if name in figures}
    return tuple(name for name in (*VOLUME, *SHORT, "clicks") if name in SHORT or name in there)


def titles(figures: Container[str]) -> dict[str, str]:
    """The names of figures for a table with these figures."""
    return NAMES | SLICES if "volume_dice" in figures else NAMES


def overall_sheet(summary: Summary, unit: str) -> Sheet:
    """All figures of all objects, with their meanings; `unit` is that of distances."""
    rows: list[Cells] = []
    called = titles(summary.overall)
    ordered = sorted(summary.overall.items(), key=lambda item: list(NAMES).index(item[0]))
    heading, between = intervals(ordered)
    for (name, figure), cell in zip(ordered, between, strict=True):
        of = counted(figure.count, OF.get(name, "object"))
        meaning = ("mean over slices: " if called[name] != NAMES[name] else "") + MEANINGS[name].format(unit=unit)
        rows.append((called[name], number(name, figure.value), cell, of, meaning))
    rows += _speed(summary.speed)
    return Sheet("all objects", "lrrrl", ("", "value", heading, "of", ""), tuple(rows)).trimmed()


def _speed(speed: Speed | None) -> list[Cells]:
    if speed is None:
        return []
    steps = counted(speed.steps, "frame")
    return [
        (name, f"{ms:.1f}", "", steps, f"ms a frame, {which}: {fps:.1f} frames a second one after the other")
        for name, ms, which, fps in (
            ("ms", speed.median_ms, "median", speed.median_fps),
            ("ms p95", speed.p95_ms, "95th percentile", speed.p95_fps),
        )
    ]


def parts_sheet(title: str, parts: Mapping[str, Mapping[str, Figure]], most: int | None = None) -> Sheet:
    """Classes or sequences, those with the least J&F (volumes: Dice) first, at most `most`."""
    first, *others = names = short_names(parts.values())
    ranked = sorted(parts.items(), key=lambda item: item[1][first].value if first in item[1] else 2)
    rows, called = [], titles(names)
    heading, between = intervals((first, figures.get(first)) for _, figures in ranked[:most])
    for (part, figures), interval_ in zip(ranked[:most], between, strict=True):
        main = figures.get(first)
        cells = [number(name, figures[name].value if name in figures else None) for name in names]
        rows.append((part, str(main.count if main else 0), cells[0], interval_, *cells[1:]))
    left = len(parts) - len(rows)
    note = f"and {left} more with a higher {called[first]}: see the report" if left else ""
    columns = ("", "objects", called[first], heading, *(called[name] for name in others))
    return Sheet(title, "l" + "r" * (len(columns) - 1), columns, tuple(rows), note).trimmed()


def objects_sheet(objects: Sequence[ObjectFigures]) -> Sheet:
    """Every object, those with the least J&F (volumes: Dice) first, with the interval of that within its video."""
    effort = EFFORT if any(o.clicks is not None for o in objects) else ()
    whole = [name for name in VOLUME if any(getattr(o, name) is not None for o in objects)]
    names = (*whole, *OF_OBJECT)
    called = titles(names)
    first, rows = names[0], []
    bounded = any(first in o.intervals for o in objects)
    for o in sorted(objects, key=lambda o: (_least(getattr(o, names[0])), o.sequence, o.object)):
        cells = [number(name, getattr(o, name)) for name in names] + [str(getattr(o, name)) for name in effort]
        times = ", ".join("missed" if time is None else str(time) for time in o.returns)
        if bounded:
            cells.insert(1, " to ".join(number(first, end) for end in o.intervals.get(first, ())))
        rows.append((o.sequence, named(o.object, o.label), o.category, str(o.frames), *cells, times))
    columns = (
        "sequence",
        "object",
        "class",
        "frames",
        called[first],
        *([f"95 % interval\n{WITHIN}"] if bounded else []),
        *(called[name] for name in (*names[1:], *effort)),
        "found again after frames",
    )
    return Sheet("objects", "lll" + "r" * (len(columns) - 4) + "l", columns, tuple(rows))


def _least(value: float | None) -> float:
    """A figure as a sort key; None comes last."""
    return 2 if value is None else value
