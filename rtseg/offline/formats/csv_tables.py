"""`csv`: the tables of `tables.py` as `objects.csv`, `intervals.csv` and `totals.csv`; what has no value is empty."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from .segmented_video import SegmentedVideo
from .tables import TABLES, Row, rows


def write(video: SegmentedVideo, folder: Path) -> list[str]:
    """Write the three files."""
    with ExitStack() as stack:
        sinks = {}
        for name, columns in TABLES.items():
            file = stack.enter_context((folder / f"{name}.csv").open("w", encoding="utf-8", newline=""))
            sinks[name] = _sink(file)
            sinks[name](tuple(columns))
        for table, row in rows(video):
            sinks[table](tuple(int(value) if isinstance(value, bool) else value for value in row))
    return []


def _sink(file: TextIO) -> Callable[[Row], Any]:
    return csv.writer(file, lineterminator="\n").writerow
