"""The document of a benchmark, and its tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from .statistics import thin

Row = dict[str, Any]


class Document(dict[str, Any]):
    """The JSON document that `rtseg bench` prints and saves. A terminal shows it as tables."""

    def __rich_console__(self, console: object, options: object) -> Iterator[Table | Text]:
        yield Text("\n".join(_heading(self)))
        for engine in self["engines"]:
            yield Text(f"{engine['name']}: {engine['engine']}")
            if estimate := engine["memory_plan"]:
                yield Text(f"{'':4}foreseen: {estimate['mib']} MiB of the {estimate['where']}")
        if self["engines"]:
            yield _steps(self["engines"])
            if staged := [(e["name"], row) for e in self["engines"] for row in e["by_objects"] if row["stages_ms"]]:
                yield _stages(staged)
            yield _starts(self["engines"])
        if self["speedups"]:
            yield _speedups(self["speedups"])
        for reason in dict.fromkeys(skipped["reason"] for skipped in self["skipped"]):
            names = [skipped["name"] for skipped in self["skipped"] if skipped["reason"] == reason]
            yield Text(f"skipped {', '.join(names)}: {reason}")
        for warning in self["warnings"]:
            yield Text(f"warning: {warning}")
        for path in self.get("saved", ()):
            yield Text(f"saved {path}")


def _heading(document: Row) -> list[str]:
    machine, clip, settings = document["machine"], document["clip"], document["settings"]
    gpu = f"; {machine['gpu']['name']}, CUDA {machine['gpu']['cuda']}" if machine["gpu"] else ""
    flags = ", ".join(machine["flags"]) or "no flags known"
    return [
        f"{machine['cpu']}, {machine['cores']} cores ({flags}), {machine['threads']} threads{gpu}",
        f"{clip['source']}: {clip['width']}x{clip['height']}, {clip['frames']} frames in memory",
        f"{settings['frames']} frames each in {settings['rounds']} alternating blocks or more, while there was time: "
        f"{document['took_s']:.0f} s; torch {document['versions']['torch']}; {document['commit']}; {document['date']}",
    ]


def _table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", box=None, pad_edge=False)
    for word in words:
        table.add_column(word)
    for number in numbers:
        table.add_column(number, justify="right", no_wrap=True)
    return table


def _steps(engines: Sequence[Row]) -> Table:
    """One row for each engine and number of objects. The fit of E and M is in the engine's last row."""
    columns = ("objects", "p50", "p90", "p95", "p99", "max", "jitter", "frames/s", "click", "IoU", "E", "M", "M/E")
    table = _table("a whole step, picture to masks, ms", ("engine",), columns)
    for engine in engines:
        for row in engine["by_objects"]:
            last = row is engine["by_objects"][-1]
            few = thin(row["end_to_end_ms"]["count"])
            times = ["-" if column in few else _ms(row["end_to_end_ms"][column]) for column in columns[1:6]]
            click = row["click_ms"] and row["click_ms"]["median"]
            rest = (_ms(row["jitter_ms"]), f"{row['fps']:.1f}", _ms(click))
            iou = "" if engine["iou"] is None else f"{engine['iou']:.3f}"
            table.add_row(
                engine["name"], str(row["objects"]), *times, *rest, iou, *(_fit(engine["fit"]) if last else ())
            )
    return table


def _fit(fit: Row | None) -> tuple[str, ...]:
    if fit is None:
        return ()
    share = "" if fit["m_over_e"] is None else f"{fit['m_over_e']:.2f}"
    return _ms(fit["e_ms"]), _ms(fit["m_ms"]), share


def _stages(rows: Sequence[tuple[str, Row]]) -> Table:
    title = "stages one by one, p50 / p99 ms; to_input is part of encode_image"
    table = _table(title, ("engine",), ["objects", *rows[0][1]["stages_ms"]])
    for name, row in rows:
        stages = row["stages_ms"].values()
        cells = (f"{_ms(s['p50'])} / {'-' if thin(s['count']) else _ms(s['p99'])}" for s in stages)
        table.add_row(name, str(row["objects"]), *cells)
    return table


def _starts(engines: Sequence[Row]) -> Table:
    columns = ("start to mask", "import", "open", "first frame", "first tracked", "warm first frame")
    sizes = ("MiB before", "steady", "peak", "CUDA peak")
    table = _table("a process of its own, one object: ms and MiB", ("engine",), (*columns, *sizes))
    for engine in engines:
        warm = _ms(engine["by_objects"][0]["first_frame_ms"]["median"])
        if (cold := engine["cold"]) is None:
            table.add_row(engine["name"], *[""] * 5, warm)
            continue
        memory, cuda = cold["resident_mib"], cold["cuda_mib"]
        keys = ("first_mask_ms", "import_ms", "open_ms", "first_frame_ms", "first_tracked_ms")
        held = (f"{memory[key]:.0f}" for key in ("before", "steady", "peak"))
        gpu = "" if cuda is None else f"{cuda['peak']:.0f}"
        table.add_row(engine["name"], *(_ms(cold[key]) for key in keys), warm, *held, gpu)
    return table


def _speedups(rows: Sequence[Row]) -> Table:
    """The ratios for the least and the largest number of objects; the document has them all."""
    title = "times faster than the baseline: median over the rounds, and its 95% interval"
    table = _table(title, ("about", "baseline", "engine"), ("objects", "faster", "low", "high", "rounds"))
    ends = {min(row["objects"] for row in rows), max(row["objects"] for row in rows)}
    for row in (row for row in rows if row["objects"] in ends):
        ratios = ("" if row[key] is None else f"{row[key]:.2f}x" for key in ("median", "low", "high"))
        table.add_row(row["about"], row["baseline"], row["name"], str(row["objects"]), *ratios, str(row["rounds"]))
    return table


def _ms(value: float | None) -> str:
    """A time with three significant digits, or as a whole number from 100 ms on."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
