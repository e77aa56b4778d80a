"""The terminal: the result of a verb as tables and lines, and progress bars."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.abc import RichRenderable
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

Advance = Callable[[int, int | None], None]
WIDE = 150  # columns of the widest table
# Sections for files only, not printed here; warnings were printed when they arose.
FOR_FILES = ("files", "reading", "fine", "source_account", "warnings", "licences", "failures")
MARKS = {True: "ok", False: "missing", None: "absent"}


def show(result: dict[str, Any], to_stderr: bool = False) -> None:
    """Print a verb's result: known sections as tables, the rest as `key: value`."""
    console = Console(stderr=to_stderr)
    if isinstance(result, RichRenderable):  # Rich prints it as it is
        if not console.is_terminal:  # a file or a pipe has no width
            console.width = WIDE
        console.print(result)
        return
    for key, value in result.items():
        if key in FOR_FILES or value in ([], ""):
            continue
        if key == "findings":
            for finding in value:
                _plain(console, _finding(finding))
        elif key == "engines":
            for engine in value:
                _plain(console, "\n".join(_built(engine)))
        elif key == "memory_mib":
            console.print(_memory(value))
        elif key == "stages_ms":
            console.print(_stages(value))
        elif key == "weights":
            if not console.is_terminal:
                console.width = WIDE
            console.print(_weights(value))
        elif isinstance(value, dict):
            _plain(console, f"{key}: {_line(value)}")
        elif key != "ok":
            _plain(console, f"{key}: {_text(value)}")


@contextmanager
def progress_bar(what: str) -> Iterator[Advance]:
    """A progress bar on stderr, as a function of (done, total or None); none if stderr is not a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def status_line() -> Iterator[Callable[[str], None] | None]:
    """A line on stderr that changes in place, as a function of its text; None if stderr is not a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with console.status("") as status:
        yield lambda text: status.update(escape(text))


@contextmanager
def bytes_bar(what: str) -> Iterator[Advance]:
    """A progress bar of a download on stderr, as a function of (bytes so far, of all or None).

    If stderr is not a terminal, it prints a line for each tenth of it instead. Nothing is shown before it is called.
    """
    console, tenths = Console(stderr=True), [0]
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip

    def line(done: int, total: int | None) -> None:
        if total and 10 * done // total > tenths[0]:
            tenths[0] = 10 * done // total
            _plain(console, f"{what}: {done / 1e6:.1f} of {total / 1e6:.1f} MB")

    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, visible=False)

        def show(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield show if console.is_terminal else line


@contextmanager
def clock_bar(what: str) -> Iterator[Callable[[str, float, float], None]]:
    """A progress bar in seconds on stderr, as a function of (step, seconds spent, estimate of all seconds).

    If stderr is not a terminal, it prints a line for a step instead, at most every five seconds.
    """
    console, last_s = Console(stderr=True), [-9.0]
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[of]}"))

    def line(text: str, spent: float, total: float) -> None:
        if spent - last_s[0] >= 5:
            last_s[0] = spent
            _plain(console, f"{what}: {spent:.0f} of about {total:.0f} s: {text}")

    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, of="")

        def show(text: str, spent: float, total: float) -> None:
            bar.update(task, description=text, completed=spent, total=total, of=f"of about {total:.0f} s")

        yield show if console.is_terminal else line


def _plain(console: Console, line: str) -> None:
    """Print a line unchanged: brackets are not markup, and the terminal wraps long lines."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _memory(rows: list[dict[str, Any]]) -> Table:
    """The memory of engines: a row for each preset, size and number of objects."""
    table = Table(title="memory, MiB", title_justify="left", box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in rows:
        table.add_row(*map(str, row.values()))
    return table


def _weights(rows: list[dict[str, Any]]) -> Table:
    """Published weights: a row for each."""
    table = Table(box=None, pad_edge=False)
    for name in ("weights", "MB", "px", "preset", "licence", "paper", "here"):
        table.add_column(name, justify="right" if name in ("MB", "px") else "left", no_wrap=True)
    for row in rows:
        size = "" if row["bytes"] is None else f"{row['bytes'] / 1e6:.0f}"
        here = "yes" if row["path"] else ("" if row["addresses"] else "by hand")
        licence = row["licence"] + " *" * row["accept_licence"]
        table.add_row(row["name"], size, str(row["image_size"]), row["preset"], licence, row["paper"], here)
    return table


def _stages(stages: dict[str, dict[str, float]]) -> Table:
    table = Table("stage", title="milliseconds", title_justify="left", box=None, pad_edge=False)
    for column in ("p50", "p95", "p99"):
        table.add_column(column, justify="right")
    for stage, row in stages.items():
        table.add_row(stage, *(f"{row[column]:.2f}" for column in ("p50", "p95", "p99")))
    return table


def _built(engine: dict[str, Any]) -> Iterator[str]:
    """An engine of `rtseg build`: the outcome, its agreement with the reference, and its speed."""
    yield f"{'ok' if engine['ok'] else 'failed':9}{engine['recipe']}: {engine['said']}"
    for proof in engine.get("parity", ()):
        line = f"{proof['clip']}: {proof['objects']} objects on {proof['frames']} frames"
        line += f", IoU with the reference {proof['least']:.3f} or more, {proof['mean']:.4f} in the mean"
        if "iou_with_truth" in proof:
            line += "; with the truth {engine:.3f}, as the reference {reference:.3f}".format(**proof["iou_with_truth"])
        yield f"{'':9}{line}"
    for row in engine.get("candidates", ()):
        steps = ", ".join(f"{ms:g} ms with {n} thread{'s' * (int(n) > 1)}" for n, ms in row.get("step_ms", {}).items())
        yield f"{'':9}{row['name']:14}{steps}{row.get('said', '')}"
    if "timings_ms" in engine:
        yield f"{'':9}{engine['engine']}; ms: {_line(engine['timings_ms'])}"


def _finding(finding: dict[str, Any]) -> str:
    remedy = f" -> {finding['remedy']}" if finding["remedy"] else ""
    return f"{MARKS[finding['ok']]:9}{finding['name']:17}{finding['text']}{remedy}"


def _line(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_text(value)}" for key, value in values.items()) or "none"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return f"({_line(value)})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
