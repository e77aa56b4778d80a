"""The report of an evaluation: a folder with figures and pictures, and the tables that a terminal shows.

OUT/eval.json, masks.json.gz   the whole result, see store.py
OUT/report.md                  the tables and the pictures below
OUT/plots/SEQUENCE.png         J and F of each object over the frames
OUT/worst/*.png                the worst frames: frame, truth, prediction
OUT/sheets/SEQUENCE.png        a contact sheet of each sequence, with its masks
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..base.errors import ConfigError
from ..base.result_folder import atomic_folder
from ..data.dataset import Dataset
from . import pictures, plots, store
from .blocks import WITHIN
from .bootstrap import INDEPENDENT, MIN_GROUPS, few
from .corrupt import corrupted
from .object_figures import ASSISTED
from .result import Result
from .sheets import NONE, Document, Sheet, counted, flat, objects_sheet, overall_sheet, parts_sheet
from .summary import Summary, summarise

FILE = "report.md"
PROMPTED = "frames on which the object was prompted do not count"
REMEDY = "annotate another frame, or see --protocol (both: also before the prompted slice; image: prompts count)"
SHOWN = 20  # sequences at most that a terminal shows; the report has them all


def write_report(make: Callable[[], Result], dataset: Dataset, out: Path, force: bool = False) -> Document:
    """Write the folder `out`, which appears when it is complete. Returns what `--json` prints, without the rows.

    `make` runs the evaluation, which may take hours, so it is called only after `out` was found to be writable. Raises
    `ConfigError` if `out` is not empty, unless `force` is set and it is an earlier report; `OutputError` if it cannot
    be written; `SourceError` if a picture of the data set can no longer be read.
    """
    with atomic_folder(out, force, store.FILE) as folder:
        report = fill(folder, make(), dataset)
    report["out"] = str(out)
    report.notes.append(f"saved {out}: {', '.join(report['saved'])}")
    return report


def fill(folder: Path, result: Result, dataset: Dataset) -> Document:
    """Write the files of a report into an empty folder."""
    summary = summarise(result)
    store.write(folder, result, summary.to_json())
    drawn, missing = _draw(folder, result, dataset)
    document = _document(result, dataset, summary, missing)
    document["saved"] = [store.FILE, store.MASKS, FILE, *(f"{name}/" for name, paths in drawn.items() if paths)]
    whole = [*_means(summary, dataset), parts_sheet("sequences", summary.sequences), objects_sheet(summary.objects)]
    (folder / FILE).write_text(_markdown(document, whole, drawn), "utf-8")
    return document


def table(result: Result, dataset: Dataset) -> Document:
    """What `write_report` returns, without writing anything."""
    return _document(result, dataset, summarise(result), ())


def _document(result: Result, dataset: Dataset, summary: Summary, missing: Sequence[str]) -> Document:
    values: dict[str, Any] = {
        "ok": True,
        "data": _about(result, dataset),
        "settings": result.settings,
        "made_by": result.made_by,
        "summary": summary.to_json(),
        "warnings": [*_warnings(summary, result, dataset), *missing],
    }
    sheets = [*_means(summary, dataset), parts_sheet("sequences", summary.sequences, SHOWN)]
    return Document(values, _heading(values), sheets, [f"warning: {warning}" for warning in values["warnings"]])


def _means(summary: Summary, dataset: Dataset) -> list[Sheet]:
    """The tables of all objects and, if there are any, of the classes."""
    classes = [parts_sheet("classes", summary.classes)] if summary.classes else []
    return [overall_sheet(summary, _unit(dataset)), *classes]


def _draw(folder: Path, result: Result, dataset: Dataset) -> tuple[dict[str, list[str]], list[str]]:
    """Draw all pictures. Returns their paths in the folder by kind, and a line for each kind that cannot be drawn."""
    dataset = _as_seen(dataset, result.settings)
    kinds: dict[str, Callable[[Path], list[Path]]] = {
        "plots": lambda path: plots.draw(result, path),
        "worst": lambda path: pictures.draw_worst(result, dataset, path),
        "sheets": lambda path: pictures.draw_sheets(result, dataset, path),
    }
    drawn: dict[str, list[str]] = {}
    missing = []
    for name, draw in kinds.items():
        (folder / name).mkdir()
        try:
            drawn[name] = [f"{name}/{path.name}" for path in draw(folder / name)]
        except ConfigError as e:  # matplotlib is missing, but the rest is useful without it
            drawn[name] = []
            missing.append(str(e))
        if not drawn[name]:
            (folder / name).rmdir()
    return drawn, missing


def _as_seen(dataset: Dataset, settings: Mapping[str, Any]) -> Dataset:
    """The data set with the pictures that the network got: corrupted, if the settings say so."""
    kind = settings.get("corruption")
    if kind is None:
        return dataset
    spoilt = (corrupted(sequence, kind, settings["level"], settings["seed"]) for sequence in dataset.sequences)
    return replace(dataset, sequences=tuple(spoilt))


def _about(result: Result, dataset: Dataset) -> dict[str, Any]:
    sequences = len(result.tracked)
    objects = len({(row.sequence, row.object) for row in result.rows})
    frames = len({(row.sequence, row.frame) for row in result.rows})
    counts = {"sequences": sequences, "objects": objects, "annotated_frames": frames}
    return {"name": dataset.name, "layout": dataset.layout, **counts}


def _unit(dataset: Dataset) -> str:
    units = {"px" if sequence.spacing_mm is None else "mm" for sequence in dataset.sequences}
    return " or ".join(sorted(units, reverse=True))


def _warnings(summary: Summary, result: Result, dataset: Dataset) -> Iterator[str]:
    """Warnings: what a reader has to know before trusting a figure."""
    unscored = sum(not o.frames for o in summary.objects)
    if unscored == len(summary.objects):
        yield f"no frame was scored: {PROMPTED}, and there is no other annotated one that was tracked; {REMEDY}"
    elif unscored:
        yield f"{counted(unscored, 'object')} of {len(summary.objects)} had no frame to score: {PROMPTED}"
    groups = summary.intervals["groups"]
    if 0 < groups < MIN_GROUPS:
        within = any(figure.scope == WITHIN for figure in summary.overall.values())
        yield f"{few(within)}; there {'is' if groups == 1 else 'are'} {groups}"
    if bare := dataset.unannotated:
        named = ", ".join(bare[:3]) + (", ..." if len(bare) > 3 else "")
        yield f"{counted(len(bare), 'sequence')} without annotations left out: {named}"
    left_out = result.made_by.get("not_prompted", {})
    if left_out:
        objects = counted(sum(map(len, left_out.values())), "object")
        where = counted(len(left_out), "sequence")
        yield f"{objects} in {where} were never prompted; where visible they are missed in the IoUs of classes"


def _counting(settings: Mapping[str, Any]) -> str:
    """A line on which frames count, as protocols/__init__.py defines it."""
    protocol, prompt = settings.get("protocol"), settings.get("prompt")
    if protocol == "image":
        return "all annotated frames that show the object count"
    if protocol in ASSISTED:
        which = "frames whose mask the prompt gave do not count" if prompt == "mask" else "all count"
        return f"{which}, those that clicks corrected as they are after these"
    return PROMPTED


def _heading(values: Mapping[str, Any]) -> list[str]:
    data = values["data"]
    counts = ", ".join(
        counted(data[f"{what}s"], what.replace("_", " ")) for what in ("sequence", "object", "annotated_frame")
    )
    lines = [f"{data['name']} ({data['layout']}): {counts}"]
    for name in ("settings", "made_by"):
        plain = flat({key: value for key, value in values[name].items() if not isinstance(value, Mapping)})
        line = "; ".join(f"{key} {text}" for key, text in plain.items() if text != NONE)
        lines += [f"{name.replace('_', ' ')}: {line}"] if line else []
    return lines


def _markdown(values: Mapping[str, Any], sheets: Sequence[Sheet], drawn: Mapping[str, Sequence[str]]) -> str:
    """The whole report as Markdown, which refers to the pictures beside it."""
    data = values["data"]
    facts = [
        Sheet(name.replace("_", " "), "ll", ("", ""), tuple(flat(values[name]).items()))
        for name in ("settings", "made_by")
        if values[name]
    ]
    method = values["summary"]["intervals"]
    over = (
        f"over videos, {method['groups']} {INDEPENDENT} (clips of one operation and cuts through one patient are one) "
        f"resampled {method['draws']} times; "
    )
    how = (
        f"Intervals of {method['confidence']:.0%}, {method['interval']} bootstrap: "
        f"{over if method['groups'] >= MIN_GROUPS else ''}{WITHIN}, which say nothing of others, moving blocks of "
        f"frames resampled {method['within']['draws']} times. "
        "A figure is the mean over objects of the mean over their frames; "
        f"{_counting(values['settings'])}. For research only: not a medical device."
    )
    titles = {"worst": "worst frames", "plots": "over the frames", "sheets": "at a glance"}
    pictured = [
        "\n\n".join([f"## {title}", *(f"![{path}]({path})" for path in drawn[name])])
        for name, title in titles.items()
        if drawn[name]
    ]
    parts = [
        f"# Evaluation on {data['name']}",
        "\n".join(_heading({**values, "settings": {}, "made_by": {}})) + ".",
        how,
        *(f"**Note:** {warning}." for warning in values["warnings"]),
        *(sheet.as_markdown() for sheet in (*sheets[:-1], *facts)),
        *pictured,
        sheets[-1].as_markdown(),
    ]
    return "\n\n".join(parts) + "\n"
